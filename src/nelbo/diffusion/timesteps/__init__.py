"""Timestep samplers: one per file."""

from nelbo.diffusion.timesteps.base import (
    AdaptiveTimestepSampler,
    TimestepSample,
    TimestepSampler,
    stratified_uniforms,
)
from nelbo.diffusion.timesteps.importance import Importance
from nelbo.diffusion.timesteps.stratified import Stratified
from nelbo.diffusion.timesteps.uniform import Uniform

__all__ = [
    "AdaptiveTimestepSampler",
    "Importance",
    "Stratified",
    "TimestepSample",
    "TimestepSampler",
    "Uniform",
    "stratified_uniforms",
]
