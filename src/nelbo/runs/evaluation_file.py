"""``evaluation.json``: the bound of a trained model, its terms, and the same bound with other variances."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nelbo.atomic_file import write_json
from nelbo.evaluation.by_class import bound_by_class
from nelbo.evaluation.evaluation import Evaluation
from nelbo.evaluation.likelihoods import MeasuredLikelihood
from nelbo.evaluation.paired import paired_difference
from nelbo.evaluation.t_bins import share_below_half_bin, shares_by_t_bin
from nelbo.evaluation.units import PIXELS_PER_UNIT
from nelbo.runs import bound_table, example_table, likelihood_table
from nelbo.runs.paths import EVALUATION


def write_evaluation(evaluation: Evaluation, run_dir: Path) -> None:
    """Write evaluation.json, bound.parquet, examples.parquet, and likelihoods.parquet if there are others.

    Raises:
        OSError: when one of them cannot be written.
    """
    measured, ledger = evaluation.measurements[0], evaluation.ledgers[0]
    metrics, estimate = evaluation.metrics, measured.estimate
    contribution, chain, split = measured.contributions, evaluation.chain, evaluation.split
    if evaluation.unit.is_discrete:
        shares = shares_by_t_bin(chain.t(), contribution, estimate.prior.mean)
        metrics |= {f"{split}/share/{name}": share for name, share in shares.items()}
    below = share_below_half_bin(chain, contribution, estimate.total.mean)
    metrics[f"{split}/share_below_half_bin"] = below
    result = {
        **metrics,
        "network_evaluations": estimate.num_evaluations,
        "ledger": ledger.to_dict(),
        "variances": bounds_by_variance(evaluation),
        **({"likelihoods": likelihood_rows(evaluation)} if evaluation.likelihoods else {}),
        **({"on_samples": sample_rows(evaluation)} if evaluation.on_samples else {}),
        **({"baselines": baseline_rows(evaluation)} if evaluation.baselines else {}),
        **({} if evaluation.label is None else {"classes": list(class_rows(evaluation))}),
        "checkpoint": str(evaluation.checkpoint),
        **({} if evaluation.step is None else {"step": evaluation.step}),
        "steps": list(step_rows(evaluation)),
        "config": evaluation.config,
    }
    step = evaluation.step or 0
    bound_table.append(run_dir / bound_table.FILE_NAME, step, split, measured.steps)
    example_table.write(run_dir / example_table.FILE_NAME, measured.columns, measured.examples)
    if evaluation.likelihoods:
        columns = {name: found.estimate.examples for name, found in evaluation.likelihoods.items()}
        likelihood_table.write(run_dir / likelihood_table.FILE_NAME, columns)
    write_json(run_dir / EVALUATION, result)


def step_rows(evaluation: Evaluation) -> Iterator[dict[str, float]]:
    """L_t against t, rate and distortion, one row for each step with draws.

    Columns: ``mean`` of the term over its draws and its ``stderr`` for independent draws;
    ``contribution``, the unbiased estimate of the step's part of the bound (examples may have unequal
    weights); ``rate``, the sum of L_T and the contributions of all noisier steps; ``rmse`` of x0_hat given
    x_t, on [0, 255] for quantised data. Values other than ``t``, ``count`` and ``rmse`` are in the unit of
    the bound.
    """
    measured, per_nat = evaluation.measurements[0], evaluation.unit.per_nat
    steps, prior = measured.steps, measured.estimate.prior.mean
    scale = PIXELS_PER_UNIT if evaluation.unit.is_discrete else 1.0
    contribution = measured.contributions
    above = contribution.flip(0).cumsum(0).flip(0) - contribution
    columns = {
        "t": steps.t.double(),
        "mean": steps.mean * per_nat,
        "stderr": steps.stderr * per_nat,
        "count": steps.count,
        "contribution": contribution * per_nat,
        "rate": (prior + above) * per_nat,
        "rmse": steps.mse.sqrt() * scale,
    }
    for values in zip(*(column[steps.drawn].tolist() for column in columns.values()), strict=True):
        yield dict(zip(columns, values, strict=True))


def class_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """One row for each class: number of examples, bound and its terms in the unit of the bound."""
    assert evaluation.label is not None, "there are no classes"
    unit, examples = evaluation.unit, evaluation.measurements[0].examples
    for number, bound in bound_by_class(examples, evaluation.label).items():
        row: dict[str, Any] = {"class": number, "count": bound.num_examples}
        if evaluation.class_names is not None:
            row["name"] = evaluation.class_names[number]
        for name, part in zip((unit.metric, "L_0", "L_t", "L_T"), bound.parts, strict=True):
            row |= {name: part.mean * unit.per_nat, f"{name}_stderr": part.stderr * unit.per_nat}
        yield row


def likelihood_rows(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """The likelihoods besides the bound, by name: -log p in nats and bits/dim, errors, and their ledgers.

    ``difference`` is that of the paired examples from the bound, in the unit of the bound.
    """
    unit, bound = evaluation.unit, evaluation.measurements[0].examples.sum(1)
    found: dict[str, dict[str, Any]] = {}
    for name, measured in evaluation.likelihoods.items():
        difference = paired_difference(measured.estimate.examples, bound)
        found[name] = {
            **_total(measured),
            "difference": difference.mean * unit.per_nat,
            "difference_stderr": difference.stderr * unit.per_nat,
            **measured.details,
            "ledger": dict(measured.ledger),
        }
    return found


def sample_rows(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """The likelihoods of samples, by name: the upper bound of -log p in nats and bits/dim, and their ledgers.

    ``lower``, the lower bound, and ``gap``, their difference, are in the unit of the bound.
    """
    return {
        name: {**_total(measured), **measured.details, "ledger": dict(measured.ledger)}
        for name, measured in evaluation.on_samples.items()
    }


def _total(measured: MeasuredLikelihood) -> dict[str, Any]:
    """The label, and -log p in nats and bits/dim with its errors."""
    total = measured.estimate.total
    in_bits = 1.0 / (measured.ledger["dims"] * math.log(2))
    row: dict[str, Any] = {"label": measured.label}
    for key, factor in (("nats", 1.0), ("bits_per_dim", in_bits)):
        row |= {key: total.mean * factor, f"{key}_stderr": total.stderr * factor}
        if total.mc_stderr is not None and total.data_stderr is not None:
            row[f"{key}_stderr_monte_carlo"] = total.mc_stderr * factor
            row[f"{key}_stderr_data_set"] = total.data_stderr * factor
    return row


def baseline_rows(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Bits/dim of the same examples in image formats: each image in a file, and all in one mosaic."""
    return {
        name: {
            "label": found.label,
            "bits_per_dim": found.single,
            "mosaic_bits_per_dim": found.mosaic,
            **({} if found.missing is None else {"missing": found.missing}),
        }
        for name, found in evaluation.baselines.items()
    }


def bounds_by_variance(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """The bound with each variance, and its paired difference from the bound with the chosen variance."""
    unit, chosen = evaluation.unit, evaluation.measurements[0]
    found: dict[str, dict[str, Any]] = {}
    for measured, ledger in zip(evaluation.measurements, evaluation.ledgers, strict=True):
        metrics = unit.metrics(evaluation.split, measured.estimate)
        if measured is not chosen:
            difference = paired_difference(measured.examples.sum(1), chosen.examples.sum(1))
            metrics |= {
                "difference": difference.mean * unit.per_nat,
                "difference_stderr": difference.stderr * unit.per_nat,
            }
        found[ledger.variance] = {**metrics, "first_step": ledger.first_step}
    return found
