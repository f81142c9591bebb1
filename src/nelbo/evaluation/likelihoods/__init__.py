"""Likelihoods besides the bound, measured on the same examples."""

from nelbo.evaluation.likelihoods.base import (
    Likelihood,
    LikelihoodDraws,
    LikelihoodEstimate,
    MeasuredLikelihood,
    measure_likelihood,
)
from nelbo.evaluation.likelihoods.importance_weighted import ImportanceWeightedLikelihood
from nelbo.evaluation.likelihoods.ode import ODELikelihood

__all__ = [
    "ImportanceWeightedLikelihood",
    "Likelihood",
    "LikelihoodDraws",
    "LikelihoodEstimate",
    "MeasuredLikelihood",
    "ODELikelihood",
    "measure_likelihood",
]
