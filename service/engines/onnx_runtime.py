"""The engine onnxruntime: a network on the CPU, without TensorFlow. It loads in a tenth of a second."""

import os
from pathlib import Path

import onnxruntime

from service.engines.engine import EngineInfo, Scores, failed_run, join_scores, no_memory_to_load, run_and_check
from service.errors import InvalidVersion, is_out_of_memory
from service.imaging.pixels import Pixels
from service.machine import count_cores
from service.store import layout

_LARGEST_CALL = 12  # images: more are hardly faster (measured), and take memory in proportion
_QUEUE_PER_CORE = 3  # images: fewer make small calls, more wait longer for hardly more answers


class OnnxRuntimeEngine:
    """Engine on ONNX Runtime.

    `network` has the bytes of an ONNX file, which are not kept. `threads` is the number of cores that a call uses. 0
    means all that `count_cores` counts. Raises `InvalidVersion` if it is no network, or if its tensors are not those of
    `store.layout`, and `OutOfMemory`.
    """

    def __init__(self, network: bytes, choice: EngineInfo, *, version: str, threads: int = 0) -> None:
        self.info = choice
        threads = threads or count_cores()
        self._session = _load(network, version, choice.precision, threads)
        self.image_size, self.num_classes, self._outputs = _read_shapes(self._session, version)
        self.lanes_decode = True  # to hand an image over to the lane costs a tenth of it
        self.max_batch_size = _LARGEST_CALL
        self.min_queue_size = _QUEUE_PER_CORE * threads

    def warm_up(self, max_batch_size: int) -> None:
        """Run the batch sizes as the protocol says. Raises `EngineFailed`, `OutOfMemory`."""
        largest = min(max_batch_size, _LARGEST_CALL)  # takes the memory of all; nothing else is kept for a size
        run_and_check(self, sorted({1, min(2, largest), largest}))

    def run(self, images: Pixels) -> Scores:
        """Score a batch as the protocol says. Many images are scored in pieces."""
        pieces = [images[start : start + _LARGEST_CALL] for start in range(0, len(images), _LARGEST_CALL)]
        try:
            found = [self._session.run(self._outputs, {layout.INPUT: piece}) for piece in pieces]
        except Exception as error:  # there is no list of what a runtime raises
            raise failed_run(len(images), error) from error
        return join_scores([Scores(**dict(zip(self._outputs, tensors, strict=True))) for tensors in found])

    def close(self) -> None:
        """Drop the session, and with it the memory."""
        del self._session


def _load(network: bytes, version: str, precision: layout.Precision, num_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    # A thread that waits by spinning keeps from its core the one that it waits for: 36 instead of 9 ms at the 99th
    # percentile of a few requests at a time, and no faster alone.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A network may name files for its weights. Without this they are looked for in the current folder, unverified.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.enable_mem_pattern = False  # plans memory for each batch size anew, and keeps all plans
    options.log_severity_level = 4  # what is fatal: it writes past the log's queue, and raises its errors, too
    try:
        session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a damaged file can raise anything
        if is_out_of_memory(error):
            raise no_memory_to_load(version) from error
        file = Path(layout.CPU_MODEL_FILES[precision]).name
        raise InvalidVersion(
            f"Version {version} has no {file} that can be loaded here. Export it again, or update the service."
        ) from error
    session._model_bytes = None  # else it keeps them, for providers to fall back on
    return session


def _read_shapes(session: onnxruntime.InferenceSession, version: str) -> tuple[int, int, list[str]]:
    """Return (image_size, num_classes, names of the outputs). Raises `InvalidVersion` for other tensors."""
    inputs, outputs = (
        {tensor.name: (tensor.type, tensor.shape) for tensor in tensors}
        for tensors in (session.get_inputs(), session.get_outputs())
    )
    columns = [outputs[name] for name in (layout.ENERGY, layout.DISTANCE) if name in outputs]
    are_columns = all(kind == "tensor(float)" and len(shape) == 1 for kind, shape in columns)
    are_all = len(inputs) == 1 and len(outputs) == 1 + len(columns)
    match inputs.get(layout.INPUT), outputs.get(layout.OUTPUT):
        case (
            ("tensor(uint8)", [str(), int(height), int(width), 3]),
            ("tensor(float)", [str(), int(num_classes)]),
        ) if height == width and are_columns and are_all:
            return height, num_classes, list(outputs)
    raise InvalidVersion(
        f"The network for onnxruntime of version {version} has {inputs} and {outputs}. Expected were {layout.INPUT}: "
        f"uint8 (N, size, size, 3) and {layout.OUTPUT}: float32 (N, classes), with or without {layout.ENERGY} and "
        f"{layout.DISTANCE}: float32 (N). Export it again with `flowers train`."
    )
