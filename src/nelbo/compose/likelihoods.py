"""Likelihoods of an evaluation besides the bound."""

from hydra.utils import instantiate
from omegaconf import DictConfig

from nelbo.compose.build import build_supplied
from nelbo.data import DataSpec
from nelbo.diffusion.likelihood import Divergence, ExactDivergence, HutchinsonDivergence
from nelbo.evaluation.likelihoods import Likelihood

EXACT_UP_TO = 16  # dimensions, where divergence=null


def build_likelihoods(config: DictConfig, spec: DataSpec) -> dict[str, Likelihood]:
    """The likelihoods that the command chooses, by name; none for ``likelihood=bound``.

    Args:
        config: of the evaluation.
        spec: of the data.

    Raises:
        ValueError: for options that cannot work.
    """
    offered = {
        "solver": lambda: instantiate(config.solver),
        "divergence": lambda: _divergence(config, spec),
        "dequantization": lambda: (
            build_supplied(config.dequantization, {"levels": lambda: spec.levels})
            if config.get("dequantization")
            else None
        ),
    }
    nodes = config.get("likelihood") or {}
    return {str(name): build_supplied(node, offered) for name, node in nodes.items() if node is not None}


def _divergence(config: DictConfig, spec: DataSpec) -> Divergence:
    if config.get("divergence"):
        return instantiate(config.divergence)
    return ExactDivergence() if spec.dims <= EXACT_UP_TO else HutchinsonDivergence()
