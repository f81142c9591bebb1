"""Runs that differ in their seed alone: how they are grouped, averaged, compared and shown."""

import json

import numpy as np
import pytest
import yaml

from nelbo.reports.comparison.compare import compare
from nelbo.reports.comparison.named_run import NamedRun, run_names
from nelbo.reports.comparison.seed_curves import SeedCurve, step_curve, validation_curve
from nelbo.reports.comparison.seeds import group_by_seed
from nelbo.reports.html.page import render
from nelbo.runs.run_folder import read_run

COSINE = {"_target_": "nelbo.diffusion.schedules.cosine.CosineSchedule", "num_steps": 200}
LINEAR = {"_target_": "nelbo.diffusion.schedules.linear.LinearSchedule", "num_steps": 200}


@pytest.fixture(scope="module")
def sweep(make_run, tmp_path_factory):
    """Three seeds of two schedules, as ``seed=0,1,2 schedule=cosine,linear`` writes them."""
    folder = tmp_path_factory.mktemp("sweep")
    runs = []
    for seed in (2, 0, 1):
        for schedule, node, better in (("cosine", COSINE, 1.0), ("linear", LINEAR, 0.9)):
            path = make_run(
                folder / f"{schedule}{seed}",
                seed=seed,
                better=better + 0.01 * seed,
                config={"seed": seed, "schedule": node, "callbacks": {"samples": {"seed": seed}}},
            )
            options = [f"seed={seed}", f"schedule={schedule}", "logger=none"]
            (path / ".hydra/overrides.yaml").write_text(yaml.safe_dump(options))
            runs.append(NamedRun(read_run(path), path.name))
    return runs


def test_runs_are_grouped_by_everything_but_the_seed(sweep):
    cosine, linear = group_by_seed(sweep)
    assert (cosine.name, linear.name) == ("schedule=cosine", "schedule=linear")
    assert cosine.seeds == linear.seeds == (0, 1, 2)
    assert [named.name for named in linear.runs] == ["linear0", "linear1", "linear2"]


def test_the_mean_of_a_group_is_that_of_its_summaries(sweep):
    cosine, _ = group_by_seed(sweep)
    values = [named.run.summary["test/bpd"] for named in cosine.runs]
    errors = [named.run.summary["test/bpd_stderr"] for named in cosine.runs]
    assert cosine.total.mean == pytest.approx(np.mean(values))
    assert cosine.total.spread == pytest.approx(np.std(values, ddof=1))
    assert cosine.total.stderr == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))
    assert cosine.total.within == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_groups_with_the_same_seeds_are_compared_seed_by_seed(sweep):
    cosine, linear = group_by_seed(sweep)
    total = linear.differences_from(cosine)["total"]
    pairs = zip(cosine.runs, linear.runs, strict=True)
    each = [b.run.summary["test/bpd"] - a.run.summary["test/bpd"] for a, b in pairs]
    assert total.mean == pytest.approx(np.mean(each))
    assert total.spread == pytest.approx(np.std(each, ddof=1))
    assert total.stderr < 0.1 * cosine.total.stderr  # what a seed does to both schedules cancels


def test_groups_with_other_seeds_are_independent(sweep):
    some = [named for named in sweep if named.name != "linear1"]
    cosine, linear = group_by_seed(some)
    total = linear.differences_from(cosine)["total"]
    assert linear.seeds == (0, 2)
    assert total.mean == pytest.approx(linear.total.mean - cosine.total.mean)
    assert total.stderr == pytest.approx(np.hypot(linear.total.stderr, cosine.total.stderr))


def test_runs_of_one_seed_or_of_the_same_seed_twice_are_no_groups(sweep):
    assert group_by_seed([named for named in sweep if named.name.endswith("0")]) == []
    assert group_by_seed([*sweep, sweep[0]]) == []


def test_the_seed_of_an_estimator_is_no_seed_of_the_training(make_run, tmp_path):
    runs = [
        make_run(tmp_path / str(seed), config={"seed": 0, "test_estimator": {"seed": seed}})
        for seed in (0, 1)
    ]
    assert group_by_seed([NamedRun(read_run(path), path.name) for path in runs]) == []


def test_a_curve_has_the_mean_and_the_standard_deviation_at_each_step(sweep):
    cosine, _ = group_by_seed(sweep)
    curve = validation_curve(cosine)
    values = np.stack([named.run.metrics["val/bpd"].values for named in cosine.runs])
    assert curve.x.tolist() == list(range(49, 400, 50))
    assert curve.mean == pytest.approx(values.mean(0))
    assert curve.spread == pytest.approx(values.std(0, ddof=1))
    along = step_curve(cosine)
    assert len(along.x) == len(along.mean) == len(along.spread) > 5
    assert np.isnan(SeedCurve.of(np.arange(2), np.ones((1, 2))).spread).all()


def test_runs_are_named_by_what_was_typed(sweep, make_run, tmp_path):
    assert run_names([named.run for named in sweep])[:2] == [
        "seed=2 schedule=cosine",
        "seed=2 schedule=linear",
    ]
    bare = read_run(make_run(tmp_path / "bare"))
    assert run_names([sweep[0].run, bare])[1].endswith("bare")


def test_compare_writes_the_groups(sweep):
    content = json.loads(json.dumps(compare([named.run for named in sweep]).to_dict()))
    first, second = content["seeds"]
    assert (first["seeds"], first["differences"]) == ([0, 1, 2], None)
    assert second["choices"] == {"schedule": "linear"}
    assert second["differences"]["total"]["mean"] < 0
    assert any("of their two runs alone" in remark for remark in content["remarks"])


def test_the_page_has_a_table_and_bands_of_the_groups(sweep):
    page = render([named.run for named in sweep])
    assert "<h2>Over seeds</h2>" in page
    assert '"seeds":{"over training"' in page
    assert "seed=2 schedule=linear" in page
    one_seed = render([named.run for named in sweep if named.name.endswith("0")])
    assert "Over seeds" not in one_seed


def test_runs_that_can_be_compared_keep_their_differences_beside_one_that_cannot(sweep, make_run, tmp_path):
    other = make_run(tmp_path / "other")
    summary = json.loads((other / "summary.json").read_text())
    summary["ledger"]["num_examples"] = 17
    (other / "summary.json").write_text(json.dumps(summary))
    found = compare([sweep[0].run, read_run(other), sweep[1].run])
    assert found.incomparable == ("num_examples: A C 180, B 17",)
    assert [run.differences is None for run in found.runs] == [True, True, False]
