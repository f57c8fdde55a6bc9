"""SavedModelEngine: a version's SavedModel on TensorFlow, on GPU or CPU; the reference for other engines."""

import gc
from bisect import bisect_left
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from service.engines.engine import EngineInfo, Probabilities, failed_run, no_memory_to_load
from service.engines.warm_up import run_and_check
from service.errors import DeviceUnavailable, InvalidVersion, SettingsError, is_out_of_memory
from service.imaging.pixels import Pixels
from service.machine import count_cores

_SIGNATURE, _INPUT, _OUTPUT = "serving_default", "images", "probabilities"
_DEFAULT_MAX_BATCH_SIZE = 32
_QUEUE_PER_CORE = 8  # images: its decoders hold some, and large calls suit it


def list_tensorflow_gpus() -> tuple[str, ...]:
    """The GPUs that TensorFlow can use, by its own names; asking starts nothing on them."""
    return tuple(device.name for device in tf.config.list_physical_devices("GPU"))


def is_built_with_cuda() -> bool:
    """Whether the installed TensorFlow could use a GPU at all."""
    return bool(tf.test.is_built_with_cuda())


def batch_sizes(max_batch_size: int) -> tuple[int, ...]:
    """The sizes that the engine runs, ascending: 1, 2, 3, 4, 6, 8, 12, 16, ... and `max_batch_size` itself.

    A GPU tunes itself anew for each size, so there must be few; on the CPU a padded row costs as much
    as an image (measured: 8 rows take 1.55 times as long as 5), so some lie between the powers of two.
    """
    powers = [2**exponent for exponent in range(max_batch_size.bit_length())]
    between = [power + power // 2 for power in powers if power > 1]
    return tuple(sorted({size for size in (*powers, *between) if size < max_batch_size} | {max_batch_size}))


class SavedModelEngine:
    """An `Engine` on TensorFlow: one concrete function for any batch size, so that nothing is traced twice.

    On the CPU it runs as TensorFlow comes: one call on all cores. XLA was slower at every batch size when tried on two
    busy cores; calls side by side and oneDNN are to be measured by `benchmarks/engines.py`.

    Args:
        folder: of a version. Whoever verified it compares its files again afterwards, since TensorFlow takes paths.
        device: where to compute; "gpu" is the first one that TensorFlow lists.
        reason, warning: why it was chosen, and what was not as it should be; for `info`.
        threads: inside one call on the CPU; 0: one per core, or what it began with where TensorFlow already runs.
        gpu_memory_limit_mb: most memory to take on a GPU; 0: as much as it comes to need.

    Raises:
        InvalidVersion: no SavedModel, or its signature is not the one that DESIGN promises.
        OutOfMemory: there is not enough memory for it.
        SettingsError: TensorFlow already runs in this process, with another number of threads.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: Literal["gpu", "cpu"],
        reason: str,
        warning: str = "",
        threads: int = 0,
        gpu_memory_limit_mb: int = 0,
    ) -> None:
        _use_threads(threads)
        if device == "gpu":
            _prepare_gpus(gpu_memory_limit_mb)
        self.info = EngineInfo("savedmodel", device, "float32", reason, warning)
        self._wish = device
        with tf.device(f"/{device}:0"):
            self._loaded = _load(folder)  # the variables live as long as this
        self._signature = _find_signature(self._loaded, folder.name)
        self.image_size, self.num_classes = _read_shapes(self._signature, folder.name)
        self.max_batch_size = _DEFAULT_MAX_BATCH_SIZE
        self._batch_sizes = batch_sizes(_DEFAULT_MAX_BATCH_SIZE)
        self.num_lanes = 1  # a call uses all cores, or the whole GPU
        self.lane_cores: tuple[int, ...] = ()  # TensorFlow computes on threads of its own
        self.lanes_decode = False  # several decoders keep its one lane busy
        self.min_queue_size = _QUEUE_PER_CORE * count_cores()

    def warm_up(self, max_batch_size: int) -> None:
        """Run every batch size up to `max_batch_size` on noise, and check the answers.

        Raises:
            EngineFailed: a call raised, an answer is no probability distribution, or a picture's answer
                depends on its company.
            DeviceUnavailable: TensorFlow computed on another device than it was told to.
        """
        self.max_batch_size, self._batch_sizes = max_batch_size, batch_sizes(max_batch_size)
        run_and_check(self, self._batch_sizes)
        if self.info.device != self._wish:
            raise DeviceUnavailable(f"TensorFlow computed on the {self.info.device}, not on the {self._wish} as told")

    def run(self, images: Pixels, *, is_alone: bool = False) -> Probabilities:  # noqa: ARG002 - it has them anyway
        """As the protocol says; more images than the largest warmed size are scored in pieces."""
        most = self.max_batch_size
        pieces = [self._run_padded(images[start : start + most]) for start in range(0, len(images), most)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def close(self) -> None:
        """Drop the network; what TensorFlow builds around it is cyclic, so that only a collection frees its memory.

        Else each reload holds its 22 MB until Python collects by itself, which at TensorFlow's size takes dozens.
        """
        self._loaded = self._signature = None
        gc.collect()

    def _run_padded(self, images: Pixels) -> Probabilities:
        num_images = len(images)
        size = self._batch_sizes[bisect_left(self._batch_sizes, num_images)]
        if size > num_images:
            padding = np.zeros((size - num_images, *images.shape[1:]), np.uint8)
            images = np.concatenate((images, padding))
        try:
            with tf.device(f"/{self._wish}:0"):
                result = self._signature(**{_INPUT: tf.constant(images)})[_OUTPUT]
            if (device := _device_kind(result)) != self.info.device:
                self.info = replace(self.info, device=device)
            probabilities: Probabilities = result.numpy()[:num_images]
        except Exception as error:  # whatever TensorFlow raises: there is no list of it
            raise failed_run(num_images, error) from error
        return probabilities


def _use_threads(threads: int) -> None:
    # By itself it takes one per core that it may run on, whatever the container's share of them.
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads or count_cores())  # the same again is no error
    except RuntimeError as error:  # TensorFlow has started: its thread pool is fixed for the life of the process
        if threads == 0:
            return
        current = tf.config.threading.get_intra_op_parallelism_threads()
        raise SettingsError(
            f"TensorFlow already runs in this process with {current or 'its own choice of'} threads, "
            f"not {threads}: choose the number once, at the start"
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
            f"version {folder.name} has no SavedModel that can be loaded here: export it again, or update the service"
        ) from error


def _find_signature(loaded: Any, version: str) -> Any:
    names = sorted(getattr(loaded, "signatures", ()))
    if _SIGNATURE not in names:
        raise InvalidVersion(
            f"the SavedModel of version {version} has the signatures {', '.join(names) or 'none'}, "
            f"expected {_SIGNATURE}: export it again with `flowers train`"
        )
    return loaded.signatures[_SIGNATURE]


def _read_shapes(signature: Any, version: str) -> tuple[int, int]:
    """(image_size, num_classes) of a signature that is as promised. Raises `InvalidVersion` for any other."""
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    found = ", ".join(f"{name}: {spec.dtype.name} {spec.shape}" for name, spec in (*inputs.items(), *outputs.items()))
    wrong = InvalidVersion(
        f"{_SIGNATURE} of version {version} has ({found}), expected {_INPUT}: uint8 (None, size, size, 3) "
        f"and {_OUTPUT}: float32 (None, classes): export it again with `flowers train`"
    )
    if set(inputs) != {_INPUT} or _OUTPUT not in outputs:
        raise wrong
    images, probabilities = inputs[_INPUT], outputs[_OUTPUT]
    if images.dtype != tf.uint8 or probabilities.dtype != tf.float32:
        raise wrong
    if images.shape.rank != 4 or probabilities.shape.rank != 2:
        raise wrong
    batch, height, width, channels = images.shape
    num_classes = probabilities.shape[1]
    if batch is not None or height is None or height != width or channels != 3 or num_classes is None:
        raise wrong
    return height, num_classes


def _device_kind(result: Any) -> Literal["gpu", "cpu"]:
    """Where a result lies, from a name such as /job:localhost/replica:0/task:0/device:GPU:0."""
    return "gpu" if ":GPU:" in result.backing_device else "cpu"
