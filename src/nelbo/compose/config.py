"""The folder of configurations, and configurations as plain data."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

CONFIG_DIR = Path(str(files("nelbo") / "conf"))


def to_plain(config: Any, resolve: bool = True) -> dict[str, Any]:
    """The values of a configuration as plain data, by default with all interpolations resolved."""
    container = OmegaConf.to_container(config, resolve=resolve, enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
