"""bound.parquet: rows are added, and a reader never meets half a file."""

import pyarrow.parquet as pq
import pytest
import torch

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
    read = pq.read_table(path)
    assert read.schema == table.SCHEMA
    columns = ("step", "split", "t", "sum", "sum_of_squares", "count")
    rows = [tuple(row[name] for name in columns) for row in read.to_pylist()]
    assert rows == [
        (10, "train", 1, 1.0, 1.0, 1),
        (10, "train", 9, 6.0, 20.0, 2),
        (20, "val", 12, 3.0, 9.0, 1),
    ]


def test_a_failed_write_leaves_the_file_before_it(tmp_path, monkeypatch):
    path, t = tmp_path / "bound.parquet", torch.arange(1, 5)
    table.append(path, 1, "train", steps(t, [1], [1.0]))
    before = path.read_bytes()

    def half_written(data, where, **options):
        where.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table.pq, "write_table", half_written)
    with pytest.raises(OSError, match=r"bound\.parquet"):
        table.append(path, 2, "train", steps(t, [2], [1.0]))
    assert path.read_bytes() == before
