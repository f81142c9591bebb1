"""The user's own project: its configuration folders, and the folders that its classes are imported from.

``--config-dir FOLDER`` and ``hydra.searchpath=[file://FOLDER]`` add choices to those of nelbo. With
``--config-path FOLDER`` a ``train.yaml`` in it takes precedence, too. All become one ``hydra.searchpath``.
Hydra stores it, so that ranks and the jobs of a sweep have the same folders.
"""

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from nelbo.cli.overrides import option_name, quoted, split_command_line
from nelbo.compose.config import (
    CONFIG_DIR,
    SEARCH_PATH,
    config_files,
    current_options,
    folder_of,
    search_path_option,
)

FOLDER_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")
NAMES_CODE = ("trust", "_target_", "features.path")  # names or ends of names of options


@dataclass(frozen=True)
class Project:
    """What a command line says about the user's own project.

    Attributes:
        arguments: the command line with absolute folders, all of them in ``hydra.searchpath``.
        main: the folder whose ``train.yaml`` is composed: that of ``--config-path``, else that of nelbo.
        typed: the flags and options that name folders, as they were typed.
        import_from: folders with classes of the project; none if the command line names no code.
    """

    arguments: list[str]
    main: str
    typed: str
    import_from: list[str]


def read_project(arguments: Sequence[str], config_name: str) -> Project:
    """Read and check the folders that a command line names. Their classes become importable.

    Args:
        arguments: a command line.
        config_name: of the command.

    Raises:
        ValueError: for a folder that is missing, a file in it with the name of one of nelbo's, or another
            ``--config-name``.
    """
    parsed = get_args_parser().parse_intermixed_args(arguments)
    if parsed.config_name not in (None, config_name):
        raise ValueError(
            f"--config-name={parsed.config_name}: this command composes {config_name}.yaml; name your own "
            f"configuration conf/experiment/{parsed.config_name}.yaml and choose it by experiment="
        )
    flags, options = split_command_line(arguments)
    given = search_path_option(options)
    typed = [f"--config-dir {shlex.quote(parsed.config_dir)}"] if parsed.config_dir else []
    typed += [f"--config-path {shlex.quote(parsed.config_path)}"] if parsed.config_path else []
    typed += map(shlex.quote, given)
    import_from = []
    if typed or any(map(_names_code, options)):
        import_from.append(str(Path.cwd()))
    make_importable(import_from)  # where packages of pkg:// may be
    entries = [
        *([_located(parsed.config_dir, "--config-dir")] if parsed.config_dir else []),
        *(_located(entry, SEARCH_PATH) for option in given for entry in _entries(option)),
    ]
    main = None
    if parsed.config_path:
        entries.insert(0, _located(parsed.config_path, "--config-path"))
        if (folder_of(entries[0]) / f"{config_name}.yaml").is_file():
            main = entries[0]
    for entry in entries:
        folder = folder_of(entry)
        if folder.resolve() != CONFIG_DIR.resolve():
            _check_no_shadows(folder, with_commands=entry != main)
            import_from += [str(folder.parent)] if entry.startswith("file://") else []
    make_importable(import_from)
    flags = list(_without_folders(flags))
    if main is not None:
        main = main.removeprefix("file://")
        flags.append(f"--config-path={main}")
        entries = [*entries[1:], f"file://{CONFIG_DIR}"]
    options = [option for option in options if option not in given]
    if entries:
        options.append(f"{SEARCH_PATH}=[{','.join(map(quoted, dict.fromkeys(entries)))}]")
    return Project([*flags, *options], main or str(CONFIG_DIR), " ".join(typed), import_from)


def make_importable(folders: Iterable[str]) -> None:
    """Let Python import from these folders, after all others: they cannot replace an installed package."""
    sys.path.extend(folder for folder in dict.fromkeys(folders) if folder not in sys.path)


def searched_folders(arguments: Sequence[str] | None = None) -> list[Path]:
    """The configuration folders of a command: nelbo's, and those of the user's project.

    Args:
        arguments: as :func:`read_project` returns them; by default those of the running command or job.
    """
    if arguments is None:
        arguments = current_options()
    entries = [entry for option in search_path_option(arguments) for entry in _entries(option)]
    entries += [f"file://{flag.partition('=')[2]}" for flag in arguments if flag.startswith("--config-path=")]
    return list(dict.fromkeys([CONFIG_DIR, *map(folder_of, entries)]))


def _names_code(option: str) -> bool:
    name = option_name(option)
    return name in NAMES_CODE or name.rpartition(".")[2] in NAMES_CODE


def _located(folder: str, named_by: str) -> str:
    """An entry of the search path with an absolute folder.

    Raises:
        ValueError: for a folder that is missing.
    """
    if folder.startswith("pkg://"):
        path = folder_of(folder)
    else:
        path = Path(folder.removeprefix("file://")).expanduser().absolute()
        folder = f"file://{path}"
    if not path.is_dir():
        raise ValueError(f"{named_by}: there is no folder {path}")
    return folder


def _entries(option: str) -> list[str]:
    value = OverridesParser.create().parse_override(option).value()
    return [str(entry) for entry in value] if isinstance(value, list) else []


def _without_folders(flags: Sequence[str]) -> Iterable[str]:
    words = iter(flags)
    for word in words:
        if word in FOLDER_FLAGS:
            next(words)
        elif not word.startswith(tuple(f"{flag}=" for flag in FOLDER_FLAGS)):
            yield word


def _check_no_shadows(folder: Path, with_commands: bool) -> None:
    """Check that no file of a folder has the name of a choice of nelbo, which of the two would not be used.

    Args:
        folder: of the user's project.
        with_commands: check ``train.yaml``, ``evaluate.yaml`` and ``sample.yaml``, too.

    Raises:
        ValueError: naming the file.
    """
    for path in config_files(folder):
        place = path.relative_to(folder)
        if (CONFIG_DIR / place).is_file() and (with_commands or len(place.parts) > 1):
            choice = f"{place.parent}={place.stem}" if len(place.parts) > 1 else str(place)
            raise ValueError(f"{path}: nelbo has {choice}, so this file would hide it: give it another name")
