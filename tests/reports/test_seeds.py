"""Runs that differ in their seed alone: how they are grouped, averaged, compared and shown."""

import csv
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml

from nelbo.__main__ import main
from nelbo.reports.comparison.compare import compare
from nelbo.reports.comparison.named_run import NamedRun, run_names
from nelbo.reports.comparison.seed_curves import SeedCurve, step_curve, validation_curve
from nelbo.reports.comparison.seeds import group_by_seed
from nelbo.reports.comparison.tables import seed_tables
from nelbo.reports.html.entry import make_entries
from nelbo.reports.html.page import render
from nelbo.reports.html.style import RUN_COLOURS
from nelbo.reports.html.tables import seed_rows
from nelbo.reports.paper import LATEX, write_figure, write_table
from nelbo.reports.terminal import make_console
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
    assert cosine.total.seed_stderr == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))
    assert cosine.total.within == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_groups_with_the_same_seeds_are_compared_seed_by_seed(sweep):
    cosine, linear = group_by_seed(sweep)
    total = linear.differences_from(cosine)["total"]
    pairs = zip(cosine.runs, linear.runs, strict=True)
    each = [b.run.summary["test/bpd"] - a.run.summary["test/bpd"] for a, b in pairs]
    assert total.mean == pytest.approx(np.mean(each))
    assert total.spread == pytest.approx(np.std(each, ddof=1))
    assert total.seed_stderr < 0.1 * cosine.total.seed_stderr  # what a seed does to both schedules cancels


def test_groups_with_other_seeds_are_independent(sweep):
    some = [named for named in sweep if named.name != "linear1"]
    cosine, linear = group_by_seed(some)
    total = linear.differences_from(cosine)["total"]
    assert linear.seeds == (0, 2)
    assert total.mean == pytest.approx(linear.total.mean - cosine.total.mean)
    assert total.seed_stderr == pytest.approx(np.hypot(linear.total.seed_stderr, cosine.total.seed_stderr))
    assert total.stderr == pytest.approx(np.hypot(total.seed_stderr, total.within))


def with_likelihood(named):
    """The run with an ODE likelihood of 90 % of its bound."""
    run = named.run
    nats = 0.9 * run.summary["test/bpd"] / run.unit.per_nat
    row = {"label": "ODE", "nats": nats, "nats_stderr": 0.5, "ledger": run.ledger}
    return replace(named, run=replace(run, summary=run.summary | {"likelihoods": {"ode": row}}))


@pytest.mark.parametrize("left_out", [None, "linear1"])
def test_likelihoods_are_averaged_and_compared_over_seeds(sweep, left_out):
    """0.9 times the bound, and so are the differences."""
    runs = [with_likelihood(named) for named in sweep if named.name != left_out]
    cosine, linear = group_by_seed(runs)
    assert cosine.likelihoods["ode"].mean == pytest.approx(0.9 * cosine.total.mean)
    assert cosine.likelihoods["ode"].within == pytest.approx(0.5 * cosine.first.unit.per_nat)
    difference = linear.likelihood_differences_from(cosine)["ode"]
    total = linear.differences_from(cosine)["total"]
    assert difference.mean == pytest.approx(0.9 * total.mean)
    assert difference.spread == pytest.approx(0.9 * total.spread)
    first, second = compare([named.run for named in runs]).to_dict()["seeds"]
    assert first["likelihoods"]["ode"]["difference"] is None
    assert second["likelihoods"]["ode"]["difference"]["mean"] == pytest.approx(difference.mean)
    console = make_console(width=80)
    with console.capture() as shown:
        for part in seed_tables((cosine, linear)):
            console.print(part)
    assert "ode over seeds, bits/dim" in shown.get()


def test_likelihood_that_a_run_of_the_group_lacks_is_not_averaged(sweep):
    cosine, linear = group_by_seed([with_likelihood(sweep[0]), *sweep[1:]])
    assert cosine.likelihoods == linear.likelihoods == {}
    assert linear.likelihood_differences_from(cosine) == {}


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


def test_runs_have_shades_of_the_colour_of_their_group(sweep):
    entries = make_entries([named.run for named in sweep])
    assert len({entry.colour for entry in entries}) == 6
    groups = group_by_seed(entries)
    middle = [entry.colour for group in groups for entry in group.runs if entry.run.config["seed"] == 1]
    assert middle == [row.colour for row in seed_rows(groups)] == list(RUN_COLOURS[:2])
    alone = make_entries([sweep[0].run, sweep[1].run])
    assert [entry.colour for entry in alone] == list(RUN_COLOURS[:2])


def test_names_of_groups_are_whole_in_80_columns(sweep):
    console = make_console(80)
    groups = [
        replace(group, name=f"parts=5 schedule=learned_ends_{n}")
        for n, group in enumerate(group_by_seed(sweep))
    ]
    with console.capture() as shown:
        for part in seed_tables(groups):
            console.print(part)
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= 80
    words = {word for line in lines for word in line.split()}
    assert {"schedule=learned_ends_0", "schedule=learned_ends_1"} <= words


def test_runs_that_can_be_compared_keep_their_differences_beside_one_that_cannot(sweep, make_run, tmp_path):
    other = make_run(tmp_path / "other")
    summary = json.loads((other / "summary.json").read_text())
    summary["ledger"]["num_examples"] = 17
    (other / "summary.json").write_text(json.dumps(summary))
    found = compare([sweep[0].run, read_run(other), sweep[1].run])
    assert found.incomparable == ("num_examples: A C 180, B 17",)
    assert [run.differences is None for run in found.runs] == [True, True, False]


def test_the_table_of_a_paper_has_a_row_for_each_group(sweep, tmp_path):
    runs = [named.run for named in sweep]
    write_table(runs, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    cosine, linear = group_by_seed(sweep)
    assert (first["runs"], first["seeds"], first["unit"]) == ("schedule=cosine", "0 1 2", "bits/dim")
    assert float(first["total_mean"]) == cosine.total.mean
    assert float(second["total_stderr_over_seeds"]) == linear.total.seed_stderr
    assert float(second["L_0_error_within_run"]) == linear.part("L_0").within
    write_table(runs, tmp_path / "table.tex")
    lines = (tmp_path / "table.tex").read_text().splitlines()
    row = next(line for line in lines if line.startswith("schedule=cosine & 3 & "))
    assert row.count("&") == 5
    assert row.count(r"\pm") == 3
    assert r"\times 10^{" in row


def test_names_are_escaped_for_latex():
    assert r"a_{b}&50%\$".translate(LATEX) == r"a\_\{b\}\&50\%\textbackslash{}\$"


@pytest.mark.parametrize(("suffix", "begins"), [("pdf", b"%PDF"), ("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_figure_is_written_in_the_format_of_its_name(sweep, tmp_path, suffix, begins):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"figure.{suffix}"
    write_figure([named.run for named in sweep], path)
    assert path.read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--figure", "figure.bmp"], "--figure figure.bmp: expected a name that ends in .pdf, .png, .svg"),
        (["--table", "table"], "--table table: expected a name that ends in .csv, .tex"),
        (["--output", "figure.pdf"], "--output figure.pdf: expected a name that ends in .html"),
    ],
)
def test_a_file_of_another_format_is_refused_in_one_line(sweep, capsys, arguments, said):
    assert main(["report", str(sweep[0].run.path), *arguments]) == 1
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_missing_matplotlib_is_named_with_its_remedy(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["report", str(sweep[0].run.path), "--figure", str(tmp_path / "figure.pdf")]) == 1
    assert "--figure needs matplotlib: pip install 'nelbo[figure]'" in capsys.readouterr().err
