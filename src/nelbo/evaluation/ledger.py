"""The ledger of a bound. Bounds are comparable only if their ledgers agree."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nelbo.data import DataModule
from nelbo.data.base import SplitName
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import ContinuousTime, StepSequence
from nelbo.diffusion.variances import ReverseVariance
from nelbo.evaluation.accumulator import BoundEstimate
from nelbo.evaluation.estimators import BoundEstimator

# Bounds that differ in one of these are of different quantities. The others are choices of a model, and
# bounds of different models on the same data may be compared.
MUST_AGREE = (
    "data", "fingerprint", "dims", "levels", "split", "num_examples", "conditional", "decoder", "clip"
)  # fmt: skip


@dataclass(frozen=True)
class Ledger:
    """Everything that a reported bound depends on besides the network.

    Attributes:
        data: name of the data set.
        fingerprint: digest of its examples, their order and their class names: data sets of one name may be
            sampled or cropped differently.
        dims: number of scalars in an example.
        levels: number of values of a scalar; None for continuous data.
        split: of the data set.
        num_examples: number of examples.
        conditional: whether the bound is conditional on the classes.
        decoder: likelihood at the clean end, with the number of levels.
        schedule: noise schedule.
        T: timesteps of the schedule; None for continuous time, T = infinity.
        K: steps of the chain; None for the limit T -> infinity.
        timesteps: t of each step of the chain, ``1..T`` for all; in continuous time the levels u of a chain,
            and ``1..K`` for the limit, whose bins are numbered.
        logsnr_max: cleanest level of the chain.
        logsnr_min: noisiest level of the chain.
        variance: of the reverse steps.
        first_step: replacement of the variance at the first step.
        clip: range that x0_hat is clamped to; None for no clamping.
        weights: ``ema``, ``ema_<sigma_rel>`` or ``raw``.
        precision: arithmetic of the network.
        estimator: name and settings of the estimator.
        seed: of the estimator.
        num_evaluations: number of network evaluations.
        stderr: standard error of the total, in nats per example.
    """

    data: str
    fingerprint: str
    dims: int
    levels: int | None
    split: SplitName
    num_examples: int
    conditional: bool
    decoder: str
    schedule: str
    T: int | None
    K: int | None
    timesteps: str
    logsnr_max: float
    logsnr_min: float
    variance: str
    first_step: str
    clip: tuple[float, float] | None
    weights: str
    precision: str
    estimator: str
    seed: int
    num_evaluations: int
    stderr: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def make_ledger(
    *,
    data: DataModule,
    split: SplitName,
    conditional: bool,
    weights: str,
    precision: str,
    bound: VariationalBound,
    variance: ReverseVariance,
    estimator: BoundEstimator,
    estimate: BoundEstimate,
) -> Ledger:
    """The ledger of one measurement."""
    chain = bound.chain
    cleanest, noisiest = chain.level(torch.tensor([1, chain.num_steps])).logsnr.tolist()
    return Ledger(
        data=type(data).__name__,
        fingerprint=data.fingerprint(split),
        conditional=conditional,
        dims=data.spec.dims,
        levels=data.spec.levels,
        split=split,
        num_examples=estimate.num_examples,
        decoder=str(bound.decoder),
        schedule=type(chain.schedule).__name__,
        T=chain.schedule.num_steps,
        K=None if isinstance(chain, ContinuousTime) else chain.num_steps,
        timesteps=describe_levels(chain),
        logsnr_max=cleanest,
        logsnr_min=noisiest,
        variance=type(variance).__name__,
        first_step=variance.first_step,
        clip=bound.clip,
        weights=weights,
        precision=precision,
        estimator=estimator.name + (", control variate" if estimator.control_variate else ""),
        seed=estimator.seed,
        num_evaluations=estimate.num_evaluations,
        stderr=estimate.total.stderr,
    )


def arithmetic(precision: str, device: torch.device) -> str:
    """The arithmetic of the network, from Lightning's name of a precision."""
    if precision != "32-true":
        return precision
    return "float32 with TF32 products" if device.type == "cuda" else "float32"


def disagreements(ledgers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The entries of MUST_AGREE in which the ledgers differ, so that their bounds cannot be compared.

    Entries that a ledger does not have are skipped.
    """
    differing: list[str] = []
    for name in MUST_AGREE:
        present = [ledger[name] for ledger in ledgers if name in ledger]
        if any(value != present[0] for value in present[1:]):
            differing.append(name)
    return differing


def describe_levels(chain: StepSequence) -> str:
    """The t of each step: ``1 68 933 1000``, or ``1..1000`` for all; in continuous time u, ``0 0.25 1``."""
    if isinstance(chain, ContinuousTime) or chain.num_steps == chain.schedule.num_steps:
        return f"1..{chain.num_steps}"
    return " ".join(f"{t:.6g}" for t in chain.t().tolist())
