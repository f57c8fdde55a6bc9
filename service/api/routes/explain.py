"""`POST /explain`: one image in, out comes what the score of a label rests on."""

import asyncio
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.accept import prefers
from service.api.classification import read_until, unless_hung_up
from service.api.json_bodies import MEDIA_TYPE, JsonValue, read_json
from service.api.json_fields import take_object
from service.api.parameters import read_explanation_parameters
from service.api.record import RequestRecord, record_of
from service.api.routes.predict import IMAGE, take_file
from service.api.schemas import ExplanationBody, ModelVersion
from service.api.service import Service, service_of
from service.api.upload import read_image, read_media_type
from service.imaging.heat_map import draw_heat_map
from service.inference.admission import Ticket
from service.inference.occlusion import Explained

PATH = "/explain"
LABEL_HEADER, PROBABILITY_HEADER = "X-Flowers-Label", "X-Flowers-Probability"
_to_json = TypeAdapter(ExplanationBody).dump_json


async def explain(request: Request) -> Response:
    """Explain the score of the image that the request carries."""
    service, record = service_of(request), record_of(request.scope)
    assert service.explainer is not None, "the route is there only with an explainer"
    parameters = read_explanation_parameters(request)
    clock = asyncio.get_running_loop().time
    gives_up_at = None if parameters.timeout_s is None else clock() + parameters.timeout_s
    with service.admission.request() as ticket:
        service.explainer.check(parameters.label)
        image = await read_until(gives_up_at, _read_file(request, ticket, service))
        deadline = clock() + service.explain_timeout_s
        if gives_up_at is not None:
            deadline = min(deadline, gives_up_at)
        work = service.explainer.explain(image, parameters.label, deadline)
        del image  # the explainer lets go of it as soon as it is decoded
        explained = await unless_hung_up(request, work)
        record.explained = explained.classified
        label = explained.classified.version.metadata.class_names[explained.class_index]
        probability = _shorten(explained.classified.probabilities[explained.class_index])
        headers = {
            **record.server_timing(),
            "Vary": "Accept",
            LABEL_HEADER: quote(label, safe=""),
            PROBABILITY_HEADER: str(probability),
        }
        accept = ",".join(request.headers.getlist("accept"))
        if prefers(accept, "application/json", "image/png"):
            body = _to_json(_describe(record, explained, label, probability))
            return Response(body, media_type="application/json", headers=headers)
        draw = asyncio.get_running_loop().run_in_executor
        heat_map = await draw(service.upload_limits.joiner, draw_heat_map, explained.square, explained.drops)
        return Response(heat_map, media_type="image/png", headers=headers)


async def _read_file(request: Request, ticket: Ticket, service: Service) -> bytes:
    """Read the image of a body of any kind. Errors are those of `read_image` and `read_json`."""
    limits = service.upload_limits

    def translate(document: JsonValue) -> bytes:
        fields = take_object(document, "the body", (IMAGE,))
        return take_file(limits, fields)

    kind, _ = read_media_type(request)
    if kind == MEDIA_TYPE:
        return await read_json(request, ticket, limits, translate, service.max_json_bytes)
    return (await read_image(request, ticket, limits)).image


def _describe(record: RequestRecord, explained: Explained, label: str, probability: float) -> ExplanationBody:
    version = explained.classified.version
    return ExplanationBody(
        request_id=record.request_id,
        model=ModelVersion(name=version.model, version=version.version),
        label=label,
        probability=probability,
        grid=[[_shorten(drop) for drop in row] for row in explained.drops],
    )


def _shorten(value: Any) -> float:
    """Return the shortest decimal that is this float32, as in predictions."""
    return float(str(value))


routes = [Route(PATH, explain, methods=["POST"])]
