"""Bound estimators: one per file."""

from nelbo.evaluation.estimators.base import BoundEstimator
from nelbo.evaluation.estimators.full import Full
from nelbo.evaluation.estimators.importance import Importance
from nelbo.evaluation.estimators.stratified import Stratified

__all__ = ["BoundEstimator", "Full", "Importance", "Stratified"]
