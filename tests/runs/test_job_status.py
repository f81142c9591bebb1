"""job.json: what was written is read, and a file of another kind counts as none."""

import json

import pytest

from nelbo.runs.job_status import FILE_NAME, JobStatus, read_job_status

STATUS = {"failure": None, "objective": 4.5, "seconds": 2.0}


def test_what_was_written_is_read(tmp_path):
    assert read_job_status(tmp_path) is None
    for status in (JobStatus(None, 4.5, 2.0), JobStatus("no data", None, 0.1)):
        status.write(tmp_path)
        assert read_job_status(tmp_path) == status


@pytest.mark.parametrize(
    "content", [STATUS | {"objective": "low"}, STATUS | {"seconds": []}, STATUS | {"failure": {}}, {"x": 1}]
)
def test_a_file_with_values_of_another_type_counts_as_none(content, tmp_path):
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"job\.json is damaged, so the job is run again"):
        assert read_job_status(tmp_path) is None
