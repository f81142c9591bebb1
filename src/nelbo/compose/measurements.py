"""Measurements of a trained model that a bound is computed with."""

from collections.abc import Callable, Mapping
from hashlib import sha256

import torch
from torch import Tensor

from nelbo.compose.trained import TrainedModel
from nelbo.data import DataModule
from nelbo.data.base import SplitName
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import full_chain
from nelbo.evaluation.processes import Processes
from nelbo.runs.measurement_cache import cached

VERSION = "1"  # of the measurement
DENOISER = ("model", "parameterization", "c_noise", "conditional")  # options that determine the denoiser


def measure_once(
    model: TrainedModel,
    kind: str,
    metadata: Mapping[str, str],
    measure: Callable[[], dict[str, Tensor]],
    processes: Processes,
    at_least: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """The arrays that ``measure`` returns, from the file next to the checkpoint where there is one.

    Args:
        model: that is measured.
        kind: in the name of the file: ``<checkpoint>.<weights>.<kind>.npz``.
        metadata: everything that the result depends on.
        measure: makes the arrays.
        processes: the first one reads, measures and writes, and sends the result to the others.
        at_least: see :func:`nelbo.runs.measurement_cache.cached`.
    """
    path = model.path.with_name(f"{model.path.stem}.{model.weights.kind}.{kind}.npz")
    return processes.broadcast(lambda: cached(path, metadata, measure, at_least or {}))


def split_to_measure(reported: SplitName) -> SplitName:
    """The split for measurements that a bound depends on, never the one whose bound is reported."""
    return "train" if reported == "val" else "val"


def denoiser_options(model: TrainedModel) -> str:
    """The options that determine the denoiser, besides its weights."""
    return repr({name: model.config.get(name) for name in DENOISER})


def model_metadata(
    model: TrainedModel, bound: VariationalBound, data: DataModule, split: SplitName
) -> dict[str, str]:
    """What every measurement of a model depends on."""
    schedule = bound.chain.schedule
    full = full_chain(schedule)
    logsnr = full.level(torch.arange(1, full.num_steps + 1)).logsnr.tolist()
    levels = sha256(repr(logsnr).encode()).hexdigest()[:16]
    return {
        "weights": model.fingerprint,
        "schedule": f"{type(schedule).__name__}, {schedule.num_steps} steps, levels {levels}",
        "clip": str(bound.clip),
        "data": f"{type(data).__name__}, {split}, {data.fingerprint(split)}",
        "denoiser": denoiser_options(model),
        "version": VERSION,
    }
