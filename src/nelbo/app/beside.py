"""What is measured once on a trained model and kept beside its checkpoint.

``last.ckpt`` gets ``last.ema.moments.npz`` and ``last.ema.step_costs.npz``. A file that was made for other
weights, or in another way, is not used but made again.
"""

import warnings
from collections.abc import Callable, Mapping

from torch import Tensor

from nelbo.app.processes import Processes
from nelbo.app.trained import TrainedModel
from nelbo.data import DataModule
from nelbo.data.base import SplitName
from nelbo.diffusion.bound import VariationalBound
from nelbo.evaluation import array_file
from nelbo.evaluation.fingerprint import fingerprint

VERSION = "1"  # of what is measured, and how
ASKED = ("model", "parameterization", "conditional")  # that say what the weights mean


def kept_beside(
    model: TrainedModel,
    kind: str,
    about: Mapping[str, str],
    measure: Callable[[], dict[str, Tensor]],
    processes: Processes,
) -> dict[str, Tensor]:
    """Read a file beside the checkpoint, or measure what should be in it and write it.

    Args:
        model: that was read from the checkpoint.
        kind: in the name of the file: ``<checkpoint>.<weights>.<kind>.npz``.
        about: everything that the result depends on; what was measured on something else is measured again.
        measure: makes the arrays.
        processes: the first reads, measures and writes, and tells the others. Where it cannot write, the
            result is used all the same.
    """
    return processes.share(lambda: _read_or_measure(model, kind, about, measure))


def _read_or_measure(
    model: TrainedModel, kind: str, about: Mapping[str, str], measure: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    path = model.path.with_name(f"{model.path.stem}.{model.weights.kind}.{kind}.npz")
    if path.is_file():
        try:
            arrays, kept_about = array_file.load(path)
        except ValueError as error:
            warnings.warn(f"{error}: it is measured again", stacklevel=2)
        else:
            if kept_about == dict(about):
                return arrays
    arrays = measure()
    try:
        array_file.save(path, arrays, about)
    except OSError as error:
        warnings.warn(f"{error}: it will be measured again next time", stacklevel=2)
    return arrays


def split_to_learn_from(reported: SplitName) -> SplitName:
    """Where to measure what a bound is then computed with: never on the examples whose bound is reported."""
    return "train" if reported == "val" else "val"


def about_model(
    model: TrainedModel, bound: VariationalBound, data: DataModule, split: SplitName
) -> dict[str, str]:
    """What every measurement of a model depends on."""
    schedule = bound.chain.schedule
    ends = schedule.table()[[0, -1]].tolist()
    return {
        "weights": fingerprint(model.weights.network),
        "schedule": f"{type(schedule).__name__}, {schedule.num_steps} steps, logsnr {ends}",
        "clip": str(bound.clip),
        "data": f"{type(data).__name__}, {split}, {data.fingerprint(split)}",
        "denoiser": repr({name: model.config.get(name) for name in ASKED}),
        "version": VERSION,
    }
