"""Create a project that depends on nelbo: a schedule, a network, a data set, an experiment and a test."""

import shlex
import sys
from argparse import ArgumentParser, Namespace
from importlib.resources import files
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path

TEMPLATE = Path(str(files("nelbo") / "project_template"))
TEMPLATE_NAME = "my_project"  # of the package in the template


def add_arguments(parser: ArgumentParser) -> None:
    """Define the arguments of ``nelbo new``."""
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="new, or empty; its name is that of the Python package"
    )


def run(arguments: Namespace) -> None:
    """Write the project and print the first commands.

    Raises:
        ValueError: for a name that no package can have, or that another package has, or a folder with files.
    """
    folder: Path = arguments.folder.expanduser()
    name = folder.absolute().name
    if not name.isidentifier() or not name.isascii() or iskeyword(name):
        raise ValueError(
            f"{name}: the name of a Python package has letters, digits and _ only, and is no keyword"
        )
    found = find_spec(name)
    if name in sys.stdlib_module_names or (found is not None and found.origin is not None):
        raise ValueError(f"{name}: there is a Python package of this name: choose another one")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: choose a new folder")
    for source in sorted(TEMPLATE.rglob("*")):
        folders = source.relative_to(TEMPLATE).parts[:-1]
        if source.is_dir() or any(name.startswith((".", "__pycache__")) for name in folders):
            continue  # caches of Python and of linters
        path = folder / str(source.relative_to(TEMPLATE)).replace(TEMPLATE_NAME, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.read_text("utf-8").replace(TEMPLATE_NAME, name), encoding="utf-8")
    train = f"cd {shlex.quote(str(folder))} && nelbo train --config-dir conf experiment=stripes"
    print(f"wrote {folder}; train with: {train}")
