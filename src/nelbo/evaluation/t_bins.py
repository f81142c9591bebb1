"""Shares of the bound along the chain: L_0, bins of t or of u, L_T."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.diffusion.chain import StepSequence
from nelbo.diffusion.schedules import half_bin_logsnr

T_BIN = re.compile(r"([tu])_([0-9.]{1,9})_([0-9.]{1,9})")
U_BINS = 5  # of continuous time, equally wide
VISIBLE_SHARE = 0.05  # of the bound: it changes the third digit of bits/dim


@dataclass(frozen=True)
class Groups:
    """Groups of the steps of a chain.

    Attributes:
        of_step: (K,) int64, the column of each step; column 0 is L_0, the first step alone.
        columns: names of the columns; the last one is L_T.
    """

    of_step: Tensor
    columns: tuple[str, ...]


def two_groups(num_steps: int) -> Groups:
    """The columns L_0, the sum of L_t, and L_T."""
    return Groups((torch.arange(num_steps) > 0).long(), ("L_0", "L_t", "L_T"))


def t_bins(t: Tensor) -> Groups:
    """The columns L_0, bins of t by powers of ten (``t_2_10``, ``t_11_100``, ...), and L_T.

    In continuous time the bins are equally wide in u (``u_0.0_0.2``, ``u_0.2_0.4``, ...).

    Args:
        t: (K,) noisier end of each step: timesteps, int64, or u, float64. The first step is L_0, whatever
            its t.
    """
    if t.is_floating_point():
        edges_of_u = torch.arange(1, U_BINS, dtype=torch.float64) / U_BINS
        of_step = torch.bucketize(t, edges_of_u) + 1
        of_step[0] = 0
        names = (f"u_{i / U_BINS}_{(i + 1) / U_BINS}" for i in range(U_BINS))
        return Groups(of_step, ("L_0", *names, "L_T"))
    edges: list[tuple[int, int]] = []
    low, last = 2, int(t[-1])
    while low <= last:
        high = 10 ** len(str(low)) if low > 2 else 10
        edges.append((low, high))
        low = high + 1
    of_step = torch.bucketize(t, torch.tensor([high for _, high in edges])) + 1
    of_step[0] = 0
    names = (f"t_{low}_{high}" for low, high in edges)
    return Groups(of_step, ("L_0", *names, "L_T"))


def shares_by_t_bin(t: Tensor, contribution: Tensor, prior: float) -> dict[str, float]:
    """Shares of the bound in L_0, in each bin of t, and in L_T. They add up to 1.

    Args:
        t: (K,) noisier end of each step, as of :func:`t_bins`.
        contribution: (K,) of each step to the bound, in nats.
        prior: L_T, in nats.
    """
    groups = t_bins(t)
    parts = torch.zeros(len(groups.columns), dtype=torch.float64)
    parts.index_add_(0, groups.of_step, contribution)
    parts[-1] = prior
    return dict(zip(groups.columns, (parts / parts.sum()).tolist(), strict=True))


def share_below_half_bin(chain: StepSequence, contribution: Tensor, total: float) -> float:
    """Share of the bound in steps whose noise level is cleaner than half a bin; 0 for continuous data.

    Args:
        chain: of the bound.
        contribution: (K,) of each step to the bound, in nats.
        total: the bound, in nats.
    """
    if chain.schedule.half_bin is None:
        return 0.0
    logsnr = chain.level(torch.arange(1, chain.num_steps + 1)).logsnr
    # logsnr_max=auto starts at half a bin up to rounding
    clean = logsnr > half_bin_logsnr(chain.schedule.half_bin) + 1e-6
    return float(contribution[clean].sum()) / total


def bin_range(name: str) -> tuple[str, str, str] | None:
    """The coordinate, t or u, and the ends of a bin by its name; None for other names."""
    found = T_BIN.fullmatch(name)
    return None if found is None else (found[1], found[2], found[3])
