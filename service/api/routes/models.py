"""`GET /models`: models of the store, their versions, the live version and its card.

The answers come from the snapshot of the last look at the store. No request opens a file or waits for one.
"""

from fastapi import APIRouter
from starlette.requests import Request

from service import errors
from service.api import problems
from service.api.schemas import LiveVersion, ModelDetails, ModelList, ModelSummary, VersionSummary
from service.api.service import service_of
from service.engines.open_version import ServedVersion
from service.inference.live_model import LiveModel
from service.store.metadata import Metadata
from service.store.snapshot import ListedModel, ListedVersion

router = APIRouter(tags=["models"])


@router.get("/models", summary="The models of the store", responses=problems.document(errors.NotReady))
async def models(request: Request) -> ModelList:
    """List every model of the store with its versions. The served model has a `live_version`."""
    service = service_of(request)
    live_model = service.live_model
    summaries = []
    for name, listed in sorted(_models(live_model).items()):
        loaded = _loaded(live_model, name)
        versions = [version.version for version in listed.versions]
        summaries.append(ModelSummary(name=name, live_version=loaded.version if loaded else None, versions=versions))
    return ModelList(models=summaries, explanations=service.explainer is not None)


@router.get("/models/{name}", summary="One model", responses=problems.document(errors.ModelNotFound, errors.NotReady))
async def model(request: Request, name: str) -> ModelDetails:
    """Show the versions of a model, its engine and device, and its card."""
    live_model = service_of(request).live_model
    listed = _models(live_model).get(name)
    if listed is None:
        raise errors.ModelNotFound(f"No model is called {name[:64]!r}. Choose one that GET /models lists.")
    loaded = _loaded(live_model, name)
    refused = live_model.watch.refused if name == live_model.model else {}
    return ModelDetails(
        name=name,
        live=LiveVersion(version=loaded.version, **vars(loaded.engine.info)) if loaded else None,
        versions=[_summarise(version, loaded, refused.get(version.version)) for version in listed.versions],
        card=_card(listed, loaded, refused),
    )


def _models(live_model: LiveModel) -> dict[str, ListedModel]:
    """Return the models of the store, and the served one. Its folder may be gone by now."""
    snapshot = live_model.snapshot
    if snapshot is None and live_model.current is None:
        raise errors.NotReady("The model store has not been read yet. Ask again after the seconds in Retry-After.")
    listed = dict(snapshot or {})
    if live_model.current is not None:
        listed.setdefault(live_model.current.model, ListedModel())
    return listed


def _loaded(live_model: LiveModel, name: str) -> ServedVersion | None:
    loaded = live_model.current
    return loaded if loaded is not None and loaded.model == name else None


def _card(listed: ListedModel, loaded: ServedVersion | None, refused: dict[int, str]) -> Metadata | None:
    """Return the card that was verified, where a version is live, else one that was not found damaged."""
    if loaded is not None:
        return loaded.metadata
    return None if listed.card_version in refused else listed.card


def _summarise(listed: ListedVersion, loaded: ServedVersion | None, refused: str | None) -> VersionSummary:
    """Describe a version. A live one shows verified facts, a refused one only the reason."""
    created, accuracy, is_live = listed.created, listed.accuracy, False
    if loaded is not None and loaded.version == listed.version:
        is_live = True
        created, accuracy = loaded.metadata.created, loaded.metadata.stated_accuracy
    elif refused is not None:
        created, accuracy = None, None
    return VersionSummary(
        version=listed.version, live=is_live, pinned=listed.pinned, created=created, accuracy=accuracy, refused=refused
    )
