"""Where on the chain the bound lies: L_0, t_bins of t, L_T."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.schedules import half_bin_logsnr


@dataclass(frozen=True)
class Groups:
    """Steps of a chain that are looked at together.

    Attributes:
        of_step: (K,) int64, the column of each step; 0 is the first step alone, which is L_0.
        columns: names of the columns, the last of which is L_T.
    """

    of_step: Tensor
    columns: tuple[str, ...]


def two_groups(num_steps: int) -> Groups:
    """L_0, all of L_t, L_T."""
    return Groups((torch.arange(num_steps) > 0).long(), ("L_0", "L_t", "L_T"))


def t_bins(timesteps: Tensor) -> Groups:
    """L_0, the t_bins of t (``t_2_10``, ``t_11_100``, ...), L_T.

    Args:
        timesteps: (K,) t of each step of the chain. Its first step is L_0, whatever its t.
    """
    edges: list[tuple[int, int]] = []
    low, last = 2, int(timesteps[-1])
    while low <= last:
        high = 10 ** len(str(low)) if low > 2 else 10
        edges.append((low, high))
        low = high + 1
    of_step = torch.bucketize(timesteps, torch.tensor([high for _, high in edges])) + 1
    of_step[0] = 0
    names = (f"t_{low}_{high}" for low, high in edges)
    return Groups(of_step, ("L_0", *names, "L_T"))


def shares_by_t_bin(timesteps: Tensor, contribution: Tensor, prior: float) -> dict[str, float]:
    """Share of the bound in L_0, in each decade of t, and in L_T; they add up to 1.

    Args:
        timesteps: (K,) t of each step of the chain.
        contribution: (K,) what each step adds to the bound, in nats.
        prior: L_T, in nats.
    """
    groups = t_bins(timesteps)
    parts = torch.zeros(len(groups.columns), dtype=torch.float64)
    parts.index_add_(0, groups.of_step, contribution)
    parts[-1] = prior
    return dict(zip(groups.columns, (parts / parts.sum()).tolist(), strict=True))


def share_below_half_bin(chain: Chain, contribution: Tensor, total: float) -> float:
    """Share of the bound in steps whose noise level is cleaner than half a bin; 0 for continuous data.

    Args:
        chain: that was measured.
        contribution: (K,) what each step adds to the bound, in nats.
        total: the bound, in nats.
    """
    if chain.schedule.half_bin is None:
        return 0.0
    logsnr = chain.level(torch.arange(1, chain.num_steps + 1)).logsnr
    # a chain that starts at half a bin starts there to rounding
    clean = logsnr > half_bin_logsnr(chain.schedule.half_bin) + 1e-6
    return float(contribution[clean].sum()) / total
