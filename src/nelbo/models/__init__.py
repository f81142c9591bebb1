"""The networks: maps ``(x, conditioning[, label]) -> tensor``. They know no diffusion.

Every network takes ``x`` (B, *shape), a scalar noise conditioning ``c`` (B,) on the scale 0..1000
(a timestep, as a float) and, when it was built with ``num_classes``, ``label`` (B,) int64.
It returns (B, out_channels, *shape[1:]), and exactly 0 before the first optimiser step.
"""

from nelbo.models.mlp import MLP
from nelbo.models.unet import UNet

__all__ = ["MLP", "UNet"]
