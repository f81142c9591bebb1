"""``summary.json``: the results of a finished run, and the checksums of its other files."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nelbo.atomic_file import CHECKSUM, DamagedFileError, read_json, sha256_of, write_json
from nelbo.runs.files import RunFolderError, read_if_there
from nelbo.runs.paths import SUMMARY

FILES = "files"  # SHA-256 of the files of the run, by name


def write_summary(run_dir: Path, results: Mapping[str, Any], files: Iterable[str]) -> None:
    """Write the results, with the checksums of those of the files that exist.

    Raises:
        OSError: naming the file that cannot be written or read.
    """
    checksums = {name: sha256_of(run_dir / name) for name in files if (run_dir / name).exists()}
    write_json(run_dir / SUMMARY, {**results, FILES: checksums})


def check_files(path: Path, summary: Mapping[str, Any]) -> None:
    """Compare the files of a finished run with the checksums in its summary.

    Raises:
        RunFolderError: naming a file that is missing, damaged or edited.
    """
    for name, expected in dict(summary.get(FILES, {})).items():
        found = read_if_there(path / name, sha256_of)
        if found != expected:
            problem = "is missing" if found is None else "was damaged or edited after the run was finished"
            raise RunFolderError(
                f"{path / name} {problem} (SHA-256 in {SUMMARY}); if this is intended, remove {FILES} and "
                f"{CHECKSUM} from {SUMMARY}"
            )


def is_finished(run_dir: Path) -> bool:
    """Whether the run has a summary, and none of its files is damaged or missing."""
    return finished_step(run_dir) is not None


def finished_step(run_dir: Path) -> int | None:
    """Optimizer steps of a finished run, None for another.

    A run with a damaged or missing file is not finished: resuming it recreates the file.
    """
    try:
        summary = read_json(run_dir / SUMMARY)
        check_files(run_dir, summary)
    except FileNotFoundError:
        return None
    except (DamagedFileError, RunFolderError) as error:
        warnings.warn(f"{run_dir} is not finished: {error}", stacklevel=2)
        return None
    return summary.get("step")
