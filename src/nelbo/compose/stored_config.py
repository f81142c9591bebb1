"""Configurations that are stored in files: plain data until they are validated.

A configuration names components, which are called when a model or a run is built from it. The file that it
is stored in may come from anyone. So a stored configuration is never interpolated, and every component in it
must be one that the user's own configuration folders name at the same place, such as a schedule of
``conf/schedule/``. Any other needs the option ``trust=`` on the command line.
"""

import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from nelbo.atomic_file import read_yaml
from nelbo.compose.config import CONFIG_DIR, config_files, folder_of
from nelbo.text import printable

# Where components of a group are, if not at its name. Groups without a place configure Hydra or a command.
PLACES = {"estimator": ("val_estimator", "test_estimator"), "hydra": (), "format": ()}
GLOBAL = re.compile(r"^#\s*@package\s+_global_\s*$", re.MULTILINE)
NAMED = ("callbacks", "logger")  # their entries have names of the user's choice
# The parts of a configuration that a model is built from; the rest describes the run that trained it
MODEL = frozenset(
    {
        "schedule",
        "parameterization",
        "c_noise",
        "variance",
        "decoder",
        "loss",
        "timesteps",
        "model",
        "data",
        "optimizer",
        "lr_schedule",
        "val_estimator",
        "test_estimator",
    }
)
# Arguments that name code, or a file with code in it
CODE_ARGUMENTS = {"nelbo.evaluation.sample_metrics.features.torch_module.TorchModule": ("path",)}
WANDB_LOGGER = "nelbo.training.loggers.wandb_run.wandb_logger"
SPECIAL_KEYS = {"_target_", "_args_", "_partial_", "_recursive_", "_convert_", "_mode_"}
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_SHOWN = 200  # characters of a file in an error message

Place = tuple[str, ...]


@dataclass(frozen=True)
class Components:
    """What the user's configuration folders name.

    Attributes:
        nodes: by place and target, the nodes of yaml files that name this target at this place.
    """

    nodes: Mapping[tuple[Place, str], list[dict[str, Any]]]

    @classmethod
    def known(cls) -> "Components":
        """The components of nelbo, and those of other folders on the search path of the running command."""
        folders = [CONFIG_DIR]
        if HydraConfig.initialized():
            sources = HydraConfig.get().runtime.config_sources
            folders += [
                folder_of(f"{source.schema}://{source.path}")
                for source in sources
                if source.schema in ("file", "pkg") and not source.path.startswith("hydra.")
            ]
        nodes: dict[tuple[Place, str], list[dict[str, Any]]] = {}
        for folder in dict.fromkeys(folders):
            for place, node in nodes_of_folder(folder):
                nodes.setdefault((place, str(node["_target_"])), []).append(node)
        return cls(nodes)

    def at(self, path: Place, target: Any) -> list[dict[str, Any]]:
        """The nodes of yaml files with this target at this place; none for a target that is not known."""
        return self.nodes.get((_place(path), target), []) if isinstance(target, str) else []


def validate_stored(
    config: object, source: Path | str, trust: str | Sequence[str] | None, model_only: bool = False
) -> dict[str, Any]:
    """Validate a configuration from a file. Nothing of it is imported, interpolated or called.

    Args:
        config: as it was read.
        source: the file, for messages.
        trust: targets, or packages of them, that the user trusts besides the known components.
        model_only: validate components of the parts that a model is built from. The caller must build nothing
            else.

    Returns:
        The same configuration.

    Raises:
        ValueError: naming the file and what is refused: an interpolation, a component that is not known, a
            value that is not plain, or too many of them.
    """
    if not isinstance(config, dict):
        raise ValueError(f"{source}: its configuration is not a mapping of names to options")
    components = Components.known()
    trusted = [trust] if isinstance(trust, str) else list(trust or ())
    for count, (path, value) in enumerate(walk(config, source)):
        where = ".".join(path)
        if count > MAX_VALUES:
            raise ValueError(f"{source}: its configuration has more than {MAX_VALUES} values")
        _check_not_interpolated(path, value, source)
        if isinstance(value, dict) and ((path[:1] and path[0] in MODEL) or not model_only):
            _validate_component(path, value, source, components, trusted)
        elif not isinstance(value, dict | list | str | int | float | None):
            kind = type(value).__name__
            raise ValueError(f"{source}: {excerpt(where)} is a {kind}, which is not a plain value")
    return config


def check_values(values: Mapping[str, Any], source: Path | str) -> None:
    """Check values from a file that become arguments of known components.

    Args:
        values: the values. An entry may be a component that its reader chose.
        source: the file, for messages.

    Raises:
        ValueError: naming an interpolation, or a special key of Hydra inside an entry.
    """
    for path, value in walk(values, source):
        _check_not_interpolated(path, value, source)
        if len(path) > 1 and path[-1] in SPECIAL_KEYS and path[1:] != ("_target_",):
            raise ValueError(f"{source}: {excerpt('.'.join(path))} names a component, which is refused")


def plain_config(values: Mapping[str, Any], source: Path | str) -> DictConfig:
    """A configuration of plain values. Objects are built from foreign values only after this check.

    Args:
        values: all that the configuration consists of, after the last value was put into it.
        source: the file that values come from, for messages.

    Raises:
        ValueError: naming a value that OmegaConf would interpolate.
    """
    for path, value in walk(values, source):
        _check_not_interpolated(path, value, source)
    return OmegaConf.create(dict(values))


def _validate_component(
    path: Place, node: dict[Any, Any], source: Path | str, components: Components, trusted: Sequence[str]
) -> None:
    """Validate the special keys of a node, and the arguments of it that name code.

    Raises:
        ValueError: naming the node.
    """
    special = {key: value for key, value in node.items() if str(key).startswith("_")}
    if not special:
        return
    target, where = node.get("_target_"), ".".join(path)
    if isinstance(target, str) and _is_trusted(target, trusted):
        return
    written = components.at(path, target)
    if not written:
        named = (
            f"{where}._target_={target}" if "_target_" in special else f"{where}: {min(map(str, special))}"
        )
        raise ValueError(
            f"{source}: {excerpt(named)} is not a component of conf/, and is refused{_advice(target)}"
        )
    if not any(special.items() <= known.items() for known in written):
        other = next(key for key in sorted(map(str, special)) if key != "_target_")
        raise ValueError(
            f"{source}: {excerpt(where)}.{excerpt(other)} is refused; its yaml file does not set it so"
        )
    for name in CODE_ARGUMENTS.get(str(target), ()):
        code = node.get(name)
        if code is not None and not (isinstance(code, str) and _is_trusted(code, trusted)):
            raise ValueError(
                f"{source}: {where}.{name}={excerpt(code)} names code, and is refused{_advice(code)}"
            )


def excerpt(text: object) -> str:
    """A text from a file as part of an error message: one line of limited length, without control codes."""
    shown = printable(text)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."


def _check_not_interpolated(path: Place, value: Any, source: Path | str) -> None:
    where = ".".join(path)
    if "${" in where or (isinstance(value, str) and "${" in value):
        raise ValueError(f"{source}: {excerpt(where)} is an interpolation, which is refused")


def _is_trusted(name: str, trusted: Sequence[str]) -> bool:
    """Whether the user trusts the class or function of this name: by its name, or by its package.

    A package is trusted with what it defines, and not with what it imports from others.
    """
    if name in trusted:
        return True
    packages = [entry for entry in trusted if name.startswith(f"{entry}.")]
    if not packages:
        return False
    try:
        defined_in = str(getattr(pkgutil.resolve_name(name), "__module__", None))
    except Exception as error:  # the import of a module may raise anything
        raise ValueError(f"{name} cannot be imported ({type(error).__name__}: {error})") from error
    return any(f"{defined_in}.".startswith(f"{package}.") for package in packages)


def _advice(name: object) -> str:
    is_plain = isinstance(name, str) and re.fullmatch(r"[\w./-]+", name)
    if not is_plain or str(name).partition(".")[0] in sys.stdlib_module_names:
        return ""
    return f"; if you trust this code, add the --config-dir of its project, or trust={name}"


def walk(config: Mapping[Any, Any], source: Path | str) -> Iterator[tuple[Place, Any]]:
    """All values of a configuration with their paths, the configuration itself first.

    Raises:
        ValueError: for one that is nested too deeply.
    """
    waiting: list[tuple[Place, Any]] = [((), config)]
    while waiting:
        path, value = waiting.pop()
        if len(path) > MAX_DEPTH:
            raise ValueError(f"{source}: its configuration is nested more than {MAX_DEPTH} deep")
        yield path, value
        if isinstance(value, dict):
            waiting += [((*path, str(key)), entry) for key, entry in value.items()]
        elif isinstance(value, list):
            waiting += [((*path, str(index)), entry) for index, entry in enumerate(value)]


@cache
def nodes_of_folder(folder: Path) -> list[tuple[Place, dict[str, Any]]]:
    """The nodes with a target in its yaml files, which do not change while a process runs."""
    return [found for path in config_files(folder) for found in _nodes_of_file(path, folder)]


def _nodes_of_file(path: Path, folder: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The nodes with a target in a yaml file of the user's, each with its place in a configuration."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        return
    group, *_ = path.relative_to(folder).parts
    is_global = path.parent == folder or group == "experiment" or GLOBAL.search(path.read_text("utf-8"))
    starts: list[Place] = [()] if is_global else [(place,) for place in PLACES.get(group, (group,))]
    for start in starts:
        for inside, node in walk(content, path):
            if isinstance(node, dict) and "_target_" in node:
                yield _place((*start, *inside)), node


def _place(path: Place) -> Place:
    """A path without the names of callbacks and loggers."""
    return (path[0], "*", *path[2:]) if path[:1] and path[0] in NAMED and len(path) > 1 else path
