"""Decoders: the likelihood p(x_0 | x_1) at the clean end of a chain, the source of L_0."""

from abc import ABC, abstractmethod

from torch import Tensor

from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import Step


class Decoder(ABC):
    """Likelihood of data under a Gaussian N(mean, exp(log_var)) at the cleanest level."""

    def check_data(self, x0: Tensor) -> None:
        """Check the values of data (B, ...).

        Raises:
            ValueError: for values that this likelihood is not defined for.
        """
        if not x0.is_floating_point():
            raise ValueError(f"x0 is {x0.dtype}: expected floats, as of DataSpec.from_levels")

    def distribution(self, prediction: Prediction, x0_hat: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """The mean (B, ...) and the log variance, broadcast against it, that :meth:`log_prob` receives.

        Args:
            prediction: of the denoiser at x_1.
            x0_hat: (B, ...) the predicted data, clipped as the bound is.
            step: the step to data.
        """
        return x0_hat, prediction.log_var(step)

    @abstractmethod
    def log_prob(self, x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        """Log likelihood in nats, elementwise, (B, ...).

        Args:
            x0: (B, ...) data.
            mean: (B, ...) predicted mean.
            log_var: (B, 1, ..., 1) or (B, ...).
        """

    @abstractmethod
    def sample(self, mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
        """A draw of x_0, (B, ...) float64, from the distribution of :meth:`log_prob`.

        Args:
            mean: (B, ...) predicted mean.
            log_var: (B, 1, ..., 1) or (B, ...).
            noise: (B, ...) float64, standard normal.
        """


class QuantizedDecoder(Decoder):
    """A decoder for quantised data in [-1, 1].

    Attributes:
        levels: number of levels, 256 for 8-bit images.
        half_bin: half the distance of two levels.
    """

    def __init__(self, levels: int) -> None:
        self.levels = levels
        self.half_bin = 1.0 / (levels - 1)

    def check_data(self, x0: Tensor) -> None:
        """Check that the data (B, ...) has floats in [-1, 1], up to less than half a bin.

        Raises:
            ValueError: for other values, such as level indices.
        """
        super().check_data(x0)
        low, high = (value.item() for value in x0.aminmax())
        if not -1.0 - self.half_bin < low <= high < 1.0 + self.half_bin:
            raise ValueError(
                f"x0 has values of {low:g} to {high:g}: expected [-1, 1], as of DataSpec.from_levels"
            )
