"""From a checkpoint back to a model."""

import pickle
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from nelbo.app.build import build_module
from nelbo.data import DataSpec
from nelbo.training.module import DiffusionModule

WEIGHTS = {"ema": "state_dict", "raw": "current_model_state"}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of nelbo; tensors and plain values only, never code.

    Raises:
        ValueError: when the file is missing, damaged, holds code, or is another project's.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not a checkpoint, or one with code in it, and is not loaded") from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: is it whole?") from error
    if not isinstance(checkpoint, dict) or "nelbo" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of nelbo")
    return checkpoint


def config_of(checkpoint: dict[str, Any]) -> DictConfig:
    """The configuration that the model was trained with."""
    config = OmegaConf.create(checkpoint["nelbo"]["config"])
    assert isinstance(config, DictConfig)
    return config


def restore_module(
    checkpoint: dict[str, Any], config: DictConfig, spec: DataSpec, weights: str, path: Path
) -> DiffusionModule:
    """Build the model of a configuration and load its weights.

    Args:
        checkpoint: as read.
        config: of the model.
        spec: of the data it is for.
        weights: ``ema`` or ``raw``.
        path: of the checkpoint, for messages.

    Raises:
        ValueError: for unknown ``weights``, or weights that do not fit the model.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights={weights}: expected one of {', '.join(WEIGHTS)}")
    state = checkpoint.get(WEIGHTS[weights], checkpoint["state_dict"])  # a run without EMA has one set
    module = build_module(config, spec)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise ValueError(
            f"the weights in {path} do not fit the model of its configuration: {reason}"
        ) from error
    return module.eval()
