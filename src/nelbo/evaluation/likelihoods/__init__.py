"""Likelihoods besides the bound, measured on the same examples."""

from nelbo.evaluation.likelihoods.base import (
    Likelihood,
    LikelihoodDraws,
    LikelihoodError,
    LikelihoodEstimate,
    MeasuredLikelihood,
    measure_likelihood,
)
from nelbo.evaluation.likelihoods.importance_weighted import ImportanceWeightedLikelihood
from nelbo.evaluation.likelihoods.ode import ODELikelihood
from nelbo.evaluation.likelihoods.sandwich import Sandwich

__all__ = [
    "ImportanceWeightedLikelihood",
    "Likelihood",
    "LikelihoodDraws",
    "LikelihoodError",
    "LikelihoodEstimate",
    "MeasuredLikelihood",
    "ODELikelihood",
    "Sandwich",
    "measure_likelihood",
]
