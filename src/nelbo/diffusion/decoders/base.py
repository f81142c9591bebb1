"""Decoders: the likelihood p(x_0 | x_1) at the clean end of a chain, the source of L_0."""

from abc import ABC, abstractmethod

from torch import Tensor


class Decoder(ABC):
    """Likelihood of data under a Gaussian N(mean, exp(log_var)) at the cleanest level."""

    def check_data(self, x0: Tensor) -> None:
        """Check the values of data (B, ...).

        Raises:
            ValueError: for values that this likelihood is not defined for.
        """
        if not x0.is_floating_point():
            raise ValueError(f"x0 is {x0.dtype}: expected floats, as of DataSpec.from_levels")

    @abstractmethod
    def log_prob(self, x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        """Log likelihood in nats, elementwise, (B, ...).

        Args:
            x0: (B, ...) data.
            mean: (B, ...) predicted mean.
            log_var: (B, 1, ..., 1) or (B, ...).
        """
