"""Paths and references to other options in the stored configuration of a run that is resumed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nelbo.compose.stored_config import NAMED, WANDB_LOGGER, Components, Place, excerpt, walk

# Arguments of loggers that are never used as paths
FREE_TEXT = {
    WANDB_LOGGER: ("project", "name", "group", "entity", "tags"),
    "nelbo.training.loggers.mlflow.MLflow": ("experiment_name", "run_name"),
}
# Arguments that are paths or addresses
OUTPUTS = {
    "run_dir",
    "folder",
    "cache",
    "save_dir",
    "default_root_dir",
    "dirpath",
    "log_dir",
    "sub_dir",
    "tracking_uri",
    "artifact_location",
    "space_id",
    "server_url",
}
OTHER_PLACE = re.compile(r"[/\\$~]|^\.\.$")
REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # to another option; a resolver has a colon in it


def check_outputs(config: Mapping[str, Any], composed: Mapping[str, Any], source: Path | str) -> None:
    """Check that the callbacks and loggers of a stored configuration write into the folder of the run.

    What could name another place must be the value of this command or of a yaml file, such as
    ``${run_dir}/checkpoints``.

    Args:
        config: plain values, with the options of this command.
        composed: what this command composes without the stored configuration.
        source: the file, for messages.

    Raises:
        ValueError: naming the option.
    """
    components = Components.known()
    for path, node in walk({name: config.get(name) for name in NAMED}, source):
        for name, value in node.items() if isinstance(node, dict) and "_target_" in node else ():
            if name == "_target_" or not could_leave_folder(name, value, node["_target_"]):
                continue
            written = [
                linked_value(known.get(name), config) for known in components.at(path, node["_target_"])
            ]
            if value not in (*written, _entry(composed, (*path, name))):
                where = excerpt(".".join((*path, name)))
                raise ValueError(
                    f"{source}: {where}={excerpt(value)} could name a place outside of the folder, and is "
                    f"refused; to use it, add {where}=... to this command"
                )


def could_leave_folder(name: str, value: Any, target: str) -> bool:
    """Whether an argument of a callback or logger could name a file outside of the run's folder."""
    if value is None or name in FREE_TEXT.get(target, ()):
        return False
    texts = (text for _, text in walk({name: value}, "") if isinstance(text, str))
    return name in OUTPUTS or any(map(OTHER_PLACE.search, texts))


def links(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Options of a validated configuration that follow others by the yaml file of their component.

    ``lr_schedule.total_steps`` follows ``trainer.max_steps`` unless the run set it to something else. What
    depends on the folder of the run always follows it.

    Returns:
        The path of each option, and the text that :func:`linked_value` resolves.
    """
    found = []
    components = Components.known()
    for path, node in walk(config, "configuration"):
        for written in components.at(path, node.get("_target_")) if isinstance(node, dict) else ():
            for key, text in written.items():
                if not isinstance(text, str) or not REFERENCE.search(text) or "${" in REFERENCE.sub("", text):
                    continue
                follows = "${run_dir}" in text or node.get(key) == linked_value(text, config)
                if key in node and follows:
                    found.append((".".join((*path, key)), text))
    return found


def linked_value(text: Any, config: Mapping[str, Any]) -> Any:
    """A value of a yaml file, with its references to other options replaced by their values."""
    if not isinstance(text, str) or "${" in REFERENCE.sub("", text):
        return text
    options = OmegaConf.create(dict(config))
    whole = REFERENCE.fullmatch(text)
    if whole is not None:
        return OmegaConf.select(options, whole[1])
    return REFERENCE.sub(lambda found: str(OmegaConf.select(options, found[1])), text)


def _entry(config: Any, path: Place) -> Any:
    """The value at a path of nested mappings; None where there is none."""
    for name in path:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config
