"""The OpenAPI document: which model is served, at which address, and where keys go."""

from typing import Any

from fastapi import FastAPI

from service.api.access import document_keys

_DESCRIPTION = """
Scores for photographs, by the model `{model}`.

    curl -F file=@photo.jpg localhost:8000/predict

Every answer has an `X-Request-ID`. Everything that goes wrong is answered as `application/problem+json`
(RFC 9457): its `type` says which kind it is, for programs; its `detail` what to do, for people.
"""
_HERE = {"url": ".", "description": "This service, with whatever a proxy has put before its paths."}


def describe(app: FastAPI, model: str, open_paths: frozenset[str] | None) -> None:
    """Make `app.openapi` describe a service of one model.

    Args:
        app: Its routes are there when its document is asked for.
        model: Name of the model that is served.
        open_paths: Paths that want no API key. None means that no path wants one.
    """
    app.title = f"{model} - image classification"
    app.description = _DESCRIPTION.format(model=model)
    app.servers = [dict(_HERE)]
    write_document = app.openapi

    def openapi() -> dict[str, Any]:
        document = write_document()
        example = document["components"]["schemas"]["PredictionBody"]["example"]
        example["model"] = {**example["model"], "name": model}
        if open_paths is not None:
            document_keys(document, open_paths)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
