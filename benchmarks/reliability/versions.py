"""Memory after a hundred reloads and a hundred refused versions."""

import shutil

from benchmarks.reliability.replica import MODEL, Result, publish_copy, replica, store_of_its_own, wait_for

NUM_VERSIONS = 100


def measure(scale: float, engine: str) -> Result:
    """Measure the resident memory after each version. Growth counts from the tenth on."""
    result = Result()
    num_versions = max(20, round(NUM_VERSIONS * scale))
    with store_of_its_own() as store, replica(store, "--engine", engine, "--reload-interval-s", "0.1") as service:
        reloaded, refused = [], []
        for version in range(2, num_versions + 2):
            publish_copy(store, version)
            wait_for(lambda: len(service.events("model loaded")) == version, f"version {version} is live")  # noqa: B023
            shutil.rmtree(store / MODEL / str(version - 1))
            reloaded.append(round(service.resident_mb(), 1))
        for number in range(num_versions):
            version = num_versions + 2 + number
            publish_copy(store, version, is_spoilt=True)
            wait_for(lambda: len(service.events("version refused")) == number + 1, f"{version} is refused")  # noqa: B023
            shutil.rmtree(store / MODEL / str(version))
            refused.append(round(service.resident_mb(), 1))
        result.figures = {"reloaded_mb": reloaded, "refused_mb": refused, "is_ready": service.is_ready()}
        result.at_most(1.05, f"memory after {num_versions} reloads / after 10", reloaded[-1] / reloaded[9])
        result.at_most(1.05, f"memory after {num_versions} refused versions / after 10", refused[-1] / refused[9])
        result.at_least(1, "the old version still answers", service.is_ready())
    return result
