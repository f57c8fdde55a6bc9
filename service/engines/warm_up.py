"""Engine calls before traffic, and the checks of their answers."""

from collections.abc import Sequence

import numpy as np

from service.engines.engine import Engine, Probabilities
from service.errors import EngineFailed

_TOLERANCE = 1e-5  # float32 sums reorder with the batch size


def run_and_check(engine: Engine, batch_sizes: Sequence[int]) -> None:
    """Run each batch size on noise, and check the answers.

    Raises:
        EngineFailed: A call raised, an answer is no probability distribution, or an image's answer depends on the
            rest of its batch.
    """
    shape = (max(batch_sizes), engine.image_size, engine.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for size in batch_sizes:
        together, alone = engine.run(images[:size]), engine.run(images[size - 1 : size], is_alone=True)
        _check(together, alone, (size, engine.num_classes), engine.info.device)


def _check(together: Probabilities, alone: Probabilities, shape: tuple[int, int], device: str) -> None:
    """Check one answer. NaN fails each comparison."""
    where = f"at batch size {shape[0]} on the {device}"
    if together.shape != shape or not np.isfinite(together).all():
        raise EngineFailed(f"the network's answer {where} is no table of finite numbers: export it again")
    if not np.abs(together.sum(axis=1) - 1).max() <= _TOLERANCE or together.min() < 0:
        raise EngineFailed(f"the network's answer {where} is no probability distribution: export it again")
    difference = np.abs(together[-1] - alone[0]).max()
    if not difference <= _TOLERANCE:
        raise EngineFailed(
            f"an image's probabilities {where} differ by {difference:.2g} from those it gets alone, "
            f"at most {_TOLERANCE:.0e} is allowed"
        )
