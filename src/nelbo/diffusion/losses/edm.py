"""EDM's loss (Karras et al. 2022, section 5 and table 1).

    E_sigma lambda(sigma) |D - x_0|^2,   ln sigma ~ N(P_mean, P_std^2)
    lambda = (sigma^2 + sd^2) / (sigma sd)^2

As a weight of the eps error against uniform steps: the density of logsnr = -2 ln sigma, times
(sigma^2 + sd^2) / sd^2, times the change of logsnr in a step. With ``timesteps=log_normal``, which draws the
same density, the importance weights leave a nearly constant weight on EDM's own objective.
"""

from torch import Tensor

from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.losses.base import LogSNRDensityMSE, log_normal_density


class EDMLoss(LogSNRDensityMSE):
    """The squared error of F in EDM's preconditioning, at log-normal noise levels.

    Args:
        mean: P_mean, of ln sigma.
        std: P_std, of ln sigma.
        sigma_data: standard deviation of the data.

    Raises:
        ValueError: when ``std`` or ``sigma_data`` is not above 0.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2, sigma_data: float = 0.5) -> None:
        if not std > 0.0:
            raise ValueError(f"loss.std={std} must be above 0")
        if not sigma_data > 0.0:
            raise ValueError(f"loss.sigma_data={sigma_data} must be above 0")
        self.mean = mean
        self.std = std
        self.sigma_data = sigma_data

    def density(self, level: NoiseLevel) -> Tensor:
        """p(logsnr), (B,) float64."""
        return log_normal_density(level, self.mean, self.std)

    def eps_weight(self, level: NoiseLevel) -> Tensor:
        """lambda as a weight of the eps error, (sigma^2 + sd^2) / sd^2, (B,) float64."""
        sigma = (-0.5 * level.logsnr).exp()
        return 1.0 + (sigma / self.sigma_data).square()

    def density_weight(self, level: NoiseLevel) -> Tensor:
        """p(logsnr) (sigma^2 + sd^2) / sd^2, (B,) float64."""
        return self.density(level) * self.eps_weight(level)
