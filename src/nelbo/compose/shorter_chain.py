"""The chain that an evaluation visits: all timesteps, or K of them."""

from collections.abc import Callable
from functools import partial

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from nelbo.compose.measurements import measure_once, model_metadata, split_to_measure
from nelbo.compose.trained import TrainedModel
from nelbo.data import DataModule
from nelbo.data.base import SplitName
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.schedules import NoiseSchedule
from nelbo.diffusion.spacings import Even, Spacing
from nelbo.diffusion.spacings.base import check_steps
from nelbo.diffusion.spacings.optimal import NO_TIMESTEPS
from nelbo.diffusion.step_cost_table import StepCostTable
from nelbo.evaluation.measure_step_costs import measure_step_costs
from nelbo.evaluation.processes import Processes
from nelbo.progress import counted

EXAMPLES = 32


def shorter_chain(
    config: DictConfig, model: TrainedModel, bound: VariationalBound, data: DataModule, processes: Processes
) -> VariationalBound:
    """The bound on the chain that the command chooses.

    Args:
        config: of the evaluation.
        model: with the reverse variance that is measured.
        bound: over all timesteps.
        data: the costs of steps are measured on another split of it, where they are not stored next to the
            checkpoint.
        processes: this one among others.

    Raises:
        ValueError: for more steps than there are timesteps.
    """
    schedule = bound.chain.schedule
    if config.steps is None:
        if config.get("spacing") is not None:
            raise ValueError("spacing= needs the number of steps of the chain, such as steps=16")
        return bound
    spacing: Spacing | partial[Spacing] = instantiate(config.spacing) if config.get("spacing") else Even()
    chain = spaced_chain(
        spacing,
        schedule,
        config.steps,
        lambda: step_costs(model, bound, data, split_to_measure(config.split), processes),
    )
    return bound.along(chain)


def spaced_chain(
    spacing: Spacing | partial[Spacing],
    schedule: NoiseSchedule,
    steps: int | None,
    costs: Callable[[], StepCostTable],
) -> Chain:
    """The chain of a spacing.

    Args:
        spacing: a partial one is completed with ``costs``.
        schedule: of the model.
        steps: length of the chain; None for all timesteps.
        costs: measures the costs of steps. Called only where the chain depends on them.

    Raises:
        ValueError: for more steps than there are timesteps.
    """
    T = schedule.num_steps
    if steps is not None:
        check_steps(schedule, steps)
    if T is not None and steps in (None, T):
        return Chain(schedule)
    if isinstance(spacing, partial):
        if T is None:
            raise ValueError(NO_TIMESTEPS)
        spacing = spacing(costs=costs())
    return spacing.chain(schedule, steps)


def step_costs(
    model: TrainedModel,
    bound: VariationalBound,
    data: DataModule,
    split: SplitName,
    processes: Processes,
    examples: int = EXAMPLES,
) -> StepCostTable:
    """Costs of the steps, from the file next to the checkpoint, or measured on a split and stored.

    Args:
        model: that is measured.
        bound: over all timesteps.
        data: it was trained on.
        split: to measure on.
        processes: this one among others.
        examples: on which the costs are measured. A file with the costs of more of them is used too.
    """

    def measured() -> dict[str, Tensor]:
        module = model.module
        batch = data.take(split, examples).to(processes.device)
        cond = batch.cond if module.conditional else None
        with counted("measuring what steps cost", shown=processes.rank == 0) as progress:
            costs = measure_step_costs(bound, module.denoiser, batch.x0, cond, progress=progress)
        # in the large tables the rounding of float32 is far below the scatter of a few examples
        return {
            "timesteps": costs.timesteps,
            "first": costs.first.float(),
            "step": costs.step.float(),
            "prior": costs.prior,
        }

    variance = model.module.denoiser.variance
    metadata = model_metadata(model, bound, data, split) | {
        "variance": f"{type(variance).__name__}, first step {variance.first_step}",
        "decoder": str(bound.decoder),
    }
    kind = f"{type(variance).__name__.lower()}.step_costs"
    tables = measure_once(model, kind, metadata, measured, processes, {"examples": examples})
    return StepCostTable(
        tables["timesteps"], tables["first"].double(), tables["step"].double(), tables["prior"]
    )
