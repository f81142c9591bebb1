"""``.hydra/overrides.yaml``: the options that a run was started with."""

from pathlib import Path

from nelbo.atomic_file import read_yaml
from nelbo.runs.paths import OVERRIDES


def read_overrides(folder: Path) -> list[str]:
    """The options of the command line, which are compared with others; none if the file is missing.

    Raises:
        DamagedFileError: for a file that is not yaml.
    """
    path = folder / OVERRIDES
    content = read_yaml(path) if path.is_file() else []
    return [str(option) for option in content] if isinstance(content, list) else []
