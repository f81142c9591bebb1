"""The chain with the lowest bound, found exactly (Watson et al. 2021, "Learning to efficiently sample from
diffusion probabilistic models").

The bound of a chain is a sum over its neighbouring levels, so the best chain of K levels is a shortest
path of K - 1 steps, and dynamic programming finds it:

    V_2[j] = min_i first[i, j] + step[i, j]
    V_k[j] = min_i V_{k-1}[i] + step[i, j]
    the best chain ends at the j with the lowest V_K[j] + prior[j]

L_0 may depend on the two cleanest levels, since some variances use the second step's value for the first
step; ``first`` has one entry for each such pair.
"""

import torch
from torch import Tensor

from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.spacings.base import Spacing
from nelbo.diffusion.step_cost_table import StepCostTable

NO_TIMESTEPS = (
    "spacing=optimal chooses from timesteps, and a schedule in continuous time has none: use spacing=even, "
    "trailing, quadratic, uniform_logsnr or karras"
)


class Optimal(Spacing):
    """The K timesteps whose expected bound is the lowest, under the measured costs of steps.

    It is optimal for the examples on which the costs were measured. Measure them on other examples than
    those whose bound is reported.

    Args:
        costs: of all steps of the schedule's full chain.
    """

    def __init__(self, costs: StepCostTable) -> None:
        self.costs = costs

    def timesteps(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """The best chain of K levels, (K,) int64.

        Raises:
            ValueError: for a schedule of another length than that of the costs.
        """
        measured = len(self.costs.timesteps)
        if measured != schedule.num_steps:
            raise ValueError(
                f"spacing=optimal: the costs of steps were measured for {measured} timesteps, but the "
                f"schedule has {schedule.num_steps}"
            )
        return best_chain(self.costs, steps)

    def positions(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """Not defined in continuous time, where (K,) float64 would be expected: costs are those of timesteps.

        Raises:
            ValueError: in continuous time, always.
        """
        raise ValueError(NO_TIMESTEPS)


def best_chain(costs: StepCostTable, steps: int) -> Tensor:
    """The chain of K levels with the lowest ``costs.total``, (K,) int64 timesteps; O(K T^2).

    Args:
        costs: of all steps.
        steps: K in 1..T.
    """
    if steps == 1:
        best = torch.argmin(costs.first[:, -1] + costs.prior)
        return costs.timesteps[best][None]
    # lowest cost of a chain that ends at level j, and its level before j; one level more in each iteration
    lowest, before = (costs.first[:, :-1] + costs.step).min(0)
    predecessors = [before]
    for _ in range(steps - 2):
        lowest, before = (lowest[:, None] + costs.step).min(0)
        predecessors.append(before)
    path = [torch.argmin(lowest + costs.prior)]
    for before in reversed(predecessors):
        path.append(before[path[-1]])
    return costs.timesteps[torch.stack(path[::-1])]
