"""A diffusion transformer between convolutions at the full resolution."""

import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.models.blocks import ResidualBlock
from nelbo.models.dit import DiT
from nelbo.models.embedding import ConditioningEmbedding
from nelbo.models.layers import conv, group_norm, zeroed
from nelbo.option_types import EvenInt, NonNegativeInt, PositiveInt, Probability


class ConvDiT(nn.Module):
    """Residual blocks at the full resolution, and a transformer over patches of their features between them.

    As in the U-ViT of Hoogeboom et al. 2023 ("Simple diffusion") the transformer works at a low
    resolution, and convolutions predict the details. Here a patch is the only change of resolution.

    Args:
        shape: (C, H, W) of one example.
        out_channels: Channels of the output.
        num_classes: Number of classes, or None for an unconditional network.
        channels: Width of the residual blocks.
        num_blocks: Number of residual blocks before, and again after the transformer.
        patch_size: Height and width of a patch, in pixels.
        width: Features of a patch; a multiple of 4.
        depth: Number of blocks of the transformer.
        num_heads: Heads of every attention.
        dropout: Probability of dropout in the residual blocks.

    Raises:
        ValueError: for data that is not an image; as :class:`nelbo.models.dit.DiT`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_channels: int,
        num_classes: int | None = None,
        *,
        channels: EvenInt,
        num_blocks: NonNegativeInt,
        patch_size: PositiveInt,
        width: PositiveInt,
        depth: PositiveInt,
        num_heads: PositiveInt,
        dropout: Probability,
    ):
        super().__init__()
        if len(shape) != 3:
            raise ValueError(
                f"model=conv_dit_* needs images (C, H, W); the data has shape {tuple(shape)}: use model=mlp"
            )
        self.transformer = DiT(
            (channels, *shape[1:]),
            channels,
            num_classes,
            patch_size=patch_size,
            width=width,
            depth=depth,
            num_heads=num_heads,
        )
        self.embedding = ConditioningEmbedding(channels, 4 * channels, num_classes)
        self.stem = conv(2, shape[0], channels, 3)
        self.before, self.after = (
            nn.ModuleList(
                [
                    ResidualBlock(channels, channels, 4 * channels, dropout, use_scale_shift_norm=True)
                    for _ in range(num_blocks)
                ]
            )
            for _ in range(2)
        )
        self.norm = group_norm(channels)
        self.out = zeroed(conv(2, channels, out_channels, 1))

    def forward(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map noisy images to the output that the parameterization defines.

        Args:
            x: (B, C, H, W).
            c: (B,), the noise conditioning.
            cond: (B,) int64, required if and only if the network has ``num_classes``.

        Returns:
            (B, out_channels, H, W).
        """
        embedding = self.embedding(c, cond)
        h = self.stem(x)
        for block in self.before:
            h = block(h, embedding)
        h = h + self.transformer(h, c, cond)
        for block in self.after:
            h = block(h, embedding)
        return self.out(F.silu(self.norm(h)))
