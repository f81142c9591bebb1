"""Parameterizations: the meaning of the network's output.

Most are linear in it, with three coefficients (as in EDM, Karras et al. 2022, equation 7),

    x0_hat = c_skip x_t + c_out net(c_in x_t),

and eps_hat follows from x_t = signal x0_hat + noise eps_hat:

    eps_hat = (1 - signal c_skip)/noise x_t - signal c_out/noise net(c_in x_t).
"""

from abc import ABC, abstractmethod

from torch import Tensor

from nelbo.diffusion.level import NoiseLevel, scale


class Parameterization(ABC):
    """The meaning of the network's output."""

    def c_in(self, level: NoiseLevel) -> Tensor | None:
        """Factor of x_t at the input of the network, (B,) float64; None for 1."""
        return None

    def output_channels(self, data_channels: int) -> int:
        """Number of output channels of the network that are not for a learned variance."""
        return data_channels

    @abstractmethod
    def check_noisiest(self, level: NoiseLevel) -> None:
        """Check that x0_hat is finite at the noisiest level ().

        Raises:
            ValueError: if it is not.
        """

    @abstractmethod
    def estimates(self, output: Tensor, xt: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """x0_hat and eps_hat, (B, C, ...) each in the dtype of x_t, with x_t = signal x0_hat + noise eps_hat.

        Args:
            output: (B, output channels, ...) of the network at c_in x_t, of any floating dtype.
            xt: (B, C, ...).
            level: levels of shape (B,).
        """


class LinearParameterization(Parameterization):
    """A parameterization in which x0_hat and eps_hat are linear in x_t and the network's output."""

    def check_noisiest(self, level: NoiseLevel) -> None:
        """Check that the coefficients of x0_hat are finite at the noisiest level ().

        Raises:
            ValueError: if they are not.
        """
        if not all(coefficient.isfinite() for coefficient in self.coefficients(level)):
            raise ValueError(
                f"the parameterization {type(self).__name__} does not determine the data at the "
                "noisiest level, which has no signal (zero terminal SNR): use "
                "parameterization=v, x0, edm or flow"
            )

    def estimates(self, output: Tensor, xt: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """x0_hat and eps_hat of ``output`` (B, C, ...), (B, C, ...) each."""
        output = output.to(xt.dtype)  # autocast may return bfloat16
        x0_skip, x0_out = self.coefficients(level)
        eps_skip, eps_out = self.eps_coefficients(level)
        x0_hat = scale(x0_skip, xt) + scale(x0_out, output)
        return x0_hat, scale(eps_skip, xt) + scale(eps_out, output)

    @abstractmethod
    def coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(c_skip, c_out) of x0_hat = c_skip x_t + c_out net(c_in x_t), each (B,) float64."""

    @abstractmethod
    def eps_coefficients(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """(c_skip, c_out) of eps_hat = c_skip x_t + c_out net(c_in x_t), each (B,) float64.

        They follow from :meth:`coefficients`; each parameterization writes them without 1 - signal^2, which
        loses precision at clean levels.
        """

    @abstractmethod
    def target(self, x0: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
        """The output for which x0_hat = x_0, (B, ...)."""
