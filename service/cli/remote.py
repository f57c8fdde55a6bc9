"""Remote stores in commands: what is needed is pulled first, and nothing is changed there."""

from collections.abc import Callable
from pathlib import Path

from service.cli.terminal import complain
from service.errors import StoreError, UsageError
from service.remote_store.cache import ModelCache, check_platform
from service.remote_store.location import StoreUrl
from service.remote_store.mirror import Mirror
from service.remote_store.reader import open_reader
from service.settings import StoreSettings


def fetch_store(settings: StoreSettings, version: int | None = None, *, tell: Callable[[str], None] = complain) -> Path:
    """Return the folder of the store. A remote store is mirrored in its cache first.

    Nothing is dropped that a running service needs.

    Args:
        version: Version to have in the cache. None means the one that a service would take.
        tell: Gets sentences about a remote store that cannot be read, and about versions that were not pulled. The
            cache is used as it is then. The default writes to stderr.

    Raises `SettingsError` if a package is missing, and `StoreError` where files cannot be locked.
    """
    if isinstance(settings.model_store, StoreUrl):
        check_platform()
        reader = open_reader(settings.model_store)
        cache = ModelCache(settings.store_folder, settings.model)
        mirror = Mirror(reader, cache, settings.model, settings.max_cache_bytes)
        try:
            if version is not None:
                mirror.obtain(version)
            elif model := mirror.look():
                _tell_uncached(sorted({*model.versions} - cache.versions().keys()), tell)
                for reason in mirror.refused.values():
                    tell(reason)
        except StoreError as error:
            tell(f"{error} The cache is used as it is.")
    return settings.store_folder


def require_folder(store: Path | StoreUrl, verb: str) -> Path:
    """Return the folder of a local store. Raises `UsageError` for a remote store, which no command changes."""
    if isinstance(store, StoreUrl):
        raise UsageError(
            f"`flowers {verb}` does not change a remote store. Name a folder with --model-store, and copy its content "
            f"to {store} with the tools of the platform."
        )
    return store


def _tell_uncached(versions: list[int], tell: Callable[[str], None]) -> None:
    if versions:
        numbers = ", ".join(map(str, versions))
        tell(f"The remote store also has {numbers}. See one with `flowers models show {versions[-1]}`.")
