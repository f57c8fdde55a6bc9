"""A version from the store, verified and loaded in this process: scoring photographs without a service."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.engines.choose import load_engine
from service.engines.engine import Engine, check_shapes
from service.imaging.pixels import ResizeRule
from service.store.metadata import Metadata
from service.store.verify import VerifiedVersion, verify_version
from service.store.versions import StoredVersion, find_version


@dataclass(frozen=True)
class LocalModel:
    """A verified version and its engine; `rule` is how its pictures become square."""

    stored: StoredVersion
    verified: VerifiedVersion
    engine: Engine

    @property
    def metadata(self) -> Metadata:
        """What the version says of itself, as verified."""
        return self.verified.metadata

    @property
    def rule(self) -> ResizeRule:
        """From the metadata, as serving takes it."""
        preprocessing = self.metadata.preprocessing
        return ResizeRule(preprocessing.image_size, preprocessing.shorter_side)


@contextmanager
def open_local_model(
    store: Path,
    model: str,
    version: int | None,
    *,
    engine: str = "auto",
    device: Literal["auto", "gpu", "cpu"] = "auto",
    precision: Literal["auto", "float32", "int8"] = "auto",
    threads: int = 0,
    gpu_memory_limit_mb: int = 0,
) -> Iterator[LocalModel]:
    """Resolve, verify and load a version; its engine is closed at the end of the block.

    Args:
        version: None: the one that serving would take.
        engine, device, precision, threads, gpu_memory_limit_mb: as `load_engine` takes them.

    Raises:
        ModelNotFound, VersionNotFound: there is none.
        InvalidVersion, DeviceUnavailable: it cannot be used, or not here.
    """
    stored = find_version(store, model, version)
    verified = verify_version(stored.folder)
    metadata = verified.metadata
    loaded = load_engine(
        verified,
        engine=engine,
        device=device,
        precision=precision,
        threads=threads,
        gpu_memory_limit_mb=gpu_memory_limit_mb,
    )
    try:
        check_shapes(loaded, stored.version, len(metadata.class_names), metadata.preprocessing.image_size)
        yield LocalModel(stored, verified, loaded)
    finally:
        loaded.close()
