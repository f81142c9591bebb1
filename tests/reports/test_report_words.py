"""What the report says in words: numbers, advice, comparisons, the ledger's disagreements."""

import dataclasses
import math
import re

import pytest
import torch

from nelbo.diffusion.level import Step
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.variances import Analytic
from nelbo.evaluation.ledger import disagreements
from nelbo.reports.comparison.choices import differing_choices
from nelbo.reports.comparison.compare import differences_from_first
from nelbo.reports.comparison.named_run import chain_label, incomparable
from nelbo.reports.html.advice import advise
from nelbo.reports.html.entry import make_entries
from nelbo.reports.html.tables import run_rows
from nelbo.reports.numbers import duration, plus_minus
from nelbo.runs.images import evenly_spaced
from nelbo.runs.run_folder import read_run


@pytest.fixture
def run(finished_run):
    return read_run(finished_run)


def changed(run, **summary):
    return dataclasses.replace(run, summary={**run.summary, **summary})


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (1.90997, 0.03028, "1.910 ± 0.030"),
        (3.3422, 0.41871, "3.34 ± 0.42"),
        (1234.56, 18.2, "1235 ± 18"),
        (0.0019661, 3.12e-6, "0.001966 ± 3.1 × 10⁻⁶"),
        (0.000012481, 6.8e-9, "1.2 × 10⁻⁵ ± 6.8 × 10⁻⁹"),
        (-0.5, 0.01, "-0.500 ± 0.010"),
        (0.0, 0.0, "0"),
        (2.5, math.nan, "2.5 ± ?"),
        (2.5, None, "2.5"),
        (math.nan, 1.0, "–"),
        (None, None, "–"),
    ],
)
def test_a_figure_has_as_many_digits_as_its_error_allows(value, error, shown):
    assert plus_minus(value, error) == shown


def test_durations():
    assert [duration(s) for s in (None, 48.2, 200, 7500)] == ["–", "48 s", "3 min 20 s", "2 h 5 min"]


def test_nothing_is_said_of_a_run_in_order(run):
    assert advise(run) == []


@pytest.mark.parametrize(
    ("summary", "found", "change"),
    [
        ({"test/share_below_half_bin": 0.2}, "20% of the bound lies in noise levels", "logsnr_max=auto"),
        ({"test/L_T": 0.05}, "L_T is 0.050 bits/dim", "logsnr_min"),
        ({"test/share/L_0": 0.8}, "80% of the bound is L_0", "logsnr_max"),
        ({"test/bpd_stderr": 0.1}, "The standard error is 8% of the total", "evaluations_per_example"),
    ],
)
def test_what_looks_wrong_is_said_with_what_to_change(run, summary, found, change):
    (advice,) = advise(changed(run, **summary))
    assert advice.found.startswith(found)
    assert change in advice.change


def test_a_clean_start_is_right_for_the_softmax_decoder(run):
    ledger = run.ledger | {"decoder": "softmax over 17 levels"}
    assert advise(changed(run, **{"test/share_below_half_bin": 0.2}, ledger=ledger)) == []


LEARNED = {"_target_": "nelbo.diffusion.schedules.LearnedEnds", "initial_max": 13.3, "initial_min": -5.0}


@pytest.mark.parametrize(
    ("summary", "change"),
    [
        ({"test/share_below_half_bin": 0.2}, "a lower schedule.initial_max"),
        ({"test/L_T": 0.05}, "a lower schedule.initial_min"),
        ({"test/share/L_0": 0.8}, "Start cleaner: a higher schedule.initial_max."),
    ],
)
def test_advice_on_a_learned_schedule_names_its_options(run, summary, change):
    ledger = run.ledger | {"T": None, "K": None, "timesteps": "1..101", "variance": "FixedLarge"}
    learned = dataclasses.replace(run, config=run.config | {"schedule": LEARNED})
    (advice,) = advise(changed(learned, **summary, ledger=ledger))
    assert change in advice.change
    assert "logsnr_" not in advice.change


@pytest.mark.parametrize(
    ("K", "timesteps", "change"),
    [
        (None, "1..101", "Start cleaner: a higher schedule.logsnr_max."),
        (4, "0.25 0.5 0.75 1", "This chain begins at u = 0.25: more steps, or spacing=even, begin cleaner."),
    ],
)
def test_advice_in_continuous_time_names_no_timesteps_and_no_learned_variance(run, K, timesteps, change):
    ledger = run.ledger | {"T": None, "K": K, "timesteps": timesteps, "variance": "FixedLarge"}
    (advice,) = advise(changed(run, **{"test/share/L_0": 0.8}, ledger=ledger))
    assert advice.change == change


@pytest.mark.parametrize(
    ("interpolation", "found", "change"),
    [
        (0.01, "The learned variance is at its lower limit, beta-tilde, in steps that hold", "fixed_small"),
        (-0.3, "The learned variance is at its lower limit, beta-tilde, in steps that hold", "logsnr_max"),
        (0.99, "The learned variance is at its upper limit, beta, in steps that hold", "fixed_large"),
    ],
)
def test_a_learned_variance_at_a_limit(make_evaluation, tmp_path, interpolation, found, change):
    (advice,) = advise(read_run(make_evaluation(tmp_path / "run", interpolation=interpolation)))
    assert advice.found.startswith(found)
    run = read_run(tmp_path / "run")
    said = int(re.search(r"hold (\d+)% of the bound", advice.found)[1])
    # all of L_t, and nothing of L_0; the made-up table scatters around the made-up figures
    assert said == pytest.approx(100 * run.final("test/L_t") / run.final("test/bpd"), abs=2)
    assert change in advice.change


@pytest.mark.parametrize("interpolation", [0.03, 0.97, math.nan])
def test_a_learned_variance_between_its_limits_is_fine(make_evaluation, tmp_path, interpolation):
    assert advise(read_run(make_evaluation(tmp_path / "run", interpolation=interpolation))) == []


def test_the_best_interpolation_is_the_error_of_x0_hat_in_units_of_the_noise():
    """What the advice at the limits rests on, for a short step of the cosine schedule."""
    schedule = CosineSchedule(1000)
    for t in (20, 200, 700):
        s, now = schedule.level(torch.tensor(t - 1)), schedule.level(torch.tensor(t))
        step = Step(s=s, t=now, next=now)
        noise = 1.0 - now.alpha_bar.item()
        for share in (0.0, 0.3, 1.0):
            log_mse = torch.full((1000,), math.log(max(share * noise, 1e-300)), dtype=torch.float64)
            variance = Analytic(log_mse)
            span = step.log_beta - step.log_beta_tilde
            v = ((variance.log_var(step, None) - step.log_beta_tilde) / span).item()
            assert v == pytest.approx(share, abs=0.01)


def test_advice_is_about_the_split_that_was_measured(make_evaluation, tmp_path):
    run = changed(read_run(make_evaluation(tmp_path / "run", split="val")), **{"val/share/L_0": 0.8})
    (advice,) = advise(run)
    assert advice.found.startswith("80% of the bound is L_0")


def test_a_shorter_chain_may_end_before_T_but_not_begin_late(make_evaluation, tmp_path):  # noqa: N802
    run = read_run(make_evaluation(tmp_path / "run", timesteps=torch.tensor([12, 100, 150])))
    (advice,) = advise(changed(run, **{"test/L_T": 0.05, "test/share/L_0": 0.8}))
    assert "This chain begins at t = 12" in advice.change


@pytest.mark.parametrize(
    ("monte_carlo", "change"),
    [(0.09, "estimator.target_stderr"), (0.02, "180 examples are a sample")],
)
def test_advice_on_a_large_error_depends_on_its_source(make_evaluation, tmp_path, monte_carlo, change):
    run = read_run(make_evaluation(tmp_path / "run"))
    (advice,) = advise(changed(run, **{"test/bpd_stderr": 0.1, "test/bpd_stderr_monte_carlo": monte_carlo}))
    assert change in advice.change


def test_a_run_that_is_not_finished_says_so(run):
    (advice,) = advise(dataclasses.replace(run, summary={}))
    assert "no summary.json" in advice.found


def test_options_of_different_classes_are_not_compared():
    configs = [
        {
            "loss": {"_target_": "a.VLB"},
            "model": {"_target_": "m.UNet", "channels": 32},
            "seed": 0,
            "run_dir": "x",
        },
        {
            "loss": {"_target_": "b.P2", "k": 1},
            "model": {"_target_": "m.UNet", "channels": 64},
            "seed": 0,
            "run_dir": "y",
        },
    ]
    assert differing_choices(configs) == [
        {"loss": "VLB", "model.channels": "32"},
        {"loss": "P2", "model.channels": "64"},
    ]
    assert differing_choices(configs[:1]) == [{}]


def test_ledgers_disagree_only_in_what_was_measured():
    one = {"data": "Digits", "split": "test", "levels": 17, "clip": None, "schedule": "Cosine", "T": 1000}
    assert disagreements([one, {**one, "schedule": "Linear", "T": 10}]) == []
    assert disagreements([one, {**one, "split": "val", "clip": [-1, 1]}]) == ["split", "clip"]
    assert disagreements([{}, one]) == []
    assert disagreements([]) == []


def test_incomparable_runs_are_named_with_what_they_measured(make_run, tmp_path):
    runs = [read_run(make_run(tmp_path / name)) for name in ("a", "b", "c")]
    assert incomparable(make_entries(runs)) == []
    runs[1] = changed(runs[1], ledger={**runs[1].ledger, "split": "val"})
    runs[2] = dataclasses.replace(runs[2], summary={})
    assert incomparable(make_entries(runs)) == [
        "split: a test, b val",
        "unknown, no ledger: c",
    ]


def test_the_table_of_runs(make_run, tmp_path):
    a = read_run(make_run(tmp_path / "x" / "a"))
    b = read_run(make_run(tmp_path / "y" / "b", better=0.5, config={"optimizer": {"lr": 0.1}}))
    entries = make_entries([a, b])
    second, first = run_rows(entries, differences_from_first(entries))  # the lower bound first
    assert (first.entry.name, second.entry.name) == ("x/a", "y/b")
    assert first.values[0].startswith("1.205 ± ")
    assert (first.choices, second.choices) == ({"optimizer.lr": "0.001"}, {"optimizer.lr": "0.1"})
    assert second.time == "2 min 5 s"


def test_images_are_spread_over_training():
    assert evenly_spaced([1, 2, 3], 5) == [1, 2, 3]
    assert evenly_spaced(list(range(0, 101)), 5) == [0, 25, 50, 75, 100]


@pytest.mark.parametrize(
    ("ledger", "label"),
    [
        ({"T": 200, "K": 200}, "t"),
        ({"T": 200, "K": 16}, "t"),
        ({"T": None, "K": None}, "bin of u"),
        ({"T": None, "K": 16}, "step of the chain"),
        ({}, "t"),
    ],
)
def test_axes_of_continuous_time_are_not_called_t(run, ledger, label):
    changed_run = dataclasses.replace(run, summary=run.summary | {"ledger": ledger})
    assert chain_label([changed_run]) == label
    assert chain_label([changed_run, run]) == ("t" if label == "t" else f"{label} or t")
