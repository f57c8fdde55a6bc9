"""`GET /models`: what the store has, what is live, what runs it, and the model card."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request

from service import errors
from service.api import problems
from service.api.context import service_of
from service.api.schemas import LiveVersion, ModelDetails, ModelList, ModelSummary, VersionSummary
from service.inference.live_model import LiveModel
from service.store.layout import METADATA_FILE
from service.store.metadata import Metadata, read_metadata
from service.store.resolve import StoredVersion, list_models, list_versions, resolve_version

router = APIRouter(tags=["models"])


@router.get("/models", summary="The models of the store", responses=problems.document())
async def models(request: Request) -> ModelList:
    """Every model of the store with its versions; the one that this service serves has a `live_version`."""
    return await asyncio.to_thread(_list, service_of(request).live_model)


@router.get("/models/{name}", summary="One model", responses=problems.document(errors.ModelNotFound))
async def model(request: Request, name: str) -> ModelDetails:
    """Its versions, which one is live on which engine and device, and its model card."""
    return await asyncio.to_thread(_describe, service_of(request).live_model, name)


def _list(live_model: LiveModel) -> ModelList:
    return ModelList(
        models=[
            ModelSummary(
                name=name,
                live_version=live.version if (live := _live(live_model, name)) else None,
                versions=_versions(live_model, name),
            )
            for name in _names(live_model)
        ]
    )


def _describe(live_model: LiveModel, name: str) -> ModelDetails:
    """Reads the store: on a thread. A name that the store has not listed itself never reaches a path."""
    if name not in _names(live_model):
        raise errors.ModelNotFound(f"No model is called {name[:64]!r}: GET /models lists those there are.")
    live = _live(live_model, name)
    stored_versions = [resolve_version(live_model.store, name, version) for version in _versions(live_model, name)]
    cards = {stored.version: _card(stored) for stored in stored_versions}
    readable = [card for card in cards.values() if card is not None]
    card = readable[-1] if readable else None
    if live is not None and live_model.current is not None:
        card = live_model.current.metadata
    return ModelDetails(
        name=name,
        live=live,
        versions=[_summarise(stored, cards[stored.version], live_model, live) for stored in stored_versions],
        card=card,
    )


def _names(live_model: LiveModel) -> list[str]:
    """Those of the store, and the one that is served, whose folder may be gone by now."""
    names = set(list_models(live_model.store))
    return sorted(names | {live_model.current.model} if live_model.current else names)


def _versions(live_model: LiveModel, name: str) -> list[int]:
    try:
        return list_versions(live_model.store, name)
    except errors.ModelNotFound:  # gone, and served all the same
        return []


def _live(live_model: LiveModel, name: str) -> LiveVersion | None:
    loaded = live_model.current
    if loaded is None or name != loaded.model:
        return None
    return LiveVersion.model_validate({"version": loaded.version, **vars(loaded.engine.info)})


def _card(stored: StoredVersion) -> Metadata | None:
    try:
        return read_metadata(stored.folder / METADATA_FILE)
    except errors.InvalidVersion:
        return None


def _summarise(
    stored: StoredVersion, card: Metadata | None, live_model: LiveModel, live: LiveVersion | None
) -> VersionSummary:
    return VersionSummary(
        version=stored.version,
        live=live is not None and stored.version == live.version,
        pinned=stored.pinned,
        created=card.created if card else None,
        accuracy=card.stated.accuracy if card and card.stated else None,
        refused=live_model.refused.get(stored.version) if stored.model == live_model.model else None,
    )
