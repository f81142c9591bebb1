"""Parameterizations: one meaning of the network's output per file."""

from nelbo.diffusion.parameterizations.base import LinearParameterization, Parameterization
from nelbo.diffusion.parameterizations.categorical import Categorical
from nelbo.diffusion.parameterizations.edm import EDM
from nelbo.diffusion.parameterizations.eps import Eps
from nelbo.diffusion.parameterizations.flow import Flow
from nelbo.diffusion.parameterizations.v import V
from nelbo.diffusion.parameterizations.x0 import X0

__all__ = [
    "EDM",
    "X0",
    "Categorical",
    "Eps",
    "Flow",
    "LinearParameterization",
    "Parameterization",
    "V",
]
