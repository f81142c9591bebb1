"""The density of continuous data under the last reverse step (Sohl-Dickstein et al. 2015)."""

from torch import Tensor

from nelbo.diffusion.decoders.base import Decoder
from nelbo.diffusion.gaussian import DiagonalGaussian


class GaussianDecoder(Decoder):
    """log N(x_0; mean, var): a density, so the bound is one on a differential entropy.

    Args:
        levels: the data's number of levels, which must be None.

    Raises:
        ValueError: for quantised data, for which the density is unbounded.
    """

    def __init__(self, levels: int | None = None) -> None:
        if levels is not None:
            raise ValueError(
                f"decoder=gaussian is a density, but this data has {levels} discrete levels: "
                "use decoder=discretized_gaussian"
            )

    def __str__(self) -> str:
        return "Gaussian density"

    def log_prob(self, x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        """Log density in nats, elementwise, (B, ...)."""
        return DiagonalGaussian(mean, log_var).log_prob(x0)

    def sample(self, mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
        """A draw of x_0, (B, ...) float64, for standard normal noise (B, ...) float64."""
        return DiagonalGaussian(mean.double(), log_var.double()).sample(noise)
