"""Opening of a version: verified, loaded, its shapes checked. It stays open while it is in use."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.engines.choose import choose_engine, no_tensorflow
from service.engines.engine import Engine, no_memory_to_load
from service.engines.found import inspect_machine
from service.engines.wish import EngineWish
from service.errors import InvalidVersion, is_out_of_memory
from service.imaging.limits import ResizeRule
from service.ranking import ConfidentRule
from service.store.layout import CPU_MODEL_FILES, list_precisions, model_of
from service.store.verify import VerifiedVersion, verify_version
from service.store.versions import find_version


class ServedVersion:
    """Verified version with its engine and its rules of resizing and of `confident`.

    It belongs to one thread, so it has no locks.
    """

    def __init__(self, verified: VerifiedVersion, engine: Engine) -> None:
        self.verified = verified
        self.model, self.version = model_of(verified.folder), int(verified.folder.name)
        self.metadata = verified.metadata
        self.rule = ResizeRule(self.metadata.preprocessing.image_size, self.metadata.preprocessing.shorter_side)
        self.confident_rule = ConfidentRule(
            self.metadata.confidence_threshold, self.metadata.max_energy, self.metadata.max_distance
        )
        self.engine = engine  # not to be called after `retire`, except within `in_use`
        self._num_users = 0
        self._is_retired = False
        self._is_closing = False

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the engine open within the block."""
        self._num_users += 1
        try:
            yield
        finally:
            self._num_users -= 1
            self._close_if_unused()

    def retire(self) -> None:
        """Close the engine after its last use, or at once if it has none."""
        self._is_retired = True
        self._close_if_unused()

    def close(self) -> None:
        """Close the engine now."""
        self.engine.close()

    def _close_if_unused(self) -> None:
        if self._is_retired and not self._num_users and not self._is_closing:
            self._is_closing = True
            # On a thread: giving hundreds of megabytes back would hold up the event loop.
            try:
                threading.Thread(target=self.close, name="close-engine", daemon=True).start()
            except (RuntimeError, MemoryError):  # no thread can be had
                self.close()


def open_version(
    verified: VerifiedVersion,
    wish: EngineWish,
    *,
    max_batch_size: int = 0,
    load: Callable[[VerifiedVersion, EngineWish], Engine] | None = None,
) -> ServedVersion:
    """Load a verified version and compare its network with its metadata.

    `max_batch_size` is the largest batch to warm up. 0 means no warm-up. `load` is None for `load_engine`. Raises as
    that, `InvalidVersion` for a network that does not fit the metadata, and `EngineFailed` for a failed warm-up.
    """
    engine = (load or load_engine)(verified, wish)
    try:
        _check_shapes(engine, verified)
        if max_batch_size:
            engine.warm_up(max_batch_size)
    except Exception:
        engine.close()
        raise
    return ServedVersion(verified, engine)


def open_stored(store: Path, model: str, wish: EngineWish, version: int | None = None) -> ServedVersion:
    """Find, verify and load a version. None means the served one. Raises as `find_version` and `open_version`."""
    return open_version(verify_version(find_version(store, model, version).folder), wish)


def load_engine(version: VerifiedVersion, wish: EngineWish) -> Engine:
    """Load a verified version with the engine that `choose_engine` names. It is not warmed up.

    Raises as `choose_engine` and the engines. Raises `ChangedVersion` if the files are no longer those verified.
    """
    machine = inspect_machine(look_for_gpu=wish.device != "cpu")
    choice = choose_engine(machine, list_precisions(version.digests), wish)
    if choice.engine == "onnxruntime":
        from service.engines.onnx_runtime import OnnxRuntimeEngine

        network = version.read(CPU_MODEL_FILES[choice.precision])
        return OnnxRuntimeEngine(network, choice, version=version.folder.name, threads=wish.threads)
    try:
        from service.engines.savedmodel import SavedModelEngine
    except Exception as error:  # two half-removed distributions can raise anything
        if is_out_of_memory(error):
            raise no_memory_to_load(version.folder.name) from error
        raise no_tensorflow(f"cannot be imported ({type(error).__name__}: {error})", choice.device) from error
    try:
        loaded = SavedModelEngine(
            version.folder, choice, threads=wish.threads, gpu_memory_limit_mb=wish.gpu_memory_limit_mb
        )
    except InvalidVersion:
        version.check_unchanged()  # else it may be another one that cannot be loaded
        raise
    try:
        version.check_unchanged()
    except InvalidVersion:
        loaded.close()
        raise
    return loaded


def _check_shapes(engine: Engine, verified: VerifiedVersion) -> None:
    metadata, network = verified.metadata, f"The network of version {verified.folder.name}"
    if engine.num_classes != len(metadata.class_names):
        raise InvalidVersion(
            f"{network} has {engine.num_classes} classes, its metadata {len(metadata.class_names)}. Export it again."
        )
    if engine.image_size != metadata.preprocessing.image_size:
        raise InvalidVersion(
            f"{network} takes squares of {engine.image_size} pixels. Its metadata says "
            f"{metadata.preprocessing.image_size}. Export it again."
        )
