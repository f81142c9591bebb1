"""bound.parquet: rows are added, and a reader never meets half a file."""

import contextlib

import pyarrow.parquet as pq
import pytest
import torch

from nelbo.atomic_file import DamagedFileError
from nelbo.evaluation.accumulator import BoundAccumulator, Draws
from nelbo.runs import bound_table as table


def steps(t, index, nats):
    accumulator = BoundAccumulator(4)
    nats = torch.tensor(nats)[:, None]
    accumulator.add(Draws(torch.tensor(index)[:, None], torch.ones_like(nats), nats, torch.zeros(len(nats))))
    return accumulator.step_table(t)


def test_drawn_steps_become_rows(tmp_path):
    path, t = tmp_path / "bound.parquet", torch.tensor([1, 5, 9, 12])
    table.append(path, 10, "train", steps(t, [1, 3, 3], [1.0, 2.0, 4.0]))
    table.append(path, 20, "val", steps(t, [4], [3.0]))
    table.merge(path)
    read = pq.read_table(path)
    assert read.schema == table.SCHEMA
    columns = ("step", "split", "t", "sum", "sum_of_squares", "count")
    rows = [tuple(row[name] for name in columns) for row in read.to_pylist()]
    assert rows == [
        (10, "train", 1, 1.0, 1.0, 1),
        (10, "train", 9, 6.0, 20.0, 2),
        (20, "val", 12, 3.0, 9.0, 1),
    ]


def append_one(path, number):
    table.append(path, number, "val", steps(torch.arange(1, 5), [1, 1 + number % 3], [1.0, float(number)]))


def all_rows(path):
    return [
        (rows["step"], rows["t"], rows["sum"]) for _, part in table._tables(path) for rows in part.to_pylist()
    ]


@pytest.fixture
def few_parts(monkeypatch):
    monkeypatch.setattr(table, "MOST_PARTS", 3)


def test_rows_are_the_same_in_parts_and_merged(tmp_path, few_parts):
    path, whole = tmp_path / "bound.parquet", tmp_path / "whole.parquet"
    seen = []
    for number in range(12):
        append_one(path, number)
        rows, _ = table._read_rows(path)
        table._write(whole, rows, [len(rows)])
        in_parts, at_once = (table.read(file, {"T": 4})["val"] for file in (path, whole))
        assert list(in_parts) == list(at_once) == list(range(number + 1))
        assert all(torch.equal(in_parts[step].sum, at_once[step].sum) for step in in_parts)
        seen.append(len(table._parts(path)))
    assert seen == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    rows = all_rows(path)
    table.merge(path)
    assert not (tmp_path / "bound.parts").exists()
    assert all_rows(path) == rows
    assert len(pq.read_table(path)) == len(rows) == 20
    table.merge(path)  # nothing to do


def test_an_append_reads_no_rows(tmp_path, monkeypatch):
    path = tmp_path / "bound.parquet"
    append_one(path, 0)
    monkeypatch.setattr(table.parquet_file, "read", lambda *arguments: pytest.fail("rows were read"))
    for number in range(1, 5):
        append_one(path, number)
    assert table.describe(path)["rows"] == 8


def test_every_description_can_be_restored_after_merges(tmp_path, few_parts):
    path, described = tmp_path / "bound.parquet", []
    for number in range(8):
        append_one(path, number)
        described.append((table.describe(path), all_rows(path)))
    for description, rows in reversed(described):
        table.restore(path, **description)
        assert all_rows(path) == rows
        assert table.describe(path) == description
    append_one(path, 1)
    assert table.describe(path) == described[1][0]
    with pytest.raises(DamagedFileError, match="its rows are not those that were written"):
        table.restore(path, **described[0][0] | {"rows": 2})


def test_a_file_without_a_checksum_of_its_rows_is_refused(tmp_path):
    path = tmp_path / "bound.parquet"
    append_one(path, 0)
    rows, _ = table._read_rows(path)
    table.parquet_file.write(path, rows)
    for act in (table.describe, lambda path: append_one(path, 1)):
        with pytest.raises(DamagedFileError, match=r"bound\.parquet: damaged, it has no checksum"):
            act(path)


@pytest.mark.parametrize("ends", ["1", "1 two", "1 4", "2 1 3", "-1 3"])
def test_damaged_ends_of_appends_are_named(tmp_path, ends):
    path = tmp_path / "bound.parquet"
    append_one(path, 0)
    append_one(path, 1)
    rows, _ = table._read_rows(path)
    table.merge(path)
    assert len(rows) == 3
    table.parquet_file.write(path, rows, {table.APPEND_ENDS: ends})
    with pytest.raises(DamagedFileError, match=r"bound\.parquet: damaged, its metadata does not say"):
        table.restore(path, 1, table.parquet_file.checksum(rows.slice(0, 1)))


@pytest.mark.parametrize("merged", [False, True])
def test_an_interrupted_restore_is_completed(tmp_path, few_parts, monkeypatch, merged):
    """Killed after any of its operations, a restore can be repeated."""
    path = tmp_path / "bound.parquet"
    for number in range(5 if merged else 3):
        append_one(path, number)
        if number == 1:
            description, rows = table.describe(path), all_rows(path)
    kept = {file: file.read_bytes() for file in (path, *table._parts(path))}

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    for module, name in ((table.Path, "unlink"), (table.parquet_file, "write"), (table.shutil, "rmtree")):
        for file, content in kept.items():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        with monkeypatch.context() as interrupted:
            interrupted.setattr(module, name, killed)
            with contextlib.suppress(KeyboardInterrupt):
                table.restore(path, **description)
        table.restore(path, **description)
        assert all_rows(path) == rows
        assert table.describe(path) == description


def test_damage_is_named_and_does_not_stop_a_resume(tmp_path):
    path = tmp_path / "bound.parquet"
    append_one(path, 0)
    description = table.describe(path)
    append_one(path, 1)
    append_one(path, 2)
    (tmp_path / "bound.parts" / "notes.parquet").write_text("not a part")
    last = table._parts(path)[-1]
    last.write_bytes(last.read_bytes()[:-9])
    for act in (
        table.describe,
        table.merge,
        lambda path: append_one(path, 3),
        lambda path: table.read(path, {"T": 4}),
    ):
        with pytest.raises(DamagedFileError, match=r"000000000003\.parquet: cannot be read"):
            act(path)
    table.restore(path, **description)  # the damaged rows are later ones
    assert [row[0] for row in all_rows(path)] == [0]
    append_one(path, 1)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedFileError, match=r"bound\.parquet: cannot be read"):
        table.restore(path, **description)


def test_an_interrupted_merge_is_completed(tmp_path, few_parts, monkeypatch):
    path = tmp_path / "bound.parquet"
    for number in range(3):
        append_one(path, number)
    rows = all_rows(path)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(table.shutil, "rmtree", lambda *arguments, **options: None)
        table.merge(path)
    assert len(list((tmp_path / "bound.parts").iterdir())) == 2
    assert all_rows(path) == rows
    append_one(path, 3)
    assert [row[0] for row in all_rows(path)] == [0, 1, 1, 2, 2, 3]
    table.merge(path)
    assert [row[0] for row in all_rows(path)] == [0, 1, 1, 2, 2, 3]


def test_a_part_that_is_missing_is_named(tmp_path):
    path = tmp_path / "bound.parquet"
    for number in range(3):
        append_one(path, number)
    (tmp_path / "bound.parts" / "000000000001.parquet").unlink()
    with pytest.raises(
        DamagedFileError, match=r"000000000003\.parquet: damaged, the rows before it are missing"
    ):
        table.read(path, {"T": 4})


def test_parts_without_their_file_are_not_continued(tmp_path):
    path = tmp_path / "bound.parquet"
    for number in range(3):
        append_one(path, number)
    path.unlink()
    append_one(path, 7)
    assert [row[0] for row in all_rows(path)] == [7, 7]


def test_a_failed_write_leaves_the_file_before_it(tmp_path, monkeypatch):
    path, t = tmp_path / "bound.parquet", torch.arange(1, 5)
    table.append(path, 1, "train", steps(t, [1], [1.0]))
    before = path.read_bytes()

    def half_written(data, where, **options):
        where.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table.parquet_file.pq, "write_table", half_written)
    with pytest.raises(OSError, match=r"bound\.parts/0+1\.parquet"):
        table.append(path, 2, "train", steps(t, [2], [1.0]))
    assert path.read_bytes() == before
