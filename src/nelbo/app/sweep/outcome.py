"""How a job of a sweep ended: ``job.json`` in its folder, which only a job that ended has."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from nelbo.atomic_file import write_json

FILE_NAME = "job.json"


@dataclass(frozen=True)
class Outcome:
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
        """Leave it in the job's folder, whole or not at all."""
        write_json(folder / FILE_NAME, asdict(self))


def read_outcome(folder: Path) -> Outcome | None:
    """How the job in this folder ended; None for one that did not end, or was not begun."""
    path = folder / FILE_NAME
    return Outcome(**json.loads(path.read_text())) if path.is_file() else None
