"""``python evaluate.py likelihood=...``: the results, their ledgers, and refusals."""

import json
import re
from pathlib import Path

import pytest

from nelbo.runs import likelihood_table

QUICK = ("estimator=stratified", "estimator.evaluations_per_example=4", "max_examples=6")


@pytest.fixture
def checkpoint(finished_run) -> Path:
    return finished_run.folder / "checkpoints/last.ckpt"


def result_of(ended) -> dict:
    assert ended.code == 0, ended.err
    return json.loads((ended.folder / "evaluation.json").read_text())


@pytest.mark.slow
def test_all_likelihoods_are_in_one_file_and_one_table(evaluate, checkpoint):
    options = (
        f"checkpoint={checkpoint}", *QUICK, "steps=5", "importance_samples=3", "solver.steps=4",
        "likelihood=all", "dequantization=decoder", "likelihood.ode.max_solver_error=1000",
    )  # fmt: skip
    ended = evaluate(*options)
    result = result_of(ended)
    found = result["likelihoods"]
    assert list(found) == ["iwae", "ode"]
    for name in found:
        ledger = found[name]["ledger"]
        assert found[name]["bits_per_dim"] == pytest.approx(found[name]["nats"] / 44.3614, rel=1e-5)
        assert found[name]["difference"] == pytest.approx(
            found[name]["bits_per_dim"] - result["test/bpd"], abs=1e-6
        )
        assert ledger["fingerprint"] == result["ledger"]["fingerprint"]
        assert ledger["stderr"] == found[name]["nats_stderr"] > 0
    iwae, ode = found["iwae"], found["ode"]
    columns = likelihood_table.read(ended.folder / "likelihoods.parquet")
    assert {name: column.mean().item() for name, column in columns.items()} == pytest.approx(
        {name: row["nats"] for name, row in found.items()}
    )
    assert 1.0 <= iwae["effective_sample_size"] <= 3.0
    assert iwae["nats_stderr_monte_carlo"] > 0
    assert iwae["ledger"]["num_evaluations"] == 6 * 3 * 5
    assert iwae["ledger"]["K"] == 5
    assert ode["ledger"]["num_evaluations"] == 6 * (4 * 4 + 4 * 2 + 1)
    assert "K" not in ode["ledger"]
    expected = {
        "solver": "RK4, 4 steps",
        "divergence": "Hutchinson divergence, 2 Rademacher probes",
        "dequantization": "decoder",
        "dequantization_samples": 1,
    }
    assert {name: ode["ledger"][name] for name in expected} == expected
    assert ode["stderr_divergence"] > 0
    assert ode["solver_difference"] != 0
    sandwich = result["on_samples"]["sandwich"]
    assert sandwich["gap"] == pytest.approx(sandwich["bits_per_dim"] - sandwich["lower"], abs=1e-6)
    assert sandwich["gap"] > 0
    assert sandwich["ledger"]["num_evaluations"] == 6 * 4 * 5
    assert "fingerprint" not in sandwich["ledger"]
    assert "Likelihood of the model's samples" in (ended.folder / "report.html").read_text()
    tables = [line for line in ended.out.splitlines() if line[:1] in "┃│"]
    assert max(map(len, tables)) <= 80
    text = " ".join(ended.out.split())
    assert "-log p, bits/dim, on 6 samples of the model" in text
    assert "sandwich on the model's samples, 3 trajectories; effective sample size" in text
    assert "-log p, bits/dim, on the same examples" in text
    assert "importance-weighted bound, 3 trajectories" in text
    assert re.search(r"probability-flow ODE, decoder dequantisation; solver difference \S+ ± \S+;", text)


@pytest.mark.slow
def test_likelihood_leaves_the_bound_unchanged(evaluate, checkpoint):
    options = (f"checkpoint={checkpoint}", *QUICK, "steps=3")
    alone = result_of(evaluate(*options))
    both = result_of(evaluate(*options, "likelihood=iwae", "importance_samples=1"))
    iwae = both.pop("likelihoods")["iwae"]
    del both["content_sha256"], alone["content_sha256"]
    assert both == alone
    assert "nats_stderr_monte_carlo" not in iwae
    assert iwae["effective_sample_size"] == pytest.approx(1.0)


@pytest.mark.slow
def test_solver_error_above_the_limit_fails_after_the_other_results_are_written(evaluate, checkpoint):
    ended = evaluate(
        f"checkpoint={checkpoint}", *QUICK, "likelihood=all", "dequantization=uniform", "solver=heun",
        "solver.steps=2", "likelihood.ode.max_solver_error=1e-12", "divergence.num_probes=1",
        "divergence=hutchinson", "steps=3", "importance_samples=2",
    )  # fmt: skip
    assert ended.code == 1
    assert "HeunSolver, 1 step differ by" in ended.err
    assert "more than likelihood.ode.max_solver_error=1e-12: use more steps or a lower tolerance" in ended.err
    assert ended.err.splitlines()[-1].startswith("error: likelihood=ode: HeunSolver, 2 steps and")
    result = json.loads((ended.folder / "evaluation.json").read_text())
    assert result["test/bpd"] > 0
    assert list(result["likelihoods"]) == ["iwae"]
    assert "probability-flow ODE" not in ended.out


def test_dequantization_is_checked_before_anything_is_measured(evaluate, checkpoint):
    refused = evaluate(
        f"checkpoint={checkpoint}",
        *QUICK,
        "likelihood=ode",
        "spacing=optimal",
        "steps=2",
        "variance=analytic",
    )
    assert refused.code == 1
    assert "choose dequantization=uniform (as published) or dequantization=decoder" in refused.err
    assert not list(checkpoint.parent.glob("*.npz"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("likelihood=ode",), "likelihood=ode is a density, and this data has 17 levels: choose"),
        (("likelihood=iwae", "importance_samples=0"), "importance_samples=0: expected an integer >= 1"),
        (("likelihood=ode", "solver.steps=0"), "solver.steps=0: expected at least 1"),
        (("likelihood=ode", "solver.steps=1"), "solver.steps=1: use at least 2"),
        (
            ("likelihood=ode", "likelihood.ode.dequantization_samples=4"),
            "likelihood.ode.dequantization_samples=4: without a dequantisation",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(options, message, evaluate, checkpoint):
    refused = evaluate(f"checkpoint={checkpoint}", *QUICK, *options)
    assert refused.code == 1
    assert refused.err.startswith(f"error: {message}")
    assert refused.err.count("\n") == 1
    assert not (refused.folder / "evaluation.json").exists()
