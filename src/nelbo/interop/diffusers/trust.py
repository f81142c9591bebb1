"""Configurations that came with a model from elsewhere.

A configuration names classes that are then called, and a name can be that of any function of any package. So
of one from elsewhere only the nodes that make up a model are taken, and each may name a component of its own
kind alone, with plain values for arguments: a schedule is one of our schedules, and nothing in it is called.
"""

import importlib
from typing import Any

# where the component of a node is defined, and not only imported
HOMES = {
    "schedule": "nelbo.diffusion.schedules.",
    "parameterization": "nelbo.diffusion.parameterizations.",
    "variance": "nelbo.diffusion.variances.",
    "decoder": "nelbo.diffusion.decoders.",
    "loss": "nelbo.diffusion.losses.",
    "timesteps": "nelbo.diffusion.timesteps.",
    "model": "nelbo.models.",
    "data": "nelbo.data.",
    "optimizer": "torch.optim.",
    "lr_schedule": "nelbo.training.lr_schedule",
    "val_estimator": "nelbo.evaluation.estimators.",
    "test_estimator": "nelbo.evaluation.estimators.",
}


def only_trusted(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that makes up a model: its components, and plain values.

    Raises:
        ValueError: naming what a component would call and may not.
    """
    kept = {}
    for name, node in config.items():
        home = HOMES.get(name)
        if home is not None:
            _refuse_strangers(node, home)
        elif _targets(node):
            continue  # of the run, not of the model
        kept[name] = node
    return kept


def _refuse_strangers(node: Any, home: str) -> None:
    own = node.get("_target_") if isinstance(node, dict) else None
    inside = _targets(list(node.values()) if isinstance(node, dict) else node)
    strangers = inside if own is None or _is_defined_in(own, home) else [own, *inside]
    if strangers:
        raise ValueError(f"its configuration would call {strangers[0]}, and is not used")


def _targets(node: Any) -> list[Any]:
    """Everything that instantiating a node would call."""
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + _targets(list(node.values()))
    return [target for value in node for target in _targets(value)] if isinstance(node, list) else []


def _is_defined_in(target: Any, home: str) -> bool:
    if not isinstance(target, str) or not target.startswith(home):
        return False
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return callable(found) and getattr(found, "__module__", "").startswith(home)
