"""``UNet2DModel`` of diffusers as a network, for configurations that our U-Net does not support."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class WrappedUNet(nn.Module):
    """A ``UNet2DModel``; it receives 0-based timesteps.

    Args:
        shape: of one image, (C, H, W).
        out_channels: of the output.
        num_classes: of a class-conditional network; None for an unconditional one.
        config: known options of ``UNet2DModel``.

    Raises:
        ValueError: if diffusers is missing or raises an error, or channels or classes differ from ``config``.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_channels: int,
        num_classes: int | None = None,
        *,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__()
        try:
            from diffusers.models.unets.unet_2d import UNet2DModel
        except ImportError as error:
            raise ValueError("this network needs diffusers: pip install diffusers") from error
        # lists may be those of OmegaConf
        plain: dict[str, Any] = {
            name: value if value is None or isinstance(value, str | int | float) else list(value)
            for name, value in config.items()
        }
        try:
            self.unet = UNet2DModel(**plain)
        except Exception as error:  # any error of a layer
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"unet/config.json: error of diffusers: {reason}") from error
        self.config = plain
        own = self.unet.config
        has = (own["in_channels"], own["out_channels"], own["num_class_embeds"])
        if has != (shape[0], out_channels, num_classes):
            raise ValueError(
                f"the network has {has[0]} input channels, {has[1]} output channels and {has[2] or 'no'} "
                f"classes; data and variance need {shape[0]}, {out_channels} and {num_classes or 'no'}"
            )

    def forward(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), (B,) and (B,) int64 to (B, out_channels, H, W)."""
        return self.unet(x, c.round().long(), class_labels=cond, return_dict=False)[0]
