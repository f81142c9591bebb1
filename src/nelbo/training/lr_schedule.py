"""Learning-rate schedules, stepped after every optimizer step."""

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nelbo.option_types import NonNegativeInt


def constant(optimizer: Optimizer, warmup_steps: NonNegativeInt) -> LambdaLR:
    """Linear warm-up over ``warmup_steps``, then constant (DDPM, Ho et al. 2020, appendix B)."""
    return LambdaLR(optimizer, partial(_warm_up, warmup_steps))


def cosine(optimizer: Optimizer, warmup_steps: NonNegativeInt, total_steps: int) -> LambdaLR:
    """Linear warm-up over ``warmup_steps``, then half a cosine down to 0 at ``total_steps``.

    Raises:
        ValueError: if ``total_steps`` is below 1, for example for an unlimited training.
    """
    if total_steps < 1:
        raise ValueError(
            f"lr_schedule=cosine needs the number of steps, got {total_steps}: set trainer.max_steps, or use "
            "lr_schedule=constant"
        )

    def factor(step: int) -> float:
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        return _warm_up(warmup_steps, step) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))

    return LambdaLR(optimizer, factor)


def _warm_up(warmup_steps: int, step: int) -> float:
    return min(1.0, (step + 1) / max(warmup_steps, 1))
