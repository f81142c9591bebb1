"""Timestep samplers: one per file."""

from nelbo.diffusion.timesteps.base import (
    AdaptiveTimestepSampler,
    TimestepSample,
    TimestepSampler,
    draw_steps,
    stratified_uniforms,
)
from nelbo.diffusion.timesteps.entropy_rate import EntropyRate
from nelbo.diffusion.timesteps.importance import Importance
from nelbo.diffusion.timesteps.log_normal import LogNormal
from nelbo.diffusion.timesteps.logit_normal import LogitNormal
from nelbo.diffusion.timesteps.stratified import Stratified
from nelbo.diffusion.timesteps.uniform import Uniform

__all__ = [
    "AdaptiveTimestepSampler",
    "EntropyRate",
    "Importance",
    "LogNormal",
    "LogitNormal",
    "Stratified",
    "TimestepSample",
    "TimestepSampler",
    "Uniform",
    "draw_steps",
    "stratified_uniforms",
]
