"""A residual multi-layer perceptron, for vectors."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.models.embedding import ConditioningEmbedding
from nelbo.models.layers import Dropout, zeroed
from nelbo.option_types import EvenInt, PositiveInt, Probability


class MLPBlock(nn.Module):
    """A residual block whose layer norm is scaled and shifted by the conditioning embedding."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.embedding = nn.Linear(width, 2 * width)
        self.linear1 = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.linear2 = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, width) and (B, width) to (B, width)."""
        scale, shift = self.embedding(embedding).chunk(2, dim=1)
        h = self.norm(x) * (1 + scale) + shift
        return x + self.linear2(self.dropout(F.silu(self.linear1(h))))


class MLP(nn.Module):
    """Residual MLP over the flattened example, conditioned like the U-Net.

    Args:
        shape: Shape of one example, (D,) or (C, H, W) or any other.
        out_channels: Size of the output along the first axis of ``shape``.
        num_classes: Number of classes, or None for an unconditional network.
        width: Features of the hidden layers.
        depth: Number of residual blocks.
        dropout: Probability of dropout in the residual blocks.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_channels: int,
        num_classes: int | None = None,
        *,
        width: EvenInt,
        depth: PositiveInt,
        dropout: Probability,
    ):
        super().__init__()
        self.out_shape = (out_channels, *shape[1:])
        self.embedding = ConditioningEmbedding(width, width, num_classes)
        self.stem = nn.Linear(math.prod(shape), width)
        self.blocks = nn.ModuleList([MLPBlock(width, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.out = zeroed(nn.Linear(width, math.prod(self.out_shape)))

    def forward(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map noisy examples to the output that the parameterization defines.

        Args:
            x: (B, *shape).
            c: (B,), the noise conditioning.
            cond: (B,) int64, required if and only if the network has ``num_classes``.

        Returns:
            (B, out_channels, *shape[1:]).
        """
        embedding = self.embedding(c, cond)
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, embedding)
        return self.out(self.norm(h)).unflatten(1, self.out_shape)
