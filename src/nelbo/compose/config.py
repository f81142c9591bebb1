"""The folder of configurations, and configurations as plain data."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

CONFIG_DIR = Path(str(files("nelbo") / "conf"))
SEARCH_PATH = "hydra.searchpath"


def to_plain(config: Any, resolve: bool = True) -> dict[str, Any]:
    """The values of a configuration as plain data, by default with all interpolations resolved."""
    container = OmegaConf.to_container(config, resolve=resolve, enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def config_groups() -> set[str]:
    """The groups of nelbo: what can be chosen."""
    return {path.name for path in CONFIG_DIR.iterdir() if path.is_dir()}


def config_files(folder: Path) -> list[Path]:
    """The yaml files of a configuration folder that can be chosen: at its top, and in the groups of nelbo.

    Others may be anything: a ``--config-dir`` is often the folder of a whole project.
    """
    chosen = [path for group in config_groups() for path in (folder / group).rglob("*.yaml")]
    return sorted([*folder.glob("*.yaml"), *chosen])


def folder_of(entry: str) -> Path:
    """The folder of an entry of the search path: ``file://FOLDER`` or ``pkg://package.module``.

    Raises:
        ValueError: for a package that cannot be found.
    """
    scheme, separator, name = entry.partition("://")
    if scheme == "pkg":
        package = name.replace("/", ".")
        try:
            found = find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ValueError(f"{entry}: there is no Python package {package}")
        return Path(str(files(package)))
    return Path(name if separator else entry)


@contextmanager
def nested_composition() -> Iterator[None]:
    """``hydra.compose`` reads ``conf/``, also inside of a running Hydra application."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running


def search_path_option(arguments: Sequence[str] | None = None) -> list[str]:
    """The option ``hydra.searchpath`` of a command, for another composition in it; empty without one.

    Args:
        arguments: of the command; by default those of the running command or job.
    """
    given = current_options() if arguments is None else arguments
    return [option for option in given if option.partition("=")[0].lstrip("+") == SEARCH_PATH]


def current_options() -> list[str]:
    """The options of the running command or job."""
    if HydraConfig.initialized():  # a job of a sweep may be in another process
        overrides = HydraConfig.get().overrides
        return [*overrides.task, *overrides.hydra]
    return sys.argv[1:]
