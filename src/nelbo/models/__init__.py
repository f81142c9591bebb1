"""Networks ``(x, c[, cond]) -> tensor``, independent of the diffusion code.

Every network takes ``x`` (B, *shape), a scalar noise conditioning ``c`` (B,), float32 of any value (a
timestep on the scale 0..1000, or log(sigma) / 4), and, if it has ``num_classes``, ``cond`` (B,) int64. It
returns (B, out_channels, *shape[1:]). Before the first optimizer step this is exactly 0; for
:class:`VDMUNet` it is ``x``, and 0 in further channels.
"""

from nelbo.models.conv_dit import ConvDiT
from nelbo.models.dit import DiT
from nelbo.models.mlp import MLP
from nelbo.models.unet import UNet
from nelbo.models.vdm_unet import VDMUNet

__all__ = ["MLP", "ConvDiT", "DiT", "UNet", "VDMUNet"]
