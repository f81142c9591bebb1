"""The page as a file: complete without a browser, for runs of which anything may be missing."""

import base64
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch

from nelbo.__main__ import main
from nelbo.reports.html import ReportError, report_finished_run, style, write_report
from nelbo.reports.html.page import render
from nelbo.runs.files import RunFolderError
from nelbo.runs.run_folder import read_run

PARTS = ("bpd", "L_0", "L_t", "L_T")
SHORT = torch.tensor([1, 8, 40, 120, 200])
CHARTS = {"training", "chain", "shares", "heat_map", "gap", "rate_distortion", "speed"}


def figures(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def values(column) -> list[float]:
    """A column of a trace, which plotly may have packed."""
    if isinstance(column, list):
        return column
    return np.frombuffer(base64.b64decode(column["bdata"]), dtype=column["dtype"]).tolist()


def text(page: str) -> str:
    """What a person reads."""
    body = page[page.index("<body>") : page.index("<script")]
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_a_run_has_every_chart_and_its_bound_first(finished_run):
    page = render([read_run(finished_run)])
    assert set(figures(page)) == CHARTS
    assert all(figures(page).values())
    assert list(figures(page)["chain"]) == ["per step", "added up from noise", "added up from data"]
    shown = text(page)
    assert "1.205 ± 0.012 bits/dim test split, 180 examples, averaged weights" in shown
    assert shown.index("1.205") < shown.index("The bound over training")
    assert "Not shown" not in shown


def test_a_part_that_four_decimals_round_to_0_has_no_error(finished_run):
    summary = json.loads((finished_run / "summary.json").read_text())
    assert summary["test/L_T_stderr"] > 0
    assert "prior 2.3 × 10⁻⁸ &lt; 0.1%" in text(render([read_run(finished_run)]))


def test_nothing_is_fetched(finished_run):
    page = render([read_run(finished_run)])
    ours = page.replace(page[page.index("/**\n* plotly.js") : page.rindex("<script>")], "")
    assert not re.search(r"""(src|href)=["'](?!data:)""", ours)
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("missing", "charts", "said"),
    [
        ("bound.parquet", {"training", "shares", "speed"}, "needs bound.parquet"),
        ("metrics.csv", {"chain", "shares", "heat_map", "gap", "rate_distortion"}, "needs metrics.csv"),
        ("samples", CHARTS, "Samples: needs samples/step_*.png"),
        ("summary.json", CHARTS, "This run has no summary.json"),
        (".hydra", CHARTS, "needs .hydra/config.yaml"),
    ],
)
def test_a_missing_file_costs_its_charts_and_one_line(make_run, tmp_path, missing, charts, said):
    folder = make_run(tmp_path / "run")
    gone = folder / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    page = render([read_run(folder)])
    assert {key for key, views in figures(page).items() if views} >= charts
    assert said in text(page)


@pytest.mark.parametrize("kept", ["summary.json", "metrics.csv", "bound.parquet"])
def test_one_file_is_enough(make_run, tmp_path, kept):
    folder = make_run(tmp_path / "run")
    for path in list(folder.iterdir()):
        if path.name != kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "Variational bound" in text(render([read_run(folder)]))


def test_likelihoods_of_an_evaluation_are_one_table(make_evaluation, tmp_path):
    folder = make_evaluation(tmp_path / "run")
    content = json.loads((folder / "evaluation.json").read_text())
    assert "Likelihoods on the same examples" not in text(render([read_run(folder)]))
    row = {"label": "the <b>ODE</b>", "nats": 64 * math.log(2) * 1.5, "nats_stderr": None}
    row |= {"difference": -0.25, "difference_stderr": 0.01}
    row["ledger"] = {**content["ledger"], "solver": "RK4, 32 steps"}
    content["likelihoods"] = {"ode": row}
    (folder / "evaluation.json").write_text(json.dumps(content))
    page = render([read_run(folder)])
    shown = text(page)
    assert "Likelihoods on the same examples" in shown
    assert "variational bound" in shown
    assert "1.5 ± ?" in shown
    assert "-0.250 ± 0.010" in shown
    assert "solver: RK4, 32 steps" in shown
    assert "the <b>ODE</b>" not in page


def test_likelihoods_of_samples_are_one_table(make_evaluation, tmp_path):
    folder = make_evaluation(tmp_path / "run")
    content = json.loads((folder / "evaluation.json").read_text())
    row = {
        "label": "a <b>sandwich</b>",
        "nats": 64 * math.log(2) * 1.5,
        "nats_stderr": 64 * math.log(2) * 0.1,
    }
    row |= {"lower": 1.25, "lower_stderr": 0.1, "gap": 0.25, "gap_stderr": None}
    row["ledger"] = {**content["ledger"], "importance_samples": 8}
    content["on_samples"] = {"sandwich": row}
    (folder / "evaluation.json").write_text(json.dumps(content))
    page = render([read_run(folder)])
    shown = text(page)
    assert "Likelihood of the model's samples" in shown
    for value in ("1.25 ± 0.10", "1.50 ± 0.10", "0.25 ± ?", "importance_samples: 8"):
        assert value in shown
    assert "a <b>sandwich</b>" not in page


def test_baselines_are_one_table_with_the_bound(make_evaluation, tmp_path):
    folder = make_evaluation(tmp_path / "run")
    content = json.loads((folder / "evaluation.json").read_text())
    assert "Lossless image formats" not in text(render([read_run(folder)]))
    content["baselines"] = {
        "png": {"label": "<b>PNG</b>", "bits_per_dim": 5.4321, "mosaic_bits_per_dim": 3.25},
        "jxl": {"label": "JPEG XL", "bits_per_dim": None, "missing": "not measured: pip install x"},
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    page = render([read_run(folder)])
    shown = text(page)
    assert "Lossless image formats" in shown
    for value in ("5.432", "3.25", "not measured: pip install x"):
        assert value in shown
    assert "<b>PNG</b>" not in page


@pytest.mark.parametrize("wrong", [{"label": 3}, {"bits_per_dim": "1"}, {"missing": []}])
def test_damaged_baselines_are_refused(wrong, make_evaluation, tmp_path):
    folder = make_evaluation(tmp_path / "run")
    content = json.loads((folder / "evaluation.json").read_text())
    content["baselines"] = {"png": {"label": "PNG", "bits_per_dim": 1.0} | wrong}
    (folder / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match=r"evaluation\.json"):
        read_run(folder)


@pytest.mark.parametrize("part", ["likelihoods", "on_samples"])
@pytest.mark.parametrize("wrong", [{"label": 3}, {"nats": "1"}, {"ledger": None}, {"gap": "1"}])
def test_damaged_likelihoods_are_refused(wrong, part, make_evaluation, tmp_path):
    folder = make_evaluation(tmp_path / "run")
    content = json.loads((folder / "evaluation.json").read_text())
    content[part] = {"ode": {"label": "ODE", "nats": 1.0, "ledger": {}} | wrong}
    (folder / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match=r"evaluation\.json"):
        read_run(folder)


def test_continuous_data_is_shown_in_nats(make_run, tmp_path):
    page = render([read_run(make_run(tmp_path / "run", discrete=False))])
    assert "nats" in text(page)
    assert "bits/dim" not in text(page)
    assert "DDPM" not in text(page)


def test_several_runs_on_one_page(make_run, tmp_path):
    folders = [make_run(tmp_path / name, seed=i, better=1 - 0.1 * i) for i, name in enumerate("ab")]
    page = render([read_run(folder) for folder in folders])
    assert list(figures(page)["heat_map"]) == ["a", "b"]
    assert {trace["name"] for trace in figures(page)["rate_distortion"]["rate and distortion"]["data"]} == {
        "a",
        "b",
        "DDPM on CIFAR-10, published",
    }
    assert "these bounds can be compared" in text(page)
    assert list(figures(page)) == ["differences", *figures(render([read_run(folders[0])]))]


def test_an_evaluation_shows_what_it_has(make_evaluation, tmp_path):
    page = render([read_run(make_evaluation(tmp_path / "run", timesteps=SHORT))])
    assert set(figures(page)) == {"chain", "shares", "rate_distortion", "learned_variance"}
    shown = text(page)
    assert "measured again" in shown
    assert "test split, 180 examples, averaged weights a chain of 5 of 200 timesteps, 1,080" in shown
    assert "Monte Carlo error 0.0097, data set error 0.013" in shown
    assert "FixedSmall" in shown
    assert "+0.250 ± 0.010" in shown
    assert "/models/last.ckpt" in shown
    assert "Not shown" not in shown


def test_data_set_error_below_the_monte_carlo_error_is_not_resolved(make_evaluation, tmp_path):
    run = read_run(make_evaluation(tmp_path / "run", timesteps=SHORT))
    run.summary["test/bpd_stderr_monte_carlo"] = 2 * run.summary["test/bpd_stderr"]
    assert "Monte Carlo error 0.016, data set error not resolved" in text(render([run]))


def test_classes_are_shown_where_they_were_measured(make_evaluation, tmp_path):
    folders = [make_evaluation(tmp_path / name, timesteps=SHORT) for name in ("one", "two", "none")]
    rows = [
        {"class": c, "count": n, **{f"{part}{end}": c + 0.1 for part in PARTS for end in ("", "_stderr")}}
        for c, n in ((0, 5), (3, 1), (7, 2))
    ]
    rows[1] |= {f"{part}_stderr": None for part in PARTS}  # of a single example
    for folder in folders[:2]:
        file = folder / "evaluation.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"classes": rows}))
    runs = [read_run(folder) for folder in folders]
    (alone,) = (view["data"] for view in [figures(render(runs[:1]))["classes"]["total"]])
    assert values(alone[0]["x"]) == [0, 3, 7]
    assert alone[0]["y"] == [0.1, 3.1, 7.1]
    assert alone[0]["error_y"]["array"] == [0.1, None, 7.1]
    assert [point[2] for point in alone[0]["customdata"]] == [" ± 0.1", "", " ± 7.1"]
    several = figures(render(runs))["classes"]["L<sub>0</sub>"]["data"]
    assert [trace["name"] for trace in several] == ["one", "two"]
    assert all(0 < b - a < 1 for a, b in zip(*(values(trace["x"]) for trace in several), strict=True))
    assert "classes" not in figures(render(runs[2:]))


def test_the_curves_of_a_short_chain_end_at_its_bound(make_evaluation, tmp_path):
    run = read_run(make_evaluation(tmp_path / "run", timesteps=SHORT))
    drawn = figures(render([run]))["chain"]
    up, down = (drawn[f"added up from {end}"]["data"][-1] for end in ("data", "noise"))
    bound = run.unit.per_nat * run.last_step_table("test").mean.sum().item()
    assert values(up["y"])[-1] == pytest.approx(bound)
    assert values(down["y"])[0] == pytest.approx(bound, abs=1e-6)
    assert values(up["x"]) == SHORT.tolist()
    assert values(drawn["per step"]["data"][-1]["x"]) == [1]


def test_a_fixed_variance_has_no_place_between_limits(make_evaluation, tmp_path):
    page = render([read_run(make_evaluation(tmp_path / "run", interpolation=math.nan))])
    assert "learned_variance" not in figures(page)
    assert "Learned variance" not in text(page)


def test_a_training_with_evaluations_of_other_chains(make_run, make_evaluation, tmp_path):
    folders = [
        make_run(tmp_path / "trained"),
        make_evaluation(tmp_path / "full"),
        make_evaluation(tmp_path / "short", timesteps=SHORT),
    ]
    page = render([read_run(folder) for folder in folders])
    assert set(figures(page)) == CHARTS | {"differences", "learned_variance"}
    names = [trace.get("name") for trace in figures(page)["chain"]["per step"]["data"]]
    assert {"trained", "full", "short"} <= set(names)
    assert "These chains have other steps" in text(page)
    assert "a difference is from trained" in text(page)


def test_runs_that_measured_different_things_say_so_first(make_run, tmp_path):
    folders = [make_run(tmp_path / name) for name in "ab"]
    summary = json.loads((folders[1] / "summary.json").read_text())
    summary["ledger"]["clip"] = [-1, 1]
    (folders[1] / "summary.json").write_text(json.dumps(summary))
    shown = text(render([read_run(folder) for folder in folders]))
    assert "These bounds are not comparable" in shown
    assert "clip: a none, b [-1, 1]" in shown
    assert shown.index("not comparable") < shown.index("best validation")


def test_a_name_is_text_and_not_markup(make_run, tmp_path):
    runs = [read_run(make_run(tmp_path / name)) for name in ("<script>alert(1)<", "b")]
    assert "<script>alert" not in render(runs[:1])
    assert "<script>alert" not in render(runs)


def test_the_command_writes_into_the_run_and_says_where(finished_run, tmp_path, capsys):
    assert main(["report", str(finished_run), "--output", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert main(["report", str(finished_run)]) == 0
    assert (finished_run / "report.html").stat().st_size > 1e6


def test_a_folder_that_is_no_run_is_one_line_and_exit_code_1(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    shown = capsys.readouterr()
    assert shown.err == f"error: {tmp_path / 'nowhere'}: there is no such folder\n"
    assert shown.out == ""


def test_help_is_answered(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "report" in capsys.readouterr().out


@pytest.mark.parametrize("trouble", ["full disk", "broken file"])
def test_a_finished_training_is_not_lost_for_want_of_a_report(make_run, tmp_path, monkeypatch, trouble):
    folder = make_run(tmp_path / "run")
    if trouble == "full disk":

        def fails(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("pathlib.Path.write_text", fails)
    else:
        (folder / "metrics.csv").write_text("nothing,here\n1,2\n")
    with pytest.raises(
        ReportError, match=r"run is finished, but there is no report\.html: .*(No space left|metrics\.csv)"
    ):
        report_finished_run(folder)
    assert not list(folder.glob("report.html*"))


def test_an_old_report_survives_a_failing_one(make_run, tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    (folder / "report.html").write_text("old")

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fails)
    with pytest.raises(OSError, match="No space left"):
        write_report([folder], folder / "report.html")
    assert [path.read_text() for path in folder.glob("report.html*")] == ["old"]


def test_a_single_point_is_seen():
    drawn = style.figure("step", "loss")
    style.add_line(drawn, np.array([3.0]), np.array([1.5]), "a", "#4b87d9")
    style.add_line(drawn, np.array([3.0, 4.0]), np.array([1.5, 1.0]), "b", "#4b87d9")
    assert [trace.mode for trace in drawn.data] == ["markers", "lines"]
