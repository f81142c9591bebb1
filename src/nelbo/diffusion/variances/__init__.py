"""Reverse variances: one choice per file."""

from nelbo.diffusion.variances.analytic import Analytic
from nelbo.diffusion.variances.base import LearnedVariance, ReverseVariance
from nelbo.diffusion.variances.fixed_large import FixedLarge
from nelbo.diffusion.variances.fixed_small import FixedSmall
from nelbo.diffusion.variances.learned_range import LearnedRange

__all__ = ["Analytic", "FixedLarge", "FixedSmall", "LearnedRange", "LearnedVariance", "ReverseVariance"]
