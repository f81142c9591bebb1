"""Checks before the first step and after the last: of the network's output, and of the bound."""

import math
from collections.abc import Mapping

import torch

from nelbo.data import DataSpec
from nelbo.diffusion.denoiser import output_channels
from nelbo.evaluation.units import Unit
from nelbo.training.errors import NonFiniteLossError
from nelbo.training.module import DiffusionModule


def check_network(module: DiffusionModule, spec: DataSpec) -> None:
    """Evaluate the network once, on two examples of zeros, before anything is trained.

    Raises:
        ValueError: for a network that fails, or whose output has another shape than it should.
    """
    denoiser, network = module.denoiser, module.denoiser.network
    channels = output_channels(denoiser.parameterization, denoiser.variance, spec.shape[0])
    expected = (2, channels, *spec.shape[1:])
    cond = spec.example_cond(2) if module.conditional else None
    name = f"model._target_={type(network).__module__}.{type(network).__qualname__}"
    network.eval()
    try:
        with torch.no_grad():
            # forward, because a call would compile the network where compile=true
            output = network.forward(torch.zeros(2, *spec.shape), torch.full((2,), 500.0), cond)
    except Exception as error:  # a network may raise anything
        raise ValueError(
            f"{name}: the network fails on examples of shape {spec.shape} ({type(error).__name__}: {error})"
        ) from error
    finally:
        network.train()
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != expected:
        raise ValueError(
            f"{name}: the network returns {found} for two examples of shape {spec.shape}; expected "
            f"{expected}, where the second number is the argument out_channels"
        )


def check_bound_is_finite(metrics: Mapping[str, float], unit: Unit) -> None:
    """Check that no bound is NaN or infinite.

    Raises:
        NonFiniteLossError: naming the metric.
    """
    for split in ("val", "test"):
        for part in (unit.metric, "L_0", "L_t", "L_T"):
            value = metrics.get(f"{split}/{part}", 0.0)
            if not math.isfinite(value):
                raise NonFiniteLossError(
                    f"{split}/{part} is {value}: the model has diverged; try a lower optimizer.lr or "
                    "trainer.gradient_clip_val"
                )
