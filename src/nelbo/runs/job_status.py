"""``job.json``: how a job of a sweep ended. A job that has not ended has no such file."""

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from nelbo.atomic_file import read_json, write_json

FILE_NAME = "job.json"


@dataclass(frozen=True)
class JobStatus:
    """The end of a job.

    Attributes:
        failure: what went wrong, in one line; None for a job that ended well.
        objective: what the job returned: of a training the validation bound at its end.
        seconds: that it took, of the last attempt.
    """

    failure: str | None
    objective: float | None
    seconds: float

    def write(self, folder: Path) -> None:
        """Write job.json atomically."""
        write_json(folder / FILE_NAME, asdict(self))


def read_job_status(folder: Path) -> JobStatus | None:
    """The status of the job in this folder; None for a job that has not ended or not started."""
    try:
        return _ADAPTER.validate_python(read_json(folder / FILE_NAME))
    except FileNotFoundError:
        return None
    except ValueError as error:  # of read_json or of pydantic
        warnings.warn(
            f"{folder / FILE_NAME} is damaged, so the job is run again ({' '.join(str(error).split())})",
            stacklevel=2,
        )
        return None


_ADAPTER = TypeAdapter(JobStatus)
