"""Configurations that came with a model from elsewhere.

A configuration names classes that are then called, and a name can be that of any function of any package. So
one that came from elsewhere may only name classes of this program, and of the libraries it is built on. Of
functions, which may do anything when they are called, it may name those of ``nelbo.training`` alone: learning
rates are functions there.
"""

import importlib
from typing import Any

CLASSES = ("nelbo.", "torch.optim.", "lightning.")
FUNCTIONS = ("nelbo.training.",)


def refuse_strangers(config: Any) -> None:
    """Check every ``_target_`` of a configuration.

    Raises:
        ValueError: naming the first that it may not name.
    """
    if isinstance(config, dict):
        if "_target_" in config and not _is_trusted(config["_target_"]):
            raise ValueError(f"its configuration would call {config['_target_']}, and is not used")
        for value in config.values():
            refuse_strangers(value)
    elif isinstance(config, list):
        for value in config:
            refuse_strangers(value)


def _is_trusted(target: Any) -> bool:
    """Whether it is the name of something that is defined there, and not only imported."""
    if not isinstance(target, str) or not target.startswith(CLASSES):
        return False
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return getattr(found, "__module__", "").startswith(CLASSES if isinstance(found, type) else FUNCTIONS)
