"""Differences between runs: paired by example, or not; whether they mean anything at all."""

import dataclasses
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from nelbo.diffusion.schedules import LinearLogSNRSchedule
from nelbo.diffusion.spacings import Even, Karras
from nelbo.evaluation.ledger import describe_levels
from nelbo.reports.comparison.choices import differing, differing_choices, first_choices
from nelbo.reports.comparison.compare import compare
from nelbo.reports.comparison.difference import is_significant
from nelbo.runs.example_table import common_bins
from nelbo.runs.files import RunFolderError
from nelbo.runs.run_folder import read_run, run_folders

PER_NAT = 1 / (64 * math.log(2))
SHORT = torch.tensor([1, 8, 40, 120, 200])


def nats(folder):
    table = pq.read_table(folder / "examples.parquet")
    return {name: table[name].to_numpy() for name in table.column_names}


def with_ledger(folder, **changes):
    path = next(path for path in (folder / "evaluation.json", folder / "summary.json") if path.exists())
    content = json.loads(path.read_text())
    content["ledger"] |= changes
    path.write_text(json.dumps(content))
    return folder


@pytest.fixture
def pair(make_evaluation, tmp_path):
    return make_evaluation(tmp_path / "one"), make_evaluation(tmp_path / "two", seed=1, better=0.9)


def compared(*folders):
    return compare([read_run(folder) for folder in folders])


def test_differences_are_those_of_the_examples(pair):
    comparison = compared(*pair)
    assert [run.name for run in comparison.runs] == ["A", "B"]
    assert comparison.runs[0].differences is None
    found = comparison.runs[1].differences
    assert found.is_paired
    first, second = nats(pair[0]), nats(pair[1])
    for name in ("L_0", "t_2_10", "t_11_100", "t_101_1000", "L_T"):
        each = (second[name] - first[name]) * PER_NAT
        assert found.parts[name].mean == pytest.approx(each.mean(), abs=1e-12)
        assert found.parts[name].stderr == pytest.approx(each.std(ddof=1) / math.sqrt(180), abs=1e-12)
    each = sum(second.values()) - sum(first.values())
    assert found.parts["total"].mean == pytest.approx(each.mean() * PER_NAT)
    assert found.parts["total"].stderr == pytest.approx(each.std(ddof=1) / math.sqrt(180) * PER_NAT)


def test_parts_add_up(pair):
    parts = compared(*pair).runs[1].differences.parts
    t_bins = sum(parts[name].mean for name in ("t_2_10", "t_11_100", "t_101_1000"))
    assert parts["L_t"].mean == pytest.approx(t_bins)
    assert parts["total"].mean == pytest.approx(parts["L_0"].mean + t_bins + parts["L_T"].mean)
    assert list(parts) == ["L_0", "L_t", "t_2_10", "t_11_100", "t_101_1000", "L_T", "total"]


def test_what_examples_have_in_common_cancels(pair):
    a, b = (read_run(folder) for folder in pair)
    paired = compare([a, b]).runs[1].differences.parts["total"]
    for folder in pair:
        (folder / "examples.parquet").unlink()
    unpaired = compared(*pair).runs[1].differences
    assert not unpaired.is_paired
    total = unpaired.parts["total"]
    assert total.mean == pytest.approx(paired.mean)
    assert total.stderr == pytest.approx(math.hypot(*(run.final("test/bpd_stderr") for run in (a, b))))
    assert total.stderr > 5 * paired.stderr
    assert is_significant(paired)
    # the summary has no error of a bin of t
    share = b.final("test/share/t_2_10") * b.final("test/bpd")
    share -= a.final("test/share/t_2_10") * a.final("test/bpd")
    assert unpaired.parts["t_2_10"].mean == pytest.approx(share)
    assert math.isnan(unpaired.parts["t_2_10"].stderr)
    assert not is_significant(unpaired.parts["t_2_10"])


def test_a_training_and_an_evaluation(make_run, make_evaluation, tmp_path):
    trained, evaluated = make_run(tmp_path / "trained"), make_evaluation(tmp_path / "evaluated")
    comparison = compared(trained, evaluated)
    assert not comparison.runs[1].differences.is_paired
    assert comparison.remarks[0].startswith("A has no examples.parquet: all differences are unpaired")
    assert comparison.runs[1].choices == {}


def test_a_bin_of_t_without_steps_of_the_chain_is_zero(make_evaluation, tmp_path):
    full = make_evaluation(tmp_path / "full")
    short = make_evaluation(tmp_path / "short", timesteps=torch.tensor([1, 10, 60]))
    parts = compared(full, short).runs[1].differences.parts
    assert parts["t_101_1000"].mean == pytest.approx(-nats(full)["t_101_1000"].mean() * PER_NAT)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Paired by example, noise and timestep"),
        ({"seed": 3}, "not all the same (seed: A 0, B 3)"),
        ({"estimator": "stratified, 8 evaluations per example"}, "(estimator: A full chain, B stratified)"),
    ],
)
def test_whether_noise_is_common_is_said(pair, changes, said):
    with_ledger(pair[1], **changes)
    (remark,) = compared(*pair).remarks
    assert said in remark


def test_importance_draws_its_own_timesteps(pair):
    for folder in pair:
        with_ledger(folder, estimator="importance, 3 rounds of 16 evaluations per example")
    (remark,) = compared(*pair).remarks
    assert "importance draws timesteps by the model's own terms" in remark


def test_chains_that_differ_are_said(make_evaluation, tmp_path):
    full = make_evaluation(tmp_path / "full")
    short = make_evaluation(tmp_path / "short", timesteps=SHORT[1:])
    pairing, steps = compared(full, short).remarks
    assert "(steps: A 200, B 4)" in pairing
    assert "The chains differ (steps: A 200, B 4; first t: A 1, B 8)" in steps
    with_ledger(short, T=4000)
    assert "The noise level at a given t differs (T: A 200, B 4000)" in compared(full, short).remarks[1]


def test_full_chains_of_one_schedule_that_end_elsewhere(pair):
    with_ledger(pair[1], logsnr_max=9.0)
    _, levels = compared(*pair).remarks
    assert "noise level at a given t differs (logsnr: A 5.5 to -19.8, B 9 to -19.8)" in levels


def test_ledgers_that_disagree_leave_no_differences(pair):
    with_ledger(pair[1], clip=[-1, 1])
    comparison = compared(*pair)
    assert comparison.incomparable == ("clip: A none, B [-1, 1]",)
    assert comparison.runs[1].differences is None
    assert comparison.remarks == ()


def test_runs_that_are_not_finished_or_measured_nothing(make_run, pair, tmp_path):
    folder = make_run(tmp_path / "going on")
    (folder / "summary.json").unlink()
    with pytest.raises(RunFolderError, match=r"going on: not finished: there is no summary\.json"):
        compared(pair[0], folder)
    without = tmp_path / "nothing"
    without.mkdir()
    (without / "summary.json").write_text('{"step": 3}')
    with pytest.raises(RunFolderError, match="nothing: no bound was measured"):
        compared(pair[0], without)


def test_a_damaged_table_of_examples_is_named(pair):
    (pair[1] / "examples.parquet").write_text("no parquet")
    with pytest.raises(RunFolderError, match=r"two/examples\.parquet: cannot be read"):
        compared(*pair)
    with_ledger(pair[0], num_examples=99)
    with_ledger(pair[1], num_examples=99)
    with pytest.raises(RunFolderError, match="it has 180 examples, and the ledger 99"):
        compared(*pair)


def test_beyond_the_alphabet(pair):
    runs = [read_run(pair[0])] * 28
    assert [run.name for run in compare(runs).runs][-3:] == ["Z", "AA", "AB"]


def test_of_many_choices_those_that_were_typed_are_shown():
    few, many = {"a": "default", "b": "2"}, {"a": "default", "b": "2", "c": "default", "d": "4", "e": "5"}
    assert first_choices(few, 2) == (few, 0)
    assert first_choices(many, 2) == ({"b": "2", "d": "4"}, 1)
    assert first_choices(dict.fromkeys("abc", "default"), 2) == ({"all": "default"}, 0)


def test_choices_of_a_training_and_of_an_evaluation_are_compared(finished_run):
    """A run's own configuration refers from one option to another; an evaluation's has values."""
    run = read_run(finished_run)
    written = {
        "run_dir": "${hydra:runtime.output_dir}",
        "seed": 0,
        "data": {"seed": "${seed}", "root": "${oc.env:DATA}"},
        "callbacks": {"folder": "${run_dir}/checkpoints"},
        "variance": {"_target_": "nelbo.LearnedRange"},
        "optimizer": {"lr": 0.1},
    }
    resolved = {
        "run_dir": "/runs/1",
        "seed": 0,
        "data": {"seed": 0, "root": "/data"},
        "callbacks": {"folder": "/runs/1/checkpoints"},
        "variance": {"_target_": "nelbo.LearnedRange"},
        "optimizer": {"lr": 0.2},
    }
    ledger = {"variance": "LearnedRange", "weights": "ema", "precision": "float32", "K": 5, "T": 5}
    other = ledger | {"variance": "FixedSmall", "timesteps": "1..5"}
    runs = [
        dataclasses.replace(run, config=config, summary={"ledger": found})
        for config, found in ((written, ledger), (resolved, other))
    ]
    assert differing(runs) == [
        {"optimizer.lr": "0.1", "variance": "LearnedRange"},
        {"optimizer.lr": "0.2", "variance": "FixedSmall"},
    ]


def test_an_option_that_refers_to_another_is_left_out():
    configs = [{"seed": seed, "data": {"seed": "${seed}"}, "a": "${b}", "b": "${a}"} for seed in (0, 1)]
    assert differing_choices(configs) == [{"seed": "0"}, {"seed": "1"}]
    configs[1]["data"]["seed"] = 7
    assert differing_choices(configs) == [{"seed": "0", "data.seed": "0"}, {"seed": "1", "data.seed": "7"}]


def test_a_shorter_chain_is_named_by_its_ends(make_evaluation, tmp_path):
    runs = [
        read_run(make_evaluation(tmp_path / "full")),
        read_run(make_evaluation(tmp_path / "short", timesteps=SHORT)),
    ]
    assert [choices["steps"] for choices in differing(runs)] == ["all 200", "5 of 200 (1 8 … 120 200)"]


def test_chains_of_continuous_time_with_other_levels_differ(pair):
    schedule = LinearLogSNRSchedule(None)
    even, karras = (describe_levels(spacing.chain(schedule, 16)) for spacing in (Even(), Karras()))
    for folder, timesteps in zip(pair, (even, karras), strict=True):
        with_ledger(folder, K=16, T=None, timesteps=timesteps)
        for name in ("bound.parquet", "examples.parquet"):  # of another chain
            (folder / name).unlink()
    comparison = compared(*pair)
    assert [run.choices["steps"] for run in comparison.runs] == [
        "16 of continuous time (0 0.0666667 … 0.933333 1)",
        f"16 of continuous time (0 {karras.split()[1]} … {karras.split()[-2]} 1)",
    ]
    assert any("The chains differ (different timesteps)" in remark for remark in comparison.remarks)


def test_noise_and_levels_are_common_if_the_levels_are(pair):
    levels = "0 0.5 1"
    for folder, end in zip(pair, ("1", "0.9"), strict=True):
        with_ledger(folder, K=3, T=None, timesteps=f"0 0.5 {end}")
        (folder / "bound.parquet").unlink()
    assert "(different timesteps)" in compared(*pair).remarks[0]
    with_ledger(pair[1], timesteps=levels)
    (remark,) = compared(*pair).remarks
    assert remark.startswith("Paired by example, noise and timestep")


def test_bins_of_t_and_of_u_are_not_subtracted():
    bins = ["t_2_10", "t_11_100"], ["u_0.8_1.0", "u_0.0_0.2"]
    assert common_bins(*bins) == []
    assert common_bins(bins[1], bins[1]) == ["u_0.0_0.2", "u_0.8_1.0"]


def test_paired_errors_are_those_of_repeated_measurements(make_evaluation, tmp_path):
    """Over many pairs of evaluations, the difference scatters as its error says."""
    base = read_run(make_evaluation(tmp_path / "base"))
    means, errors = [], []
    for seed in range(40):
        other = read_run(make_evaluation(tmp_path / str(seed), seed=100 + seed, timesteps=SHORT))
        part = compare([base, other]).runs[1].differences.parts["L_0"]
        means.append(part.mean)
        errors.append(part.stderr)
    # half of the noise is that of the first run, which is the same every time
    assert np.std(means) == pytest.approx(np.mean(errors) / math.sqrt(2), rel=0.4)


def test_the_folder_of_a_sweep_stands_for_its_jobs(tmp_path):
    jobs = [tmp_path / "sweep" / str(number) for number in (0, 1, 2, 10)]
    for job in jobs:
        (job / ".hydra").mkdir(parents=True)
        (job / ".hydra/config.yaml").touch()
    for name in ("multirun.yaml", "sweep.csv", "report.html"):
        (tmp_path / "sweep" / name).touch()
    assert run_folders([tmp_path / "sweep"]) == jobs
    assert sorted(run_folders((tmp_path / "sweep").glob("*"))) == sorted(jobs)  # what a shell makes of *
    assert run_folders([jobs[1], jobs[0], jobs[1]]) == [jobs[1], jobs[0]]
