"""Parquet files: what was written is read, and a small file cannot fill the memory."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.atomic_file import DamagedFileError
from nelbo.runs import parquet_file

REFUSED = {
    "equal numbers": (pa.table({"x": np.zeros(10**7)}), "it would unpack from"),
    "one long text": (pa.table({"x": ["x" * 10**5] * 100}), "text of more than 100 characters"),
    "lists": (pa.table({"x": [[1.0]]}), "its column x has the type list"),
    "dictionary": (
        pa.table({"x": pa.array(["a"]).dictionary_encode()}),
        "its column x has the type dictionary",
    ),
}


def test_what_was_written_is_read(tmp_path):
    columns = {"step": [1, 2, 3], "split": ["train", None, "val"], "sum": [1.0, None, 3.0]}
    rows = pa.table(columns).append_column("t", pa.array([1, 2, 3], pa.int32()))
    parquet_file.write(tmp_path / "a.parquet", rows.select(["step", "t", "sum"]))
    assert (
        parquet_file.read(tmp_path / "a.parquet").to_pydict() == rows.select(["step", "t", "sum"]).to_pydict()
    )
    pq.write_table(rows, tmp_path / "b.parquet")  # a text may be missing in another program's file
    assert parquet_file.read(tmp_path / "b.parquet").equals(rows)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_table_that_is_not_flat_or_much_larger_than_its_file_is_refused(kind, tmp_path):
    rows, message = REFUSED[kind]
    pq.write_table(rows, tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(DamagedFileError, match=rf"a\.parquet: cannot be read .*{message}"):
        parquet_file.read(tmp_path / "a.parquet")
