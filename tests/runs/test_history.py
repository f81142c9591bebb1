"""metrics.csv and bound.parquet of a resumed run: its rows are kept, and damage is named."""

import csv
import os
import random
import warnings
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.runs import bound_table as table
from nelbo.runs import history, parquet_file
from nelbo.runs.metrics_file import MetricsFile

FLIPS = int(os.environ.get("NELBO_TEST_FLIPS", "20"))  # of single bits, in each file
CHECKPOINT = {"global_step": 3, "nelbo": {"validated_at": 2}}


def bound(steps: list[int]) -> pa.Table:
    rows = [
        dict.fromkeys(table.SCHEMA.names) | {"step": step, "split": split, "t": t, "sum": step + t / 7}
        for step in steps
        for split in ("train", "val")
        for t in (1, 2)
    ]
    return pa.Table.from_pylist(rows, schema=table.SCHEMA)


@pytest.fixture
def run(tmp_path):
    """A folder after three steps, the checkpoint of then, and how the files looked; then two more steps."""
    metrics = MetricsFile(tmp_path / "metrics.csv")
    for step in range(3):
        metrics.log_metrics({"train/loss": 0.1 * step, "train/bpd": 1 / (step + 3)}, step)
    table._write(tmp_path / "bound.parquet", bound([1, 2]), [8])
    checkpoint = CHECKPOINT | {history.HISTORY: history.describe(tmp_path)}
    kept = read(tmp_path)
    metrics.log_metrics({"train/loss": 0.4, "val/bpd": 2.0}, 2)  # a step and a column that are there already
    table._write(tmp_path / "bound.parquet", bound([1, 2, 2]), [8, 12])
    return SimpleNamespace(folder=tmp_path, checkpoint=checkpoint, kept=kept)


def read(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        metrics = [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    return metrics, pq.read_table(folder / "bound.parquet").to_pylist()


def test_the_rows_of_the_checkpoint_are_kept_and_those_after_it_dropped(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history.restore(run.folder, run.checkpoint)
        assert read(run.folder) == run.kept
        history.restore(run.folder, run.checkpoint)  # again: nothing has changed
    assert read(run.folder) == run.kept


@pytest.mark.parametrize("name", ["metrics.csv", "bound.parquet"])
def test_a_flipped_bit_is_named_or_harmless(name, run):
    whole = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    draw = random.Random(0)
    set_aside = 0
    for _ in range(FLIPS):
        for path in run.folder.iterdir():
            path.unlink()
        for other, data in whole.items():
            (run.folder / other).write_bytes(data)
        flipped = bytearray(whole[name])
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        (run.folder / name).write_bytes(flipped)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history.restore(run.folder, run.checkpoint)
        if caught:
            assert f"{run.folder / name}: " in str(caught[0].message)
            assert (run.folder / f"{name}.damaged").read_bytes() == flipped
            assert not (run.folder / name).exists()
            set_aside += 1
        else:  # in what is dropped
            assert read(run.folder) == run.kept
    assert set_aside > 0


CHANGES = {
    "missing": None,
    "empty": lambda data: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "without its header": lambda data: data.split(b"\n", 1)[1],
    "without its last row": lambda data: b"".join(data.splitlines(keepends=True)[:3]),
    "not UTF-8": lambda data: b"\xff" + data[1:],
}


@pytest.mark.parametrize(
    ("name", "change"),
    [("metrics.csv", change) for change in CHANGES]
    + [("bound.parquet", change) for change in list(CHANGES)[:3]],
)
def test_lost_history_is_named_and_training_can_go_on(name, change, run):
    path = run.folder / name
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(CHANGES[change](path.read_bytes()))
    with pytest.warns(UserWarning, match=rf"{path}: .* a new {name} begins at step 3"):
        history.restore(run.folder, run.checkpoint)
    assert (run.folder / f"{name}.damaged").exists() == (change != "missing")
    MetricsFile(run.folder / "metrics.csv").log_metrics({"train/loss": 1.0}, 3)  # it can be written


def test_a_run_without_a_checkpoint_begins_with_new_files(run):
    history.restore(run.folder, None)
    assert list(run.folder.iterdir()) == []


def test_a_flipped_bit_in_a_table_is_detected_by_a_reader_or_harmless(run):
    path = run.folder / "bound.parquet"
    whole, rows = path.read_bytes(), parquet_file.read(path)
    draw = random.Random(1)
    for _ in range(FLIPS):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            read = parquet_file.read(path)
        except ValueError:
            continue
        assert read.equals(rows)
