"""How a network is told the time: our timesteps 1..T, on the scale 0..1000, as diffusers counts from 0.

A ``UNet2DModel`` is told tau = t - 1, and there is no option for another start or another scale.

Another start is folded into the weights. The first layer sees the cosine and the sine of w tau for every
frequency w, and those of w (tau + d) are a rotation of them by w d, which the layer can do as well.

Another scale is not a matrix. But for integers tau the features can be a table (``time_embedding_type:
learned``), which is exact for whatever it holds; fractional timesteps then have no row.
"""

import torch
from torch import Tensor

from nelbo.interop.diffusers.unet import UnsupportedError
from nelbo.models.embedding import MAX_PERIOD, sinusoidal_embedding, sinusoidal_frequencies


def rotated(weight: Tensor, d: float, max_period: float = MAX_PERIOD) -> Tensor:
    """Weights of the first layer that make of tau what the given ones make of tau + d.

    Args:
        weight: (width, dim) of ``embedding.linear1``: columns of all cosines, then all sines.
        d: difference of time.
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
    """Features of t = 1..T for a network that is told (t + shift) * scale, (T, dim) float32."""
    t = torch.arange(1, num_steps + 1)
    return sinusoidal_embedding(((t + shift) * scale).float(), dim, max_period)


def shift_of_table(table: Tensor) -> float:
    """The shift of a table that :func:`time_table` made with the scale 1000 / T.

    Raises:
        UnsupportedError: for another table.
    """
    num_steps, dim = table.shape
    for shift in (0.0, -1.0):
        expected = time_table(num_steps, dim, shift, 1000.0 / num_steps)
        # sines of 1000 in float32 differ by some 1e-5 from one machine to another
        if torch.allclose(table.float(), expected, rtol=0.0, atol=2e-4):
            return shift
    raise UnsupportedError(
        "its table of timesteps (time_embedding_type=learned) was trained, which is not supported"
    )


def cosines_first(weight: Tensor) -> Tensor:
    """Columns of the first layer, (width, dim), from all sines first to all cosines first."""
    return torch.cat(weight.chunk(2, dim=1)[::-1], dim=1)
