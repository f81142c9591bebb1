"""What ``python -m nelbo compare`` prints and writes."""

import json
import math
from pathlib import Path

import pytest
import torch

from nelbo.__main__ import main
from nelbo.reports.comparison.tables import difference_bar
from nelbo.runs import likelihood_table


@pytest.fixture
def folders(make_evaluation, tmp_path):
    return [
        str(make_evaluation(tmp_path / name, seed=seed, **options))
        for seed, (name, options) in enumerate(
            {"one": {}, "two": {"better": 0.9}, "three": {"timesteps": torch.tensor([4, 30, 200])}}.items()
        )
    ]


def printed(capsys, *arguments):
    assert main(["compare", *arguments]) == 0
    return capsys.readouterr().out


def row(shown, begin):
    return [line for line in shown.splitlines() if line.strip().startswith(begin)]


def test_differences_are_printed_with_marks_that_need_no_colour(folders, capsys):
    shown = printed(capsys, *folders[:2])
    assert "variational bound, bits/dim" in shown
    assert "difference from A, bits/dim" in shown
    (legend, first), (_, second) = row(shown, "A "), row(shown, "B ")
    assert legend.split() == ["A", "one"]
    assert first.split()[-1] == "36,180"
    assert "▼ -0.1" in second
    assert "▼ -0." in row(shown, "L_0")[0]
    assert "█│" in row(shown, "L_0")[0]
    assert "t 101–1000" in shown
    assert "▼ better, ▲ worse than A" in shown
    assert "\x1b" not in shown


def test_everything_fits_80_columns(folders, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for some in (folders, folders[:2]):
        shown = printed(capsys, *some)
        assert max(map(len, shown.splitlines())) <= 80
        assert "…" not in shown.partition("variational bound")[2]


def test_many_runs_take_several_tables(folders, capsys, make_evaluation, tmp_path):
    more = [str(make_evaluation(tmp_path / f"more{i}", seed=i)) for i in range(4)]
    assert printed(capsys, *folders, *more).count("difference from A") == 2


def test_a_name_is_text_and_not_markup(folders, capsys, make_evaluation, tmp_path):
    other = make_evaluation(tmp_path / "[red]four[/red]", seed=4)
    assert "B  [red]four[/red]" in printed(capsys, folders[0], str(other))


def test_another_baseline(folders, capsys):
    assert row(printed(capsys, *folders[:2], "--baseline", "2"), "A ")[0].split() == ["A", "two"]


def test_reasons_come_first_and_incomparable_runs_have_no_differences(
    folders, capsys, make_evaluation, tmp_path
):
    other = make_evaluation(tmp_path / "val", split="val", data="Patches")
    shown = printed(capsys, folders[0], str(other))
    assert shown.strip().startswith("These bounds cannot be compared:")
    assert "data: A Digits, B Patches" in shown
    assert "split: A test, B val" in shown
    assert "variational bound, bits/dim" in shown
    assert "difference" not in shown


def test_runs_that_cannot_be_compared_are_not_ranked(folders, capsys, make_evaluation, tmp_path):
    other = make_evaluation(tmp_path / "patches", data="Patches", better=0.5)
    bounds = printed(capsys, folders[0], str(other)).partition("variational bound")[2]
    assert [line.split()[0] for line in row(bounds, ("A ", "B "))] == ["A", "B"]
    bounds = printed(capsys, *folders[:2]).partition("variational bound")[2].partition("difference from")[0]
    assert [line.split()[0] for line in row(bounds, ("A ", "B "))] == ["B", "A"]


def test_everything_is_written_as_json(folders, capsys, tmp_path):
    path = tmp_path / "comparison.json"
    shown = printed(capsys, *folders, "--json", str(path))
    assert shown.endswith(f"{path}\n")
    content = json.loads(path.read_text())
    assert [run["name"] for run in content["runs"]] == ["A", "B", "C"]
    assert content["runs"][0]["bound"].keys() == {"total", "L_0", "L_t", "L_T"}
    assert content["runs"][2]["ledger"]["K"] == 3
    assert content["incomparable"] == []
    assert len(content["remarks"]) == 2
    first, second = content["differences"]
    assert (first["run"], first["from"], first["paired"]) == ("B", "A", True)
    assert first["parts"]["total"]["beyond_two_standard_errors"] is True
    assert second["parts"]["t_2_10"]["mean"] < 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["one"], "a comparison takes at least two different runs"),
        (["one", "one"], "a comparison takes at least two different runs"),
        (["one", "nowhere"], "nowhere: there is no such folder"),
        (["one", "."], "not the folder of a run"),
        (["one", "two", "--baseline", "3"], "--baseline 3: there are 2 runs"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(
    folders, capsys, tmp_path, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert said in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "drawn"),
    [
        (0.0, "    │    "),
        (1.0, "    │████"),
        (-1.0, "████│    "),
        (0.4, "    │█▌  "),
        (-0.4, "  ▐█│    "),
        (float("nan"), "    │    "),
        (9.0, "    │████"),
    ],
)
def test_a_bar_grows_from_the_middle(value, drawn):
    assert difference_bar(value, largest=1.0, half=4) == drawn


def add_likelihood(folder, name, values, **ledger):
    """Add a likelihood with these values of the examples, nats, to an evaluation."""
    path = Path(folder) / "evaluation.json"
    content = json.loads(path.read_text())
    own = {**content["ledger"], "solver": "RK4, 4 steps", "num_evaluations": len(str(folder)), **ledger}
    row = {"label": name, "nats": values.mean().item(), "nats_stderr": values.std().item(), "ledger": own}
    content.setdefault("likelihoods", {})[name] = row
    path.write_text(json.dumps(content))
    table = path.with_name("likelihoods.parquet")
    columns = likelihood_table.read(table) if table.exists() else {}
    likelihood_table.write(table, columns | {name: values})


@pytest.fixture
def with_likelihoods(folders):
    values = 100.0 + 10.0 * torch.randn(180, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.linspace(-3.0, -1.0, 180, dtype=torch.float64)
    add_likelihood(folders[0], "ode", values)
    add_likelihood(folders[1], "ode", values + shift, solver="RK4, 8 steps")
    add_likelihood(folders[1], "iwae", values)
    return folders[:2], shift


def test_likelihoods_are_paired_by_example(with_likelihoods, capsys, tmp_path):
    folders, shift = with_likelihoods
    shown = printed(capsys, *folders, "--json", str(tmp_path / "comparison.json"))
    found = json.loads((tmp_path / "comparison.json").read_text())
    difference = found["differences"][0]["likelihoods"]
    per_nat = 1 / (64 * math.log(2))
    assert list(difference) == ["ode"]
    ode = difference["ode"]
    assert ode["paired"] is True
    assert ode["beyond_two_standard_errors"] is True
    assert ode["mean"] == pytest.approx(shift.mean().item() * per_nat)
    assert ode["stderr"] == pytest.approx(shift.std().item() / math.sqrt(180) * per_nat)
    assert ode["ledger"] == {"solver": ["RK4, 4 steps", "RK4, 8 steps"]}
    assert list(found["runs"][1]["likelihoods"]) == ["ode", "iwae"]
    assert "-log p besides the bound, bits/dim" in shown
    (line,) = row(shown, "ode B")
    assert "▼ -0.045" in line
    assert "solver: RK4, 4 steps → RK4, 8" in shown
    assert "–" in row(shown, "iwae B")[0]
    assert max(len(line) for line in shown.splitlines() if str(tmp_path) not in line) <= 80


def test_likelihoods_without_values_of_the_examples_are_not_paired(with_likelihoods, capsys, tmp_path):
    folders, _ = with_likelihoods
    (Path(folders[1]) / "likelihoods.parquet").unlink()
    printed(capsys, *folders, "--json", str(tmp_path / "comparison.json"))
    found = json.loads((tmp_path / "comparison.json").read_text())
    ode = found["differences"][0]["likelihoods"]["ode"]
    assert ode["paired"] is False
    assert ode["stderr"] == pytest.approx(
        math.hypot(*(r["likelihoods"]["ode"]["stderr"] for r in found["runs"]))
    )


def test_likelihoods_of_different_quantities_have_no_difference(folders, capsys):
    values = torch.ones(180, dtype=torch.float64)
    add_likelihood(folders[0], "iwae", values)
    add_likelihood(folders[1], "iwae", values, clip=[-1.0, 1.0])
    assert row(printed(capsys, *folders[:2]), "iwae B")[0].split()[-1] == "–"


def test_likelihoods_of_another_number_of_examples_are_refused(folders, capsys):
    add_likelihood(folders[1], "iwae", torch.ones(3, dtype=torch.float64))
    assert main(["compare", *folders[:2]]) == 1
    assert "likelihoods.parquet: it has 3 examples, and the ledger 180" in capsys.readouterr().err
