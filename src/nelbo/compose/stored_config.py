"""Configurations that are stored in files: plain data until they are validated.

A configuration names components, which are called when a model or a run is built from it. The file that it
is stored in may come from anyone. So a stored configuration is never interpolated, and every component in it
must be one that the user's own configuration folders name at the same place, such as a schedule of
``conf/schedule/``. Any other needs the option ``trust=`` on the command line.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from nelbo.atomic_file import read_yaml
from nelbo.text import printable

CONFIG_DIR = Path(__file__).parents[3] / "conf"
# The places of a group where they are not its name. A group without a place configures Hydra or a command,
# and no run.
PLACES = {"estimator": ("val_estimator", "test_estimator"), "hydra": (), "format": ()}
GLOBAL = re.compile(r"^#\s*@package\s+_global_\s*$", re.MULTILINE)
NAMED = ("callbacks", "logger")  # their entries have names of the user's choice
# The parts of a configuration that a model is built from; the rest describes the run that trained it
MODEL = frozenset(
    {
        "schedule",
        "parameterization",
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
# Components of earlier versions that have another name now
RENAMED = {
    "nelbo.dashboard.wandb_run.wandb_logger": "nelbo.training.loggers.wandb_run.wandb_logger",
    "nelbo.evaluation.estimators.full.Full": "nelbo.evaluation.estimators.full.FullEstimator",
    "nelbo.evaluation.estimators.importance.Importance": (
        "nelbo.evaluation.estimators.importance.ImportanceEstimator"
    ),
    "nelbo.evaluation.estimators.stratified.Stratified": (
        "nelbo.evaluation.estimators.stratified.StratifiedEstimator"
    ),
    "nelbo.training.callbacks.Unreadable": "nelbo.training.callbacks.CorruptImages",
}
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_SHOWN = 200  # characters of a file in an error message
REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # to another option; a resolver has a colon in it

Place = tuple[str, ...]


class InterpolationError(ValueError):
    """A stored configuration with an interpolation, as runs of earlier versions have."""


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
            folders += [Path(source.path) for source in sources if source.schema == "file"]
        nodes: dict[tuple[Place, str], list[dict[str, Any]]] = {}
        for folder in dict.fromkeys(folders):
            for path in sorted(folder.rglob("*.yaml")):
                for place, node in _nodes_of_file(path, folder):
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
        The same configuration, with the current names of components.

    Raises:
        ValueError: naming the file and what is refused: an interpolation, a component that is not known, a
            value that is not plain, or too many of them.
    """
    if not isinstance(config, dict):
        raise ValueError(f"{source}: its configuration is not a mapping of names to options")
    components = Components.known()
    trusted = [trust] if isinstance(trust, str) else list(trust or ())
    for count, (path, value) in enumerate(_walk(config, source)):
        where = ".".join(path)
        if count > MAX_VALUES:
            raise ValueError(f"{source}: its configuration has more than {MAX_VALUES} values")
        if "${" in where or (isinstance(value, str) and "${" in value):
            raise InterpolationError(f"{source}: {excerpt(where)} is an interpolation, which is refused")
        if isinstance(value, dict) and isinstance(value.get("_target_"), str):
            value["_target_"] = RENAMED.get(value["_target_"], value["_target_"])
        if isinstance(value, dict) and ((path[:1] and path[0] in MODEL) or not model_only):
            _validate_component(path, value, source, components, trusted)
        elif not isinstance(value, dict | list | str | int | float | None):
            kind = type(value).__name__
            raise ValueError(f"{source}: {excerpt(where)} is a {kind}, which is not a plain value")
    return config


def links(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Options of a validated configuration that follow others by the yaml file of their component.

    ``lr_schedule.total_steps`` follows ``trainer.max_steps`` unless the run set it to something else. What
    depends on the folder of the run always follows it.

    Returns:
        The path of each option, and the text that :func:`linked_value` resolves.
    """
    found = []
    components = Components.known()
    for path, node in _walk(config, "configuration"):
        for written in components.at(path, node.get("_target_")) if isinstance(node, dict) else ():
            for key, text in written.items():
                if not isinstance(text, str) or "${" not in text or "${" in REFERENCE.sub("", text):
                    continue
                follows = "${run_dir}" in text or node.get(key) == linked_value(text, config)
                if key in node and follows:
                    found.append((".".join((*path, key)), text))
    return found


def linked_value(text: str, config: Mapping[str, Any]) -> Any:
    """A text of a yaml file with its references to other options replaced by their values."""
    options = OmegaConf.create(dict(config))
    whole = REFERENCE.fullmatch(text)
    if whole is not None:
        return OmegaConf.select(options, whole[1])
    return REFERENCE.sub(lambda found: str(OmegaConf.select(options, found[1])), text)


def to_plain(config: DictConfig) -> dict[str, Any]:
    """The values of a configuration, with all interpolations resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _validate_component(
    path: Place, node: dict[Any, Any], source: Path | str, components: Components, trusted: Sequence[str]
) -> None:
    """Validate the special keys of a node, and the arguments of it that name code.

    Raises:
        ValueError: naming what is refused.
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


def _is_trusted(name: str, trusted: Sequence[str]) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in trusted)


def _advice(name: object) -> str:
    is_plain = isinstance(name, str) and re.fullmatch(r"[\w./-]+", name)
    return f"; if you trust this code, add trust={name}" if is_plain else ""


def _walk(config: Mapping[Any, Any], source: Path | str) -> Iterator[tuple[Place, Any]]:
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


def _nodes_of_file(path: Path, folder: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The nodes with a target in a yaml file of the user's, each with its place in a configuration."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        return
    group, *_ = path.relative_to(folder).parts
    is_global = path.parent == folder or group == "experiment" or GLOBAL.search(path.read_text("utf-8"))
    starts: list[Place] = [()] if is_global else [(place,) for place in PLACES.get(group, (group,))]
    for start in starts:
        for inside, node in _walk(content, path):
            if isinstance(node, dict) and "_target_" in node:
                yield _place((*start, *inside)), node


def _place(path: Place) -> Place:
    """A path without the names of callbacks and loggers."""
    return (path[0], "*", *path[2:]) if path[:1] and path[0] in NAMED and len(path) > 1 else path
