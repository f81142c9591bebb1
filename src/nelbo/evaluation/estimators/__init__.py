"""Bound estimators: one per file."""

from nelbo.evaluation.estimators.base import BoundEstimator, MultiRoundEstimator
from nelbo.evaluation.estimators.full import FullEstimator
from nelbo.evaluation.estimators.importance import ImportanceEstimator
from nelbo.evaluation.estimators.stratified import StratifiedEstimator

__all__ = [
    "BoundEstimator",
    "FullEstimator",
    "ImportanceEstimator",
    "MultiRoundEstimator",
    "StratifiedEstimator",
]
