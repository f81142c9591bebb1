"""Networks ``(x, c[, cond]) -> tensor``, independent of the diffusion code.

Every network takes ``x`` (B, *shape), a scalar noise conditioning ``c`` (B,) on the scale 0..1000
(a timestep, as a float) and, if it has ``num_classes``, ``cond`` (B,) int64. It returns
(B, out_channels, *shape[1:]), which is exactly 0 before the first optimizer step.
"""

from nelbo.models.mlp import MLP
from nelbo.models.unet import UNet

__all__ = ["MLP", "UNet"]
