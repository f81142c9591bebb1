"""Time conditioning: from our timesteps 1..T on the scale 0..1000 to the 0-based integers of diffusers.

A ``UNet2DModel`` receives tau = t - 1, and has no option for another shift or scale.

A shift is folded into the weights: the inputs of the first layer are cos(w tau) and sin(w tau) for every
frequency w, and those of w (tau + d) are their rotation by w d, which is linear.

A scale is not linear. For integers tau, the features can be a table (``time_embedding_type: learned``), which
is exact but has no rows for fractional timesteps.
"""

import torch
from torch import Tensor

from nelbo.interop.diffusers.unet import UnsupportedError
from nelbo.models.embedding import MAX_PERIOD, sinusoidal_embedding, sinusoidal_frequencies


def rotate(weight: Tensor, d: float, max_period: float = MAX_PERIOD) -> Tensor:
    """First-layer weights that compute at tau what ``weight`` computes at tau + d.

    Args:
        weight: (width, dim) of ``embedding.linear1``: columns of all cosines, then all sines.
        d: time shift.
        max_period: of the frequencies.

    Returns:
        (width, dim), in the dtype of ``weight``; the arithmetic is float64.
    """
    if d == 0.0:
        return weight
    angle = d * sinusoidal_frequencies(weight.shape[1], max_period).double()
    of_cos, of_sin = weight.double().chunk(2, dim=1)
    folded = [
        of_cos * angle.cos() + of_sin * angle.sin(),
        of_sin * angle.cos() - of_cos * angle.sin(),
    ]
    return torch.cat(folded, dim=1).to(weight.dtype)


def time_table(
    num_steps: int, dim: int, shift: float, scale: float, max_period: float = MAX_PERIOD
) -> Tensor:
    """Time features of t = 1..T for a network that receives (t + shift) * scale, (T, dim) float32."""
    t = torch.arange(1, num_steps + 1)
    return sinusoidal_embedding(((t + shift) * scale).float(), dim, max_period)


def shift_of_table(table: Tensor) -> float:
    """The shift of a table of :func:`time_table` with the scale 1000 / T.

    Raises:
        UnsupportedError: for another table.
    """
    num_steps, dim = table.shape
    for shift in (0.0, -1.0):
        expected = time_table(num_steps, dim, shift, 1000.0 / num_steps)
        # sines of 1000 in float32 differ by about 1e-5 between machines
        if torch.allclose(table.float(), expected, rtol=0.0, atol=2e-4):
            return shift
    raise UnsupportedError("a trained table of timesteps (time_embedding_type=learned) is not supported")


def cosines_first(weight: Tensor) -> Tensor:
    """Swap the halves of the columns of the first layer (width, dim): from sines first to cosines first."""
    return torch.cat(weight.chunk(2, dim=1)[::-1], dim=1)
