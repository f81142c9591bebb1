"""Types of the options of the commands, the Trainer and torch's optimizers."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from annotated_types import Len
from pydantic import Field

from nelbo.option_types import (
    Folder,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Seed,
    SigmaRel,
)

Component = dict[str, Any]  # a node with a _target_
NamedComponents = dict[str, Component | None]
Split = Literal["train", "val", "test"]


class MaxExamples(TypedDict):
    """``max_examples`` of ``conf/train.yaml``."""

    train: PositiveInt | None
    val: PositiveInt | None
    test: PositiveInt | None


class TrainOptions(TypedDict):
    """Options of ``conf/train.yaml``."""

    schedule: Component
    parameterization: Component
    c_noise: Component
    variance: Component
    decoder: Component
    model: Component
    data: Component
    timesteps: Component
    loss: Component
    optimizer: Component
    lr_schedule: Component
    val_estimator: Component
    test_estimator: Component
    sampler: Component
    spacing: Component
    features: Component
    callbacks: NamedComponents
    logger: NamedComponents | None
    trainer: Component
    seed: Seed
    conditional: bool
    cond_dropout: Probability
    max_examples: NotRequired[Component]
    compile: bool
    checkpoint_every: PositiveInt
    resume: NotRequired[str | None]
    allow_changed_data: NotRequired[bool]
    trust: NotRequired[str | list[str] | None]
    run_dir: str


class ModelOptions(TypedDict):
    """Options that ``conf/evaluate.yaml`` and ``conf/sample.yaml`` have in common."""

    checkpoint_format: Component
    variance: NotRequired[Component | None]
    checkpoint: str
    trained_as: str | None
    trained_with: list[str]
    weights: Literal["ema", "raw"]
    ema: SigmaRel | None
    root: Folder | None
    trust: str | list[str] | None
    device: Literal["auto", "cpu", "cuda"]
    devices: PositiveInt
    seed: Seed
    run_dir: str


class EvaluateOptions(ModelOptions):
    """Options of ``conf/evaluate.yaml``."""

    model: NotRequired[Component | None]
    decoder: NotRequired[Component | None]
    data: NotRequired[Component | None]
    spacing: NotRequired[Component | None]
    estimator: Component
    likelihood: NotRequired[NamedComponents | None]
    solver: Component
    divergence: NotRequired[Component | None]
    dequantization: NotRequired[Component | None]
    importance_samples: PositiveInt
    split: Split
    max_examples: PositiveInt | None
    steps: PositiveInt | None
    by_class: bool
    baselines: bool
    clip: bool


class SampleOptions(ModelOptions):
    """Options of ``conf/sample.yaml``."""

    sampler: Component
    features: NotRequired[Component | None]
    spacing: Component
    n: PositiveInt
    batch_size: PositiveInt
    image_format: Literal["auto", "png", "npz", "none"]
    grid: NonNegativeInt
    trajectory: Literal["none", "gif", "strip"]
    cond: NonNegativeInt | str | list[NonNegativeInt | str] | dict[str, Any] | None
    guidance: NonNegativeFloat | None
    reference_split: Split


COMMANDS: dict[str, type] = {"train": TrainOptions, "evaluate": EvaluateOptions, "sample": SampleOptions}


class TrainerOptions(TypedDict, total=False):
    """Arguments of ``lightning.Trainer``, where its own annotations are wider than what works here."""

    accelerator: Literal["auto", "cpu", "cuda", "gpu"]
    devices: PositiveInt | Literal[-1, "auto"] | Annotated[list[NonNegativeInt], Len(1)]
    strategy: Literal["auto", "ddp"] | Annotated[Component, Field(description="as trainer=fsdp sets it")]
    num_nodes: PositiveInt
    # of the network alone; others would round timesteps and the bound
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16", 32, 16]
    max_steps: PositiveInt | Literal[-1]
    min_steps: NonNegativeInt | None
    max_epochs: PositiveInt | Literal[-1] | None
    min_epochs: NonNegativeInt | None
    accumulate_grad_batches: PositiveInt
    gradient_clip_val: NonNegativeFloat | None
    gradient_clip_algorithm: Literal["norm", "value"] | None
    val_check_interval: PositiveInt
    check_val_every_n_epoch: PositiveInt | None
    log_every_n_steps: PositiveInt
    num_sanity_val_steps: Literal[0]
    enable_model_summary: bool
    use_distributed_sampler: Literal[False]
    default_root_dir: str


# Trainer options that would train on, or measure, a part of the data as if it were all of it
UNSUPPORTED = dict.fromkeys(
    (
        "limit_train_batches",
        "limit_val_batches",
        "limit_test_batches",
        "limit_predict_batches",
        "overfit_batches",
        "fast_dev_run",
    ),
    "for a quick trial use trainer.max_steps and max_examples.train, max_examples.val and max_examples.test",
)


class OptimizerOptions(TypedDict, total=False):
    """Arguments of the optimizers of ``torch.optim``, which have hardly any types."""

    lr: PositiveFloat
    betas: Annotated[list[Probability], Len(2, 2)]
    eps: NonNegativeFloat
    weight_decay: NonNegativeFloat
    momentum: NonNegativeFloat
    dampening: float
    alpha: Probability
    nesterov: bool
    amsgrad: bool
    maximize: Literal[False]
    foreach: bool | None
    fused: bool | None
    capturable: bool
    differentiable: Literal[False]
    centered: bool


DECLARED: dict[str, type] = {
    "lightning.Trainer": TrainerOptions,
    "torch.optim.": OptimizerOptions,  # all of them
}


# arguments that `build` passes, by the place of the component
SUPPLIED: dict[str, set[str]] = {
    "schedule": {"half_bin"},
    "sampler": {"data_range"},
    "parameterization": {"levels"},  # to those that have it
    "decoder": {"levels"},
    "timesteps": {"num_steps", "chain"},  # to those that have them
    "variance": {"log_mse"},  # to those that have it, as below
    "spacing": {"costs"},
    "model": {"shape", "out_channels", "num_classes"},
    "optimizer": {"params"},
    "lr_schedule": {"optimizer"},
    "trainer": {"callbacks", "logger", "plugins", "enable_checkpointing"},
    "dequantization": {"levels"},  # to those that have it
    "likelihood.ode": {"solver", "divergence", "dequantization"},
    "callbacks": {"sampler", "spacing", "features", "spec"},  # to those that have them
}
