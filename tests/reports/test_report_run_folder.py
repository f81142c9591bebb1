"""Reading a run's folder: what is there, what is missing, what is broken."""

import json
import math

import pyarrow.parquet as pq
import pytest
import torch

from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.units import Unit
from nelbo.runs import bound_table as table
from nelbo.runs.files import RunFolderError
from nelbo.runs.run_folder import read_run, run_folders


def step_table(t, *rows):
    count, total, squares, errors = torch.tensor(rows, dtype=torch.float64).T
    return StepTable(torch.tensor(t), count, total, squares, errors, torch.full_like(count, math.nan))


def test_a_finished_run(finished_run):
    run = read_run(finished_run)
    assert run.unit.label == "bits/dim"
    assert run.unit.per_nat == pytest.approx(1 / (64 * math.log(2)))
    assert list(run.step_tables) == ["train", "val", "test"]
    assert list(run.step_tables["val"]) == list(range(50, 401, 50))
    assert list(run.samples) == list(range(50, 401, 50))
    assert run.metrics["val/bpd"].steps.tolist() == list(range(49, 400, 50))
    assert run.final("test/bpd") == run.summary["test/bpd"]
    assert run.final("val/bpd") == run.metrics["val/bpd"].values[-1]
    assert run.final("test/fid") is None


def test_the_runs_in_a_folder_without_results_are_found(make_run, tmp_path):
    first, second = make_run(tmp_path / "2026-01-01/12-00-00"), make_run(tmp_path / "own")
    assert run_folders([tmp_path]) == [second, first]
    assert run_folders([first, tmp_path / "2026-01-01"]) == [first]
    (tmp_path / "summary.json").write_text("{}")
    assert run_folders([tmp_path]) == [tmp_path]


@pytest.mark.parametrize("discrete", [True, False])
def test_the_unit_of_a_run_that_is_not_finished_is_that_of_its_data(discrete, make_run, tmp_path):
    folder = make_run(tmp_path / "run", discrete=discrete)
    finished = read_run(folder).unit
    (folder / "summary.json").unlink()
    assert read_run(folder).unit == finished
    (folder / "data_record.json").unlink()
    assert read_run(folder).unit == Unit(finished.metric, "nats", 1.0)


def test_a_run_describes_its_data_when_it_starts(finished_run):
    data = read_run(finished_run).data
    assert (data.shape, data.levels, data.num_classes) == ((1, 8, 8), 17, 10)


def test_continuous_data_is_read_in_nats(make_run, tmp_path):
    run = read_run(make_run(tmp_path / "run", discrete=False))
    assert (run.unit.metric, run.unit.label, run.unit.per_nat) == ("nelbo", "nats", 1.0)


def test_the_last_measurement_of_a_step_counts(tmp_path):
    """Adding the same draws up twice would make errors look smaller by the square root of two."""
    path = tmp_path / "bound.parquet"
    rows = [(2.0, 3.0, 5.0, 0.1), (0.0, 0.0, 0.0, 0.0), (4.0, 1.0, 2.0, 0.2)]
    for _ in range(2):
        table.append(path, 10, "val", step_table([1, 2, 3], *rows))
    again = [(1.0, 7.0, 49.0, math.nan), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)]
    table.append(path, 20, "val", step_table([1, 2, 3], *rows))
    table.append(path, 20, "val", step_table([1, 2, 3], *again))
    run = read_run(tmp_path)
    first, second = run.step_tables["val"].values()
    assert first.count.tolist() == [2, 0, 4]
    assert first.sum.tolist() == [3, 0, 1]
    assert first.sum_of_squares.tolist() == [5, 0, 2]
    assert first.sum_of_errors.tolist() == [0.1, 0, 0.2]
    assert second.count.tolist() == [1, 0, 0]
    assert second.sum_of_errors[0].isnan()


def test_an_evaluation(make_evaluation, tmp_path):
    run = read_run(make_evaluation(tmp_path / "run", split="train"))
    assert run.is_evaluation
    assert run.held_out == "train"
    assert run.config["model"]["channels"] == 32
    split, terms = run.best_step_table()
    assert (split, len(terms.t)) == ("train", 200)
    assert run.prior("train") == pytest.approx(1e-6, rel=0.1)


def test_a_shorter_chain_has_its_own_steps_drawn_or_not(tmp_path):
    path = tmp_path / "bound.parquet"
    rows = [(2.0, 3.0, 5.0, 0.1), (0.0, 0.0, 0.0, 0.0), (4.0, 1.0, 2.0, 0.2)]
    table.append(path, 0, "test", step_table([12, 50, 900], *rows))
    summary = {"test/bpd": 1.0, "ledger": {"K": 3, "T": 1000, "timesteps": "12 50 900"}}
    (tmp_path / "evaluation.json").write_text(json.dumps(summary))
    terms = read_run(tmp_path).last_step_table("test")
    assert terms.t.tolist() == [12, 50, 900]
    assert terms.count.tolist() == [2, 0, 4]
    summary["ledger"]["timesteps"] = "12 50"
    (tmp_path / "evaluation.json").write_text(json.dumps(summary))
    with pytest.raises(RunFolderError, match="t = 900 is not a step of the chain"):
        read_run(tmp_path)


def test_steps_between_levels_of_continuous_time_are_numbered(tmp_path):
    path = tmp_path / "bound.parquet"
    table.append(path, 0, "test", step_table([1, 3], (2.0, 3.0, 5.0, 0.1), (1.0, 1.0, 1.0, 0.1)))
    summary = {"test/bpd": 1.0, "ledger": {"K": 3, "T": None, "timesteps": "0 0.5 1"}}
    (tmp_path / "evaluation.json").write_text(json.dumps(summary))
    terms = read_run(tmp_path).last_step_table("test")
    assert terms.t.tolist() == [1, 2, 3]
    assert terms.count.tolist() == [2, 0, 1]


def test_a_full_chain_is_as_long_as_the_ledger_says(tmp_path):
    """Importance sampling may never draw the noisiest timesteps."""
    path = tmp_path / "bound.parquet"
    table.append(path, 0, "test", step_table([1, 2], (2.0, 3.0, 5.0, 0.1), (1.0, 1.0, 1.0, 0.1)))
    summary = {"test/bpd": 1.0, "ledger": {"K": 50, "T": 50, "timesteps": "1..50"}}
    (tmp_path / "evaluation.json").write_text(json.dumps(summary))
    assert len(read_run(tmp_path).last_step_table("test").t) == 50


def test_a_table_that_lacks_a_column_is_refused(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    path = folder / "bound.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["count"]).replace_schema_metadata(), path)
    with pytest.raises(RunFolderError, match=r"bound\.parquet: cannot be read \(it has no column count\)"):
        read_run(folder)


def test_metrics_are_sparse_and_the_last_value_of_a_step_counts(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,a,b\n0,5,,1\n0,2,3,\n0,5,4,2\n")
    run = read_run(tmp_path)
    assert set(run.metrics) == {"a", "b"}
    assert run.metrics["a"].steps.tolist() == [2, 5]
    assert run.metrics["a"].values.tolist() == [3, 4]
    assert run.metrics["b"].values.tolist() == [2]


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(RunFolderError, match="nowhere: there is no such folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="not the folder of a run"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", "[1]"),
        ("summary.json", '{"test/bpd": "one"}'),
        ("summary.json", '{"ledger": 3}'),
        ("summary.json", '{"ledger": {"weights": "mine"}}'),
        ("summary.json", '{"ledger": {"num_examples": "16"}}'),
        ("summary.json", '{"train_seconds": "long"}'),
        ("metrics.csv", "step,a\nx,1\n"),
        ("metrics.csv", "epoch,a\n0,1\n"),
        ("bound.parquet", "no parquet"),
        (".hydra/config.yaml", "a: [1"),
    ],
)
def test_a_broken_file_is_named(make_run, tmp_path, name, content):
    folder = make_run(tmp_path / "run")
    (folder / name).write_text(content)
    with pytest.raises(RunFolderError, match=f"{name}: cannot be read") as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_in_place_of_the_folder_of_its_run_is_named(make_run, tmp_path):
    last = make_run(tmp_path / "run") / "checkpoints/last.ckpt"
    last.parent.mkdir()
    last.touch()
    with pytest.raises(RunFolderError, match=rf"{last} is a checkpoint: expected .* such as {tmp_path}/run$"):
        run_folders([tmp_path / "run", last])
