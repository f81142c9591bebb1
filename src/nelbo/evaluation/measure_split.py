"""Measurement of the bound of a split of a data set, with its ledgers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from nelbo.data import DataModule
from nelbo.data.base import Batches, SplitName
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.variances import ReverseVariance
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.control_variate import control_of
from nelbo.evaluation.estimators import BoundEstimator
from nelbo.evaluation.ledger import Ledger, arithmetic, make_ledger
from nelbo.evaluation.likelihoods import Likelihood, LikelihoodError, MeasuredLikelihood, measure_likelihood
from nelbo.evaluation.measure import Measurement, RoundProgress, measure
from nelbo.evaluation.processes import Processes
from nelbo.evaluation.units import Unit
from nelbo.progress import ReportProgress


def measure_split(
    data: DataModule,
    split: SplitName,
    *,
    denoiser: Denoiser,
    bound: VariationalBound,
    others: Sequence[ReverseVariance],
    estimator: BoundEstimator,
    unit: Unit,
    conditional: bool,
    weights: str,
    processes: Processes,
    progress: RoundProgress = lambda total, fresh: None,
) -> tuple[list[Measurement], list[Ledger]]:
    """Measure the bound of a split.

    Args:
        data: the data set.
        split: its name.
        denoiser: on the device of this process.
        bound: chain, decoder and clipping.
        others: variances under which the bound is computed as well, from the same network evaluations.
        estimator: chooses the terms.
        unit: of the estimator's target.
        conditional: whether the denoiser receives the conditions.
        weights: ``ema`` or ``raw``, for the ledger.
        processes: this one among others.
        progress: called after every batch, see :func:`measure`.

    Returns:
        The measurements and their ledgers: with the variance of the denoiser, and then with the others.
    """
    measurements = measure(
        estimator,
        [BoundVariant(bound), *(BoundVariant(bound, variance) for variance in others)],
        denoiser,
        Batches(data, split, processes.device, (processes.rank, processes.count)),
        len(data.split(split)),
        unit,
        processes.device,
        conditional,
        progress,
        processes.all_reduce_sum,
        control_of(data, split, processes.device) if estimator.control_variate else None,
    )
    ledgers = [
        make_ledger(
            data=data,
            split=split,
            conditional=conditional,
            weights=weights,
            precision=arithmetic("32-true", processes.device),
            bound=bound,
            variance=variance,
            estimator=estimator,
            estimate=measured.estimate,
        )
        for variance, measured in zip((denoiser.variance, *others), measurements, strict=True)
    ]
    return measurements, ledgers


def measure_likelihoods(
    likelihoods: Mapping[str, Likelihood],
    data: DataModule,
    split: SplitName,
    *,
    denoiser: Denoiser,
    bound: VariationalBound,
    bound_ledger: Ledger,
    unit: Unit,
    conditional: bool,
    processes: Processes,
    progress: Callable[[str], AbstractContextManager[ReportProgress]],
) -> tuple[dict[str, MeasuredLikelihood], list[LikelihoodError]]:
    """Measure other likelihoods of a split.

    Args:
        likelihoods: to measure, by name.
        data: the data set.
        split: its name.
        denoiser: on the device of this process.
        bound: chain, decoder and clipping.
        bound_ledger: of this bound.
        unit: of the reported values.
        conditional: whether the denoiser receives the conditions.
        processes: this one among others.
        progress: makes the progress of a likelihood from its label.

    Returns:
        The likelihoods by name, and why others could not be measured, or not as accurately as demanded.
    """
    found: dict[str, MeasuredLikelihood] = {}
    problems: list[LikelihoodError] = []
    for name, likelihood in likelihoods.items():
        try:
            with progress(likelihood.label) as show:
                estimate = measure_likelihood(
                    likelihood,
                    bound,
                    denoiser,
                    Batches(data, split, processes.device, (processes.rank, processes.count)),
                    len(data.split(split)),
                    processes.device,
                    conditional,
                    show,
                    processes.all_reduce_sum,
                )
            likelihood.check_accuracy(estimate, unit)
        except LikelihoodError as error:
            problems.append(error)
            continue
        ledger = {
            **likelihood.ledger(bound_ledger.to_dict(), bound),
            "num_evaluations": estimate.num_evaluations,
            "stderr": estimate.total.stderr,
        }
        details = likelihood.details(estimate, unit)
        found[name] = MeasuredLikelihood(likelihood.label, estimate, ledger, details)
    return found, problems
