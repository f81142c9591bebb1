"""From configuration nodes to objects.

The data comes first. It declares shape, levels and classes, on which schedule, decoder and network
depend. Each node of the configuration is instantiated once, here.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from nelbo.compose.config import to_plain
from nelbo.compose.environment import cluster_plugins
from nelbo.cond import Null
from nelbo.data import DataSpec
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import ContinuousTime, StepSequence, full_chain
from nelbo.diffusion.denoiser import Denoiser, output_channels
from nelbo.diffusion.losses import Loss
from nelbo.diffusion.noise_conditioning import NoiseConditioning, TimestepConditioning
from nelbo.diffusion.parameterizations import Parameterization
from nelbo.diffusion.samplers import Sampler
from nelbo.diffusion.schedules import AdaptiveSchedule, NoiseSchedule
from nelbo.diffusion.spacings import Spacing
from nelbo.diffusion.variances import LearnedVariance, ReverseVariance
from nelbo.evaluation.estimators import BoundEstimator, MultiRoundEstimator
from nelbo.evaluation.generation import training_chain
from nelbo.evaluation.units import unit_of
from nelbo.runs.metrics_file import METRICS_FILE, MetricsFile
from nelbo.training.accumulation import FitLoop
from nelbo.training.checkpoint_io import DurableCheckpointIO
from nelbo.training.module import DiffusionModule


def build_module(config: DictConfig, spec: DataSpec) -> DiffusionModule:
    """The diffusion model of a configuration, for data of the given kind.

    Raises:
        ValueError: for options that are out of range, or that cannot work together.
    """
    schedule: NoiseSchedule = instantiate(config.schedule, half_bin=spec.half_bin)
    variance: ReverseVariance | partial[ReverseVariance] = instantiate(config.variance)
    if isinstance(variance, partial):
        name = variance.func.__name__
        raise ValueError(
            f"the variance {name} is measured on a trained network: use variance=fixed_large to "
            f"train, and then python evaluate.py checkpoint=... variance={name.lower()}"
        )
    loss: Loss = instantiate(config.loss)
    loss.check_variance(variance)
    loss.check_schedule(schedule)
    chain = full_chain(schedule)
    parameterization: Parameterization = build_supplied(
        config.parameterization, {"levels": lambda: spec.levels}
    )
    check_levels(chain, parameterization, variance)
    decoder = instantiate(config.decoder, levels=spec.levels)
    num_classes, null = count_classes(config, spec), null_value(config, spec)
    network = instantiate(
        config.model,
        shape=spec.shape,
        out_channels=output_channels(parameterization, variance, spec.shape[0]),
        num_classes=null + 1 if isinstance(null, int) else num_classes,
    )
    if config.compile:
        network.compile()
    c_noise = build_conditioning(config, schedule)
    check_conditioning(c_noise, chain)
    denoiser = Denoiser(
        network=network,
        parameterization=parameterization,
        variance=variance,
        c_noise=c_noise,
    )
    return DiffusionModule(
        denoiser=denoiser,
        bound=VariationalBound(chain, decoder, shape=spec.shape),
        loss=loss,
        timesteps=build_supplied(
            config.timesteps, {"num_steps": lambda: chain.num_steps, "chain": lambda: chain}
        ),
        optimizer=instantiate(config.optimizer),
        lr_schedule=instantiate(config.lr_schedule),
        val_estimator=build_estimator(config, "val_estimator"),
        test_estimator=build_estimator(config, "test_estimator"),
        unit=unit_of(spec.dims, spec.levels),
        conditional=config.conditional,
        cond_dropout=config.cond_dropout,
        null=null,
        seed=config.seed,
        config=to_plain(config),
    )


def build_supplied(node: DictConfig, offered: Mapping[str, Callable[[], Any]]) -> Any:
    """A component, with those of the offered arguments that it has and its node does not give."""
    wanted = inspect.signature(get_object(node._target_)).parameters
    supplied = {name: make() for name, make in offered.items() if name in wanted and name not in node}
    # not as arguments of instantiate, which would make configurations of them
    return instantiate(node, _partial_=True)(**supplied)


def build_conditioning(config: DictConfig, schedule: NoiseSchedule) -> NoiseConditioning:
    """What the network receives for the noise level; its scale depends on the chain, unless it is given."""
    scale = 1000.0 / (schedule.num_steps or 1)  # u in [0, 1] in continuous time
    return build_supplied(config.c_noise, {"scale": lambda: scale})


def check_conditioning(c_noise: NoiseConditioning, chain: StepSequence) -> None:
    """Check that what the network receives is finite, and keeps its meaning during training.

    Raises:
        ValueError: for the logsnr of a level without signal, and for time on an adaptive schedule.
    """
    if not c_noise(chain.noisiest).isfinite():
        raise ValueError(
            f"c_noise: {type(c_noise).__name__} is infinite at the last timestep, which has no signal: use "
            "c_noise=timestep, or a number for schedule.logsnr_min"
        )
    if isinstance(chain.schedule, AdaptiveSchedule) and isinstance(c_noise, TimestepConditioning):
        raise ValueError(
            "c_noise=timestep: schedule=adaptive changes the noise level of a time during training: use "
            "c_noise=logsnr, or c_noise=log_sigma"
        )


def check_levels(chain: StepSequence, parameterization: Parameterization, variance: ReverseVariance) -> None:
    """Check that the parameterization and the variance are defined at all levels of the chain.

    Raises:
        ValueError: naming the option to change.
    """
    parameterization.check_noisiest(chain.noisiest)
    if isinstance(chain, ContinuousTime) and isinstance(variance, LearnedVariance):
        raise ValueError(
            f"the schedule {type(chain.schedule).__name__} is in continuous time (schedule.num_steps=null), "
            f"where the variance {type(variance).__name__} has nothing to learn: add variance=fixed_large"
        )


def build_estimator(config: DictConfig, name: str) -> BoundEstimator:
    """An estimator for training, where a validation goes through the data once.

    Raises:
        ValueError: for one that needs several rounds.
    """
    estimator: BoundEstimator = instantiate(config[name])
    if isinstance(estimator, MultiRoundEstimator):
        raise ValueError(
            f"{name}: {type(estimator).__name__} goes through the data several times, and training does so "
            "once per validation: use stratified or full here, and importance in evaluate.py"
        )
    return estimator


def count_classes(config: DictConfig, spec: DataSpec) -> int | None:
    """Number of classes of a conditional network; None for an unconditional one, or a mapping of conditions.

    Raises:
        ValueError: for a conditional model of data without labels and other conditions.
    """
    if not config.conditional:
        return None
    if not spec.is_conditional:
        raise ValueError("conditional=true needs data with class labels or conditions: this has none")
    return spec.num_classes


def null_value(config: DictConfig, spec: DataSpec) -> Null | None:
    """The value of dropped conditions: the class after those of the data, or one for each tensor.

    Raises:
        ValueError: for a share outside [0, 1), or an unconditional model.
    """
    dropout = config.cond_dropout
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"cond_dropout={dropout} must be inside [0, 1)")
    if dropout == 0.0:
        return None
    if not config.conditional:
        raise ValueError(f"cond_dropout={dropout} needs conditions to drop: use conditional=true")
    if spec.cond is not None:
        return {name: own.null for name, own in spec.cond.items()}
    return count_classes(config, spec)


def build_sampler(config: DictConfig, spec: DataSpec) -> Sampler:
    """The sampler of a configuration, which by default clips x0_hat to the range of the data.

    Raises:
        ValueError: for options that are out of range.
    """
    return instantiate(config.sampler, data_range=spec.range)


def build_callbacks(config: DictConfig, spec: DataSpec, chain: StepSequence) -> list[Callback]:
    """The callbacks, in the order of the configuration; an entry set to null is left out.

    Arguments ``sampler``, ``spacing``, ``features`` and ``spec`` of a callback are supplied.

    Raises:
        ValueError: for a spacing that needs a trained model, or features that do not apply to this data.
        OSError: for features whose weights cannot be downloaded.
    """
    sampler = build_sampler(config, spec)
    spacing: Spacing | partial[Spacing] = instantiate(config.spacing)
    if isinstance(spacing, partial):
        raise ValueError(
            f"spacing={spacing.func.__name__.lower()} needs the costs of steps measured on a trained model: "
            "evaluate.py measures them"
        )
    training_chain(sampler, spacing, chain)  # mistakes show now, and not at the first samples
    offered: dict[str, Callable[[], Any]] = {
        "sampler": lambda: sampler,
        "spacing": lambda: spacing,
        "features": lambda: instantiate(config.features),
        "spec": lambda: spec,
    }
    return [build_supplied(node, offered) for node in config.callbacks.values() if node is not None]


def build_loggers(config: DictConfig, run_dir: Path) -> list[Logger]:
    """The loggers of the configuration, and metrics.csv, which every run has."""
    loggers = [instantiate(node) for node in (config.logger or {}).values()]
    for logger in loggers:
        logger.log_hyperparams(to_plain(config))
    return [MetricsFile(run_dir / METRICS_FILE), *loggers]


def device_count(config: DictConfig) -> int:
    """Number of processes of a training on this machine.

    Raises:
        ValueError: as :func:`build_trainer`.
    """
    return 1 if config.trainer.devices in (1, "1") else build_trainer(config, [], []).num_devices


def build_trainer(config: DictConfig, callbacks: list[Callback], loggers: list[Logger]) -> Trainer:
    """The Trainer. A run shorter than the validation interval is validated once, at its end.

    Raises:
        ValueError: for options that cannot work, or a GPU that is not there.
    """
    if (
        str(config.trainer.precision) in ("16", "16-mixed")
        and config.trainer.gradient_clip_val
        and config.optimizer.get("fused")
    ):
        raise ValueError(
            f"trainer.precision={config.trainer.precision} cannot clip gradients with a fused optimizer: add "
            "optimizer.fused=false, or use trainer.precision=bf16-mixed"
        )
    if config.trainer.accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator=cuda, but there is no GPU: use trainer=cpu")
    options: dict[str, Any] = {"default_root_dir": config.run_dir}
    # otherwise Lightning adds a ModelCheckpoint, which removes the files that its state in a checkpoint names
    options["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
    batches = config.trainer.max_steps * config.trainer.accumulate_grad_batches
    if 0 < batches < config.trainer.val_check_interval:
        options["val_check_interval"] = batches
    plugins = [DurableCheckpointIO(), *cluster_plugins()]
    trainer = instantiate(config.trainer, callbacks=callbacks, logger=loggers, plugins=plugins, **options)
    trainer.fit_loop = FitLoop(trainer)
    return trainer
