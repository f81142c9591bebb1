"""Averages of the weights of any length, from snapshots of two (Karras et al. 2024, EDM2, section 3).

The average of step t weights the parameters of step tau <= t by (gamma + 1) tau^gamma / t^(gamma + 1). It is
named by ``sigma_rel``, the standard deviation of this density in units of t.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nelbo import torch_file
from nelbo.runs import ema_snapshots
from nelbo.runs.ema_snapshots import EMASnapshot


@dataclass(frozen=True)
class EMAProfile:
    """A power-function average.

    Attributes:
        step: t, the last step that it averages over.
        sigma_rel: its relative width.
    """

    step: int
    sigma_rel: float


@cache
def power_exponent(sigma_rel: float) -> float:
    """The exponent gamma of an average of this width: EDM2, equation 123 solved for gamma.

    Args:
        sigma_rel: relative width, in (0, 12^-1/2).
    """
    inverse = sigma_rel**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


def update_weight(step: int, gamma: float) -> float:
    """The share of the parameters of ``step`` in the average of this step: 1 - beta of EDM2, equation 127.

    The average of the steps before has the rest. It is the integral of the density from ``step - 1`` to
    ``step``.
    """
    return 1.0 if step == 1 else float(-np.expm1((gamma + 1) * np.log1p(-1 / step)))


def post_hoc_coefficients(stored: Sequence[EMAProfile], target: EMAProfile) -> NDArray[np.float64]:
    """Coefficients of the linear combination that is nearest to another average, in float64.

    They minimise the squared difference of the densities (EDM2, algorithm 3) and add up to 1.

    Args:
        stored: N averages, of different step or width.
        target: the average to approximate.

    Returns:
        (N,).
    """
    gram = np.array([[_inner_product(a, b) for b in stored] for a in stored])
    coefficients = np.linalg.lstsq(gram, np.array([_inner_product(a, target) for a in stored]))[0]
    return coefficients / coefficients.sum()


def _inner_product(a: EMAProfile, b: EMAProfile) -> float:
    """The integral of the product of two densities: EDM2, equation 151."""
    early, late = sorted((a, b), key=lambda profile: profile.step)
    early_gamma, late_gamma = power_exponent(early.sigma_rel), power_exponent(late.sigma_rel)
    ratio = (early.step / late.step) ** late_gamma
    return (early_gamma + 1) * (late_gamma + 1) * ratio / ((early_gamma + late_gamma + 1) * late.step)


def average_of_length(checkpoint: Path, sigma_rel: float) -> dict[str, Tensor]:
    """The average of the parameters up to the step of a checkpoint, by name, each of its shape (...).

    The averages in the checkpoint and the snapshots of its run before it are combined.

    Args:
        checkpoint: file in the folder ``checkpoints`` of a run.
        sigma_rel: relative width of the average.

    Raises:
        ValueError: when the run has no snapshots, or those of another network.
        DamagedFileError: naming a file that is damaged.
    """
    content = None if checkpoint.is_dir() else torch_file.load(checkpoint, mmap=True)
    if not isinstance(content, dict) or ema_snapshots.KEY not in content:
        raise ValueError(
            f"ema={sigma_rel:g}: {checkpoint} has no power-function averages: train with "
            "callbacks=power_function_ema"
        )
    own = EMASnapshot.from_dict(content[ema_snapshots.KEY], checkpoint)
    folder = checkpoint.parent.parent / ema_snapshots.FOLDER
    earlier = list(ema_snapshots.read_before(folder.parent, own.step))
    if not earlier:
        raise ValueError(
            f"ema={sigma_rel:g}: {folder} has no snapshot before step {own.step} of {checkpoint}: train with "
            "callbacks=power_function_ema and a smaller callbacks.power_function_ema.every_n_steps"
        )
    snapshots = [*earlier, own]
    shapes = own.shapes
    if any(snapshot.shapes != shapes for snapshot in snapshots):
        raise ValueError(f"{folder} has snapshots of another network than {checkpoint}")
    profiles = [EMAProfile(each.step, width) for each in snapshots for width in each.sigma_rel]
    averages = [average for each in snapshots for average in each.averages]
    coefficients = post_hoc_coefficients(profiles, EMAProfile(own.step, sigma_rel)).tolist()
    result = {}
    for name, like in own.averages[0].items():
        total = torch.zeros_like(like, dtype=torch.float64)
        for coefficient, average in zip(coefficients, averages, strict=True):
            total.add_(average[name], alpha=coefficient)
        result[name] = total.to(like.dtype)
    return result
