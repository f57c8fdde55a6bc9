"""Number of workers that a machine carries."""

MOST_WORKERS = 16
_MB = 1024 * 1024
LIGHT_WORKER_BYTES = 160 * _MB  # with ONNX Runtime
TENSORFLOW_WORKER_BYTES = 1200 * _MB
GPU_WORKER_BYTES = 2048 * _MB  # of GPU memory, where no limit is set


def count_workers(
    *, num_cores: int, memory_bytes: int, worker_bytes: int, gpu_bytes: int = 0, gpu_worker_bytes: int = 0
) -> int:
    """Return one worker per core, as far as the memory carries them.

    Half of the memory is left to images. 0 bytes of memory mean that it is unknown, or that there is no GPU.
    """
    bounds = [num_cores, MOST_WORKERS]
    if memory_bytes:
        bounds.append(memory_bytes // 2 // worker_bytes)
    if gpu_bytes:
        bounds.append(gpu_bytes // (gpu_worker_bytes or GPU_WORKER_BYTES))
    return max(1, min(bounds))
