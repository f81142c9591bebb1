"""Checkpoints of ``train.py``: averaged and raw weights, and the configuration of the run."""

from pathlib import Path

from torch import Tensor

from nelbo.interop.formats.base import CheckpointFormat, Weights
from nelbo.interop.state_dict import format_list, is_state_dict, looks_like

# with EMA, Lightning stores the average in state_dict and the raw weights in current_model_state
STATE = "state_dict"
RAW_STATE = "current_model_state"
NETWORK = "denoiser.network."
SCHEDULE = "schedule."  # of a learned one
LOSS = "loss."  # of a learned one; used in training alone


class NelboFormat(CheckpointFormat):
    """A checkpoint of ``train.py``."""

    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """The averaged or the raw weights; a run without EMA has only raw weights."""
        if not isinstance(content, dict) or "nelbo" not in content:
            raise ValueError(f"{path} is not a checkpoint of nelbo; it looks like {looks_like(content)}")
        averaged = RAW_STATE in content
        if weights == "ema" and not averaged:
            raise ValueError(f"{path} has no averaged weights (callbacks.ema=null): use weights=raw")
        state = content.get(RAW_STATE if averaged and weights == "raw" else STATE)
        config = content["nelbo"].get("config") if isinstance(content["nelbo"], dict) else None
        if not is_state_dict(state) or not isinstance(config, dict):
            raise ValueError(
                f"{path} is not a complete checkpoint of nelbo: it lacks weights or configuration"
            )
        unexpected = [name for name in state if not name.startswith((NETWORK, SCHEDULE, LOSS))]
        if unexpected:
            raise ValueError(f"{path} has weights that are not of the network: {format_list(unexpected)}")
        return Weights(
            network=below(NETWORK, state),
            schedule=below(SCHEDULE, state),
            config=config,
            kind=weights,
            step=content.get("global_step"),
            data=content["nelbo"].get("data"),
        )


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
