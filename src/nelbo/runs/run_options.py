"""``.hydra``: the configuration and the options that a run was started with."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nelbo.atomic_file import read_yaml, replacing
from nelbo.runs.paths import CONFIG, HYDRA, OVERRIDES

# Options that say where and how a command runs
OF_THE_COMMAND = re.compile(r"(hydra|logger|resume|trust|run_dir|trainer\.default_root_dir)([./=]|$)")


def write_hydra_files(
    run_dir: Path, config: Mapping[str, Any], hydra: Mapping[str, Any], overrides: Sequence[str]
) -> None:
    """Write the three files of ``.hydra``, each of them atomically.

    ``overrides.yaml`` is written last. A sweep reads it as the sign that a job was started.

    Args:
        run_dir: the run's folder.
        config: of the job, plain values.
        hydra: configuration of Hydra, plain values.
        overrides: options of the job.

    Raises:
        OSError: if a file cannot be written.
    """
    _write(run_dir / CONFIG, dict(config))
    _write(run_dir / HYDRA, {"hydra": dict(hydra)})
    _write(run_dir / OVERRIDES, list(overrides))


def write_config(config: Mapping[str, Any], run_dir: Path) -> None:
    """Write the configuration of a run: plain values without interpolations.

    Raises:
        OSError: if the file cannot be written.
    """
    _write(run_dir / CONFIG, dict(config))


def read_overrides(folder: Path) -> list[str]:
    """The options of the command line, which are compared with others; none if the file is missing.

    Raises:
        DamagedFileError: for a file that is not yaml.
    """
    path = folder / OVERRIDES
    content = read_yaml(path) if path.is_file() else []
    return [str(option) for option in content] if isinstance(content, list) else []


def typed_options(folder: Path) -> dict[str, str]:
    """The options by name that say what was trained, as they were typed; without those of Hydra and loggers.

    Raises:
        DamagedFileError: for a file that is not yaml.
    """
    pairs = (option.lstrip("+~").partition("=") for option in read_overrides(folder))
    return {name: value for name, _, value in pairs if not OF_THE_COMMAND.match(name)}


def _write(path: Path, content: dict[str, Any] | list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
