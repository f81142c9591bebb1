"""Parameterizations: the meaning of the network's output.

A parameterization has three coefficients (as in EDM, Karras et al. 2022, equation 7),

    x0_hat = c_skip x_t + c_out net(c_in x_t),

and eps_hat follows from x_t = signal x0_hat + noise eps_hat:

    eps_hat = (1 - signal c_skip)/noise x_t - signal c_out/noise net(c_in x_t).
"""

from abc import ABC, abstractmethod

from torch import Tensor

from nelbo.diffusion.level import NoiseLevel


class Parameterization(ABC):
    """The meaning of the network's output."""

    def c_in(self, level: NoiseLevel) -> Tensor | None:
        """Factor of x_t at the input of the network, (B,) float64; None for 1."""
        return None

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
