"""Timesteps whose flow time is logit-normal (Stable Diffusion 3, Esser et al. 2024, equation 19).

Flow time w = noise / (signal + noise) has ln(w / (1 - w)) = ln sigma, so ln sigma is normal.
"""

from nelbo.diffusion.chain import StepSequence
from nelbo.diffusion.timesteps.log_normal import LogNormal


class LogitNormal(LogNormal):
    """:class:`LogNormal` with the published mean and standard deviation of flow time.

    Args:
        num_steps: K, the number of steps of the chain.
        chain: whose levels the probabilities follow.
        mean: of ln(w / (1 - w)).
        std: of ln(w / (1 - w)).
        floor: share of uniform draws.

    Raises:
        ValueError: as :class:`LogNormal`.
    """

    def __init__(
        self, num_steps: int, chain: StepSequence, mean: float = 0.0, std: float = 1.0, floor: float = 0.01
    ) -> None:
        super().__init__(num_steps, chain, mean, std, floor)
