"""Timesteps drawn in proportion to the size of their loss (Improved DDPM, section 3.3).

The variance of weight * loss is smallest for p(t) proportional to sqrt(E[L_t^2]), which is estimated from the
last ``history`` losses of every step. Until each step has that many, steps are stratified uniform. A share
``floor`` of the draws is always uniform, so that no weight exceeds 1 / floor and a rising loss at any step is
observed.
"""

import torch
from torch import Tensor

from nelbo.diffusion.timesteps.base import AdaptiveTimestepSampler, TimestepSample, draw_steps


class Importance(AdaptiveTimestepSampler):
    """p proportional to sqrt(E[loss^2]), stratified over the batch, with a uniform floor.

    Args:
        num_steps: K, the number of steps of the chain.
        history: number of recent losses stored per step.
        floor: share of uniform draws.

    Raises:
        ValueError: when ``history`` is below 1 or ``floor`` is not inside (0, 1].
    """

    def __init__(self, num_steps: int, history: int = 10, floor: float = 0.01) -> None:
        if history < 1:
            raise ValueError(f"timesteps.history={history}: at least 1 loss per step is needed")
        if not 0.0 < floor <= 1.0:
            raise ValueError(f"timesteps.floor={floor} must be inside (0, 1]")
        super().__init__(num_steps)
        self.history = history
        self.floor = floor
        self._losses = torch.zeros(num_steps, history, dtype=torch.float64)
        self._counts = torch.zeros(num_steps, dtype=torch.int64)  # losses recorded so far of each step

    @property
    def probabilities(self) -> Tensor:
        """p(t) of steps 1..K, (K,) float64."""
        uniform = torch.full((self.num_steps,), 1.0 / self.num_steps, dtype=torch.float64)
        if not (self._counts >= self.history).all():
            return uniform
        size = self.size()
        if size.sum() == 0.0:
            return uniform
        return (1.0 - self.floor) * size / size.sum() + self.floor * uniform

    def size(self) -> Tensor:
        """sqrt(E[loss^2]) of each step, (K,)."""
        return self._losses.square().mean(1).sqrt()

    def sample(self, batch_size: int, generator: torch.Generator) -> TimestepSample:
        """Draw steps and weights for a global batch, each (B,)."""
        return draw_steps(self.probabilities, batch_size, generator)

    def update(self, index: Tensor, loss: Tensor, bound: Tensor) -> None:
        """Record the losses (B,) of steps (B,), replacing the oldest."""
        index, loss = index.cpu() - 1, loss.detach().to("cpu", torch.float64)
        # a step that occurs n times in the batch fills n consecutive places of its ring buffer
        order = torch.argsort(index, stable=True)
        index, loss = index[order], loss[order]
        occurrences = torch.bincount(index, minlength=self.num_steps)
        starts = occurrences.cumsum(0) - occurrences
        nth = torch.arange(len(index)) - starts[index]
        newest = nth >= occurrences[index] - self.history  # the others would be overwritten
        index, loss, nth = index[newest], loss[newest], nth[newest]
        self._losses[index, (self._counts[index] + nth) % self.history] = loss
        self._counts += occurrences

    def state_dict(self) -> dict[str, Tensor]:
        """Losses (K, history) and their counts (K,)."""
        return {"losses": self._losses.clone(), "counts": self._counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the losses of a checkpoint.

        Raises:
            ValueError: for another number of steps or of losses per step.
        """
        if state["losses"].shape != self._losses.shape:
            raise ValueError(
                f"the checkpoint's history of losses has shape {tuple(state['losses'].shape)} "
                f"(steps, losses kept), this run's is {tuple(self._losses.shape)}"
            )
        self._losses.copy_(state["losses"])
        self._counts.copy_(state["counts"])
