"""The rules of the records, with commands that stand for training and evaluation."""

import json
import sys

import pytest

from nelbo.atomic_file import write_json
from records import __main__ as records

RUNG = records.Rung("toy", "Toy", 0, 0, 60.0, 1.5, ["Other 2.0"], ["data=toy"], ["estimator=full"])
SUMMARY = {"step": 10, "throughput/images_per_second": 100.0}
EVALUATION = {
    "test/bpd": 1.25, "test/bpd_stderr": 0.5, "network_evaluations": 7, "ledger": {"num_examples": 3}
}  # fmt: skip


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of a test, and a machine and a commit that fit."""
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(records.Rung, "check_machine", lambda self: None)
    monkeypatch.setattr(records, "committed", lambda: "abc")
    return tmp_path


@pytest.fixture
def quick(places, monkeypatch):
    """Commands that write their results at once."""

    def run(arguments, log, seconds=None):
        folder = next(a.partition("=")[2] for a in arguments if a.startswith("hydra.run.dir="))
        name, content = ("summary", SUMMARY) if seconds else ("evaluation", EVALUATION)
        path = places / folder
        path.mkdir()
        write_json(path / f"{name}.json", content)
        log.write_text("log")
        return 12.0

    monkeypatch.setattr(records, "run", run)
    return places


def test_a_result_has_its_logs_and_a_row_of_the_table(quick):
    for seed in (0, 1):
        path = records.record(RUNG, seed)
    assert path == quick / "results/toy/abc/1.json"
    assert (path.parent / "1_train.txt").read_text() == "log"
    assert json.loads(path.read_text())["options"] == ["data=toy"]
    section = records.section(RUNG)
    assert "Aim: 1.5 bits/dim. Published: Other 2.0." in section
    assert "| 1.2500 ± 0.0000 ± 0.5000 | 2 | 12 | 100 | `data=toy`; `estimator=full` | abc |" in section


def test_a_commit_has_one_result_for_each_seed(quick):
    records.record(RUNG, 0)
    with pytest.raises(SystemExit, match="a commit has one result for each seed"):
        records.record(RUNG, 0)


def test_a_tree_that_changes_during_the_run_has_no_result(quick, monkeypatch):
    commits = iter(["abc", "def"])
    monkeypatch.setattr(records, "committed", lambda: next(commits))
    with pytest.raises(SystemExit, match="another commit was checked out"):
        records.record(RUNG, 0)
    assert not (quick / "results").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [("import time; time.sleep(60)", "stopped after 1 s, the limit"), ("raise SystemExit(3)", "exit code 3")],
)
def test_a_run_that_fails_or_is_too_slow_has_no_result(places, monkeypatch, code, message):
    monkeypatch.setattr(records, "command", lambda *options: [sys.executable, "-c", code])
    short = records.Rung("toy", "Toy", 0, 0, 1.0, 1.5, [], [], [])
    with pytest.raises(SystemExit, match=message):
        records.record(short, 0)
    assert not (places / "results").exists()


def test_a_machine_of_another_class_is_refused():
    rung = records.Rung("toy", "Toy", 1000, 0, 1.0, 1.5, [], [], [])
    with pytest.raises(SystemExit, match="record toy is for 1000 CPU cores and 0 GPUs"):
        records.record(rung, 0)


def test_uncommitted_changes_other_than_results_are_refused(tmp_path, monkeypatch):
    for name, path in {"ROOT": ".", "RESULTS": "records/results", "PAGE": "docs/records.md"}.items():
        monkeypatch.setattr(records, name, tmp_path / path)
    for path in ("docs/records.md", "train.py", "records/results/toy/abc/0.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("new")
        if path == "train.py":
            records.git("init", "--quiet")
            records.git("add", ".")
            author = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
            records.git(*author, "commit", "--quiet", "--message", "all")
    (tmp_path / "docs/records.md").write_text("a table with the first seed")
    assert records.git("rev-parse", "HEAD").startswith(records.committed())
    (tmp_path / "other.py").write_text("new")
    with pytest.raises(SystemExit, match="not committed"):
        records.committed()
    (tmp_path / "other.py").unlink()
    (tmp_path / "train.py").write_text("changed")
    with pytest.raises(SystemExit, match="not committed"):
        records.committed()


def test_the_page_has_the_table_of_the_results():
    page = records.PAGE.read_text()
    assert page.partition(records.MARK)[2].strip() == records.table().strip()


@pytest.mark.parametrize("path", sorted(records.RUNGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_options_of_a_rung_compose(compose, path):
    rung = records.Rung.read(path.stem)
    assert compose(*rung.train).trainer.max_steps > 0
    assert rung.seconds > 0


def test_the_table_alone_names_its_file(tmp_path, monkeypatch, capsys):
    page = tmp_path / "records.md"
    page.write_text(f"text\n{records.MARK}an old table")
    monkeypatch.setattr(records, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["records", "--table"])
    records.main()
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_text() == f"text\n{records.MARK}\n{records.table()}"
