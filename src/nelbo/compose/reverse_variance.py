"""The reverse variance of an evaluation, and others that are evaluated in addition."""

from collections.abc import Callable
from functools import partial

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from nelbo.compose.measurements import measure_once, model_metadata
from nelbo.compose.trained import TrainedModel
from nelbo.data import DataModule
from nelbo.data.base import SplitName
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import ContinuousTime, StepSequence
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedVariance, ReverseVariance
from nelbo.evaluation.moments import EXAMPLES, measure_log_mse
from nelbo.evaluation.processes import Processes
from nelbo.progress import counted


def choose_variance(
    config: DictConfig,
    model: TrainedModel,
    bound: VariationalBound,
    data: Callable[[], DataModule],
    split: SplitName,
    processes: Processes,
) -> None:
    """Set the variance of the denoiser.

    Args:
        config: of the command.
        model: its denoiser is given the variance.
        bound: over all timesteps.
        data: on which moments are measured if they are not stored next to the checkpoint.
        split: of the data, for that.
        processes: this one among others.

    Raises:
        ValueError: for a learned variance that the network does not have, or one that is measured at each
            timestep of a model in continuous time.
    """
    denoiser = model.module.denoiser
    own = denoiser.variance
    if config.get("variance") is not None:
        chosen: ReverseVariance | partial[ReverseVariance] = instantiate(config.variance)
        if isinstance(chosen, partial):
            if bound.chain.schedule.num_steps is None:
                raise ValueError(
                    f"variance={chosen.func.__name__.lower()} has a value for each timestep, and this "
                    "model is in continuous time: use variance=fixed_small or fixed_large"
                )
            chosen = chosen(log_mse=log_mse(model, bound, data(), split, processes))
        if isinstance(chosen, LearnedVariance) and not isinstance(own, LearnedVariance):
            raise ValueError(
                f"the network was not trained with a learned variance, which {type(chosen).__name__} needs: "
                "use variance=analytic, fixed_small or fixed_large"
            )
        denoiser.variance = chosen


def other_variances(
    chosen: ReverseVariance, own: ReverseVariance, chain: StepSequence
) -> list[ReverseVariance]:
    """The variances that are evaluated in addition; none in continuous time, where they change no term.

    Args:
        chosen: that is evaluated.
        own: that the network was trained with.
        chain: of the bound.
    """
    if isinstance(chain, ContinuousTime):
        return []
    kinds = {type(chosen): chosen}
    for candidate in (own, FixedSmall(), FixedLarge()):
        kinds.setdefault(type(candidate), candidate)
    return list(kinds.values())[1:]


def log_mse(
    model: TrainedModel, bound: VariationalBound, data: DataModule, split: SplitName, processes: Processes
) -> Tensor:
    """Moments of the model, (T,), from the file next to the checkpoint, or measured on a split and stored."""

    def measure() -> dict[str, Tensor]:
        batch = data.take(split, EXAMPLES).to(processes.device)
        module = model.module
        with counted("measuring moments", shown=processes.rank == 0) as progress:
            measured = measure_log_mse(bound, module.denoiser, batch, module.conditional, progress=progress)
        return {"log_mse": measured}

    metadata = model_metadata(model, bound, data, split)
    return measure_once(model, "moments", metadata, measure, processes)["log_mse"]
