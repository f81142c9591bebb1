"""Embeddings of the noise level and of the class."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_PERIOD = 10_000.0


def sinusoidal_frequencies(
    dim: int, max_period: float = MAX_PERIOD, device: torch.device | None = None
) -> Tensor:
    """Geometrically spaced frequencies from 1 down to nearly 1 / ``max_period``, (dim / 2,) float32."""
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=device)
    return torch.exp(-math.log(max_period) * index / half)


def sinusoidal_embedding(c: Tensor, dim: int, max_period: float = MAX_PERIOD) -> Tensor:
    """Cosines and sines of ``c`` at ``dim / 2`` geometrically spaced frequencies.

    Vaswani et al. 2017, section 3.5, in the order of Improved DDPM's code: all cosines, then all sines.

    The frequencies are computed on the device of ``c`` at every call, at negligible cost. A buffer would be
    rounded by ``module.half()``: at c = 1000 bfloat16 would be off by more than a radian.

    Args:
        c: (B,), of any value.
        dim: Number of features, even.
        max_period: The longest period is about ``2 pi max_period``.

    Returns:
        (B, dim), float32.
    """
    phase = c.float()[:, None] * sinusoidal_frequencies(dim, max_period, c.device)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


class ConditioningEmbedding(nn.Module):
    """Embeds the noise conditioning, and the class if there is one, for the residual blocks.

    Linear, SiLU, Linear over the sinusoidal features; the class embedding is added (Improved DDPM's
    code). All blocks apply SiLU to this vector first, so it is applied here once.

    Args:
        dim: Number of sinusoidal features.
        width: Number of features returned.
        num_classes: Number of classes, or None for an unconditional network.

    Raises:
        ValueError: when ``dim`` is odd.
    """

    def __init__(self, dim: int, width: int, num_classes: int | None = None):
        super().__init__()
        if dim % 2:
            raise ValueError(f"the width of the noise embedding must be even, not {dim}")
        self.dim = dim
        self.max_period = MAX_PERIOD  # imported networks may have another
        self.linear1 = nn.Linear(dim, width)
        self.linear2 = nn.Linear(width, width)
        self.label = None if num_classes is None else nn.Embedding(num_classes, width)

    def forward(self, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Embed ``c`` (B,) and ``cond`` (B,) int64 into (B, width).

        Raises:
            ValueError: for a missing or an unexpected ``cond``.
        """
        features = sinusoidal_embedding(c, self.dim, self.max_period).to(self.linear1.weight.dtype)
        embedding = self.linear2(F.silu(self.linear1(features)))
        if self.label is not None:
            if cond is None:
                raise ValueError("this network is class-conditional: it needs cond")
            embedding = embedding + self.label(cond)
        elif cond is not None:
            raise ValueError("this network is unconditional: it was built without num_classes")
        return F.silu(embedding)
