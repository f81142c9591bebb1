"""Parameterizations: one meaning of the network's output per file."""

from nelbo.diffusion.parameterizations.base import Parameterization
from nelbo.diffusion.parameterizations.eps import Eps
from nelbo.diffusion.parameterizations.v import V
from nelbo.diffusion.parameterizations.x0 import X0

__all__ = ["X0", "Eps", "Parameterization", "V"]
