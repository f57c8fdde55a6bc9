"""The engine savedmodel: a SavedModel on TensorFlow, on GPU or CPU. It is the reference for the other."""

import gc
from bisect import bisect_left
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from service.engines.engine import EngineInfo, Scores, failed_run, join_scores, no_memory_to_load, run_and_check
from service.errors import DeviceUnavailable, InvalidVersion, SettingsError, is_out_of_memory
from service.imaging.pixels import Pixels
from service.machine import count_cores
from service.store.layout import DISTANCE, ENERGY, INPUT, OUTPUT, SCORES_SIGNATURE, SIGNATURE

_DEFAULT_MAX_BATCH_SIZE = 32
_QUEUE_PER_CORE = 8  # images: its decoders hold some, and large calls suit it


def list_tensorflow_gpus() -> tuple[str, ...]:
    """List the GPUs that TensorFlow can use. Nothing is started on them."""
    return tuple(device.name for device in tf.config.list_physical_devices("GPU"))


def is_built_with_cuda() -> bool:
    """Return whether TensorFlow was built for GPUs."""
    return bool(tf.test.is_built_with_cuda())


def batch_sizes(max_batch_size: int) -> tuple[int, ...]:
    """List the sizes that the engine runs, ascending: 1, 2, 3, 4, 6, 8, 12, 16, ... and `max_batch_size`.

    A GPU tunes itself for each size, so there are few. A padded row costs as much as an image, so some lie between
    the powers of two. On a CPU 8 rows take 1.55 times as long as 5.
    """
    powers = [2**exponent for exponent in range(max_batch_size.bit_length())]
    between = [power + power // 2 for power in powers if power > 1]
    return tuple(sorted({size for size in (*powers, *between) if size < max_batch_size} | {max_batch_size}))


class SavedModelEngine:
    """Engine on TensorFlow. One concrete function takes any batch size, so nothing is traced twice.

    That is the signature `scores`, or else `serving_default`, which has probabilities alone.

    One call uses all cores of a CPU. XLA was slower at every batch size, measured on two busy cores.

    TensorFlow takes paths, so the caller compares the files of the version's `folder` again afterwards. The GPU is the
    first that TensorFlow lists. `threads` is the number of threads of one call on the CPU. 0 means one per core, or as
    TensorFlow already runs. `gpu_memory_limit_mb` is in MB. 0 means no limit.

    Raises:
        InvalidVersion: It is no SavedModel, or its signatures are not those of `store.layout`.
        OutOfMemory: There is not enough memory.
        SettingsError: TensorFlow already runs with another number of threads.
    """

    def __init__(self, folder: Path, choice: EngineInfo, *, threads: int = 0, gpu_memory_limit_mb: int = 0) -> None:
        _use_threads(threads)
        self.info, self._wish = choice, choice.device
        if self._wish == "gpu":
            _prepare_gpus(gpu_memory_limit_mb)
        with tf.device(f"/{self._wish}:0"):
            self._loaded = _load(folder)  # the variables live as long as this
        name = _find_signature(self._loaded, folder.name)
        self._signature = self._loaded.signatures[name]
        self.image_size, self.num_classes = _read_shapes(self._signature, name, folder.name)
        self.max_batch_size = _DEFAULT_MAX_BATCH_SIZE
        self._batch_sizes = batch_sizes(_DEFAULT_MAX_BATCH_SIZE)
        self.lanes_decode = False  # decoders work while the lane waits for TensorFlow's own threads, or for the GPU
        self.min_queue_size = _QUEUE_PER_CORE * (threads or count_cores())

    def warm_up(self, max_batch_size: int) -> None:
        """Run every batch size up to `max_batch_size` on noise, and check the answers.

        Raises:
            EngineFailed: As `run_and_check`.
            DeviceUnavailable: TensorFlow computed on another device.
        """
        self.max_batch_size, self._batch_sizes = max_batch_size, batch_sizes(max_batch_size)
        run_and_check(self, self._batch_sizes)
        if self.info.device != self._wish:
            raise DeviceUnavailable(f"TensorFlow did not use the {self._wish}. Take --device {self.info.device}.")

    def run(self, images: Pixels) -> Scores:
        """Score a batch as the protocol says. More images than the largest warmed size are scored in pieces."""
        most = self.max_batch_size
        pieces = [self._run_padded(images[start : start + most]) for start in range(0, len(images), most)]
        return join_scores(pieces)

    def close(self) -> None:
        """Drop the network and collect garbage.

        TensorFlow's objects are cyclic. Without a collection dozens of reloads would hold 22 MB each.
        """
        self._loaded = self._signature = None
        gc.collect()

    def _run_padded(self, images: Pixels) -> Scores:
        num_images = len(images)
        size = self._batch_sizes[bisect_left(self._batch_sizes, num_images)]
        if size > num_images:
            padding = np.zeros((size - num_images, *images.shape[1:]), np.uint8)
            images = np.concatenate((images, padding))
        try:
            with tf.device(f"/{self._wish}:0"):
                results = self._signature(**{INPUT: tf.constant(images)})
            # Such as /job:localhost/replica:0/task:0/device:GPU:0.
            device: Literal["gpu", "cpu"] = "gpu" if ":GPU:" in results[OUTPUT].backing_device else "cpu"
            if device != self.info.device:
                self.info = replace(self.info, device=device)
            found = {name: results[name].numpy() for name in (OUTPUT, ENERGY, DISTANCE) if name in results}
        except Exception as error:  # there is no list of what TensorFlow raises
            raise failed_run(num_images, error) from error
        return Scores(**found).first(num_images)


def _use_threads(threads: int) -> None:
    # TensorFlow itself ignores a container's quota of cores.
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads or count_cores())  # the same again is no error
    except RuntimeError as error:  # TensorFlow has started: its thread pool is fixed for the life of the process
        if threads == 0:
            return
        current = tf.config.threading.get_intra_op_parallelism_threads()
        raise SettingsError(
            f"TensorFlow already runs in this process with {current or 'its own choice of'} threads, "
            f"not {threads}. Choose the number once, at the start."
        ) from error


def _prepare_gpus(memory_limit_mb: int) -> None:
    # TensorFloat-32 keeps 10 bits of a factor: answers would move by 1e-3 with the batch size and the GPU.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    for gpu in tf.config.list_physical_devices("GPU"):
        with suppress(RuntimeError):  # TensorFlow has started: what was set for the first engine holds
            if memory_limit_mb:
                limit = tf.config.LogicalDeviceConfiguration(memory_limit=memory_limit_mb)
                tf.config.set_logical_device_configuration(gpu, [limit])
            else:
                tf.config.experimental.set_memory_growth(gpu, True)  # else it takes the whole memory at once


def _load(folder: Path) -> Any:
    try:
        return tf.saved_model.load(str(folder))
    except Exception as error:  # a damaged file can raise anything
        if is_out_of_memory(error):
            raise no_memory_to_load(folder.name) from error
        raise InvalidVersion(
            f"Version {folder.name} has no SavedModel that can be loaded here. Export it again, or update the service."
        ) from error


def _find_signature(loaded: Any, version: str) -> str:
    names = sorted(getattr(loaded, "signatures", ()))
    if SIGNATURE not in names:
        raise InvalidVersion(
            f"The SavedModel of version {version} has the signatures {', '.join(names) or 'none'}. "
            f"Expected was {SIGNATURE}. Export it again with `flowers train`."
        )
    return SCORES_SIGNATURE if SCORES_SIGNATURE in names else SIGNATURE


def _read_shapes(signature: Any, name: str, version: str) -> tuple[int, int]:
    """Return (image_size, num_classes). Raises `InvalidVersion` for other tensors."""
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    found = {tensor: (spec.dtype.name, spec.shape) for tensor, spec in (*inputs.items(), *outputs.items())}
    shapes = {tensor: (dtype, shape.rank and shape.as_list()) for tensor, (dtype, shape) in found.items()}
    columns = [found[tensor] for tensor in (ENERGY, DISTANCE) if tensor in found]
    are_columns = all(dtype == "float32" and shape.rank == 1 for dtype, shape in columns)
    match shapes.get(INPUT), shapes.get(OUTPUT):
        case (
            ("uint8", [None, int(height), int(width), 3]),
            ("float32", [_, int(num_classes)]),
        ) if height == width and set(inputs) == {INPUT} and are_columns:
            return height, num_classes
    described = ", ".join(f"{tensor}: {dtype} {shape}" for tensor, (dtype, shape) in found.items())
    raise InvalidVersion(
        f"{name} of version {version} has ({described}). Expected were {INPUT}: uint8 (None, size, size, 3) "
        f"and {OUTPUT}: float32 (None, classes), with or without {ENERGY} and {DISTANCE}: float32 (None). "
        "Export it again with `flowers train`."
    )
