"""Callbacks, one per file. They read the output of the training step and do not recompute it."""

from nelbo.training.callbacks.best_checkpoint import BestCheckpoint
from nelbo.training.callbacks.corrupt_images import CorruptImages
from nelbo.training.callbacks.ema import EMA
from nelbo.training.callbacks.gradient_noise import GradientNoise
from nelbo.training.callbacks.last_checkpoint import LastCheckpoint
from nelbo.training.callbacks.live_bound import LiveBound
from nelbo.training.callbacks.power_function_ema import PowerFunctionEMA
from nelbo.training.callbacks.progress import StepProgress
from nelbo.training.callbacks.sample_grid import SampleGrid
from nelbo.training.callbacks.sample_quality import SampleQuality
from nelbo.training.callbacks.stop_on_non_finite import StopOnNonFinite
from nelbo.training.callbacks.stop_on_signal import StopOnSignal
from nelbo.training.callbacks.throughput import Throughput
from nelbo.training.callbacks.validation_bound import ValidationBound

__all__ = [
    "EMA",
    "BestCheckpoint",
    "CorruptImages",
    "GradientNoise",
    "LastCheckpoint",
    "LiveBound",
    "PowerFunctionEMA",
    "SampleGrid",
    "SampleQuality",
    "StepProgress",
    "StopOnNonFinite",
    "StopOnSignal",
    "Throughput",
    "ValidationBound",
]
