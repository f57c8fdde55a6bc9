"""Number of workers that a machine carries."""

import pytest

from service.workers.count import GPU_WORKER_BYTES, LIGHT_WORKER_BYTES, MOST_WORKERS, count_workers

MUCH = 2**40
GB = 2**30


@pytest.mark.parametrize(
    ("num_cores", "memory_bytes", "num_workers"),
    [
        (1, MUCH, 1),
        (2, MUCH, 2),
        (16, MUCH, 16),
        (64, MUCH, MOST_WORKERS),
        (8, 0, 8),  # unknown
        (8, 2 * 3 * LIGHT_WORKER_BYTES, 3),
        (8, 2 * 3 * LIGHT_WORKER_BYTES - 1, 2),
        (8, LIGHT_WORKER_BYTES // 2, 1),  # one worker always
    ],
)
def test_cores_and_half_the_memory_bound_the_workers(num_cores: int, memory_bytes: int, num_workers: int) -> None:
    counted = count_workers(num_cores=num_cores, memory_bytes=memory_bytes, worker_bytes=LIGHT_WORKER_BYTES)
    assert counted == num_workers


@pytest.mark.parametrize(
    ("gpu_bytes", "gpu_worker_bytes", "num_workers"),
    [
        (0, 0, 8),  # no GPU
        (0, GB, 8),
        (3 * GPU_WORKER_BYTES, 0, 3),
        (3 * GPU_WORKER_BYTES, GPU_WORKER_BYTES // 2, 6),
        (GPU_WORKER_BYTES - 1, 0, 1),
        (141 * GB, 0, 8),
    ],
)
def test_memory_of_the_gpu_bounds_the_workers(gpu_bytes: int, gpu_worker_bytes: int, num_workers: int) -> None:
    counted = count_workers(
        num_cores=8, memory_bytes=MUCH, worker_bytes=GB, gpu_bytes=gpu_bytes, gpu_worker_bytes=gpu_worker_bytes
    )
    assert counted == num_workers
