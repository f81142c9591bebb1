"""The training job: fit, validate, test, and leave a run folder behind."""

import errno
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

if TYPE_CHECKING:
    from lightning import Trainer

    from nelbo.data import DataModule
    from nelbo.training.module import DiffusionModule


def train(config: DictConfig) -> float:
    """Train, validate and test one model. Returned is the validation bound at the end, for searches.

    Raises:
        ValueError: for a configuration that cannot work.
        OSError: for data that cannot be read, or a run folder that cannot be written.
        NonFiniteLossError: when the loss becomes NaN or infinite.
    """
    import torch
    from hydra.utils import instantiate
    from lightning import seed_everything

    from nelbo.app import build
    from nelbo.app.launcher import launcher
    from nelbo.app.quiet import quieten_libraries
    from nelbo.app.resume import start_anew
    from nelbo.dashboard.report import report_finished_run
    from nelbo.dashboard.terminal import print_bound
    from nelbo.dashboard.wandb_run import finish

    quieten_libraries()
    seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")  # TF32 in the network; the bound is not made of matmuls
    run_dir = Path(config.run_dir)

    if config.resume is not None:
        start_anew(run_dir)
    refuse_used_folder(run_dir)
    data: DataModule = instantiate(config.data)
    module = build.build_module(config, data.spec)
    callbacks = build.build_callbacks(config, data.spec)
    data.prepare_data()
    data.setup()  # missing or broken data shows now, and not at the end of the training that needs it
    loggers = build.build_loggers(config, run_dir)
    try:  # from here on a W&B run is open, and must be ended whatever happens
        trainer = build.build_trainer(config, callbacks, loggers)
        launcher.start(trainer.num_devices, "train.py", partial(_where, trainer, run_dir))
        started = time.perf_counter()
        trainer.fit(module, datamodule=data)
        train_seconds = time.perf_counter() - started
        if module.validated_at != trainer.global_step:
            trainer.validate(module, datamodule=data, verbose=False)
        metrics = _metrics(trainer) | {"train_seconds": round(train_seconds, 1)}
        trainer.test(module, datamodule=data, verbose=False)
        metrics |= _metrics(trainer)
        if trainer.is_global_zero:
            _write_summary(run_dir, metrics, data, module, trainer)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(f"cannot write to {run_dir}: the disk is full") from error
    finally:
        finish(loggers)
    if trainer.is_global_zero:
        report_finished_run(run_dir)
        print_bound(metrics, ("val", "test"), module.unit, run_dir)
    return metrics[f"val/{module.unit.metric}"]


def refuse_used_folder(run_dir: Path) -> None:
    """Keep a new run from mixing its files with those of an old one.

    Raises:
        ValueError: when the folder holds a run.
    """
    if (run_dir / "checkpoints").is_dir() or (run_dir / "bound.parquet").exists():
        raise ValueError(f"{run_dir} already holds a run: choose another hydra.run.dir, or remove it")


def _where(trainer: "Trainer", run_dir: Path) -> str:
    """The end of a sentence about what ended the training."""
    last = run_dir / "checkpoints" / "last.ckpt"
    return f" at step {trainer.global_step}; last checkpoint: {last if last.exists() else 'none'}"


def _metrics(trainer: "Trainer") -> dict[str, float]:
    return {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}


def _write_summary(
    run_dir: Path,
    metrics: dict[str, float],
    data: "DataModule",
    module: "DiffusionModule",
    trainer: "Trainer",
) -> None:
    from nelbo.evaluation import example_table
    from nelbo.evaluation.ledger import arithmetic, make_ledger
    from nelbo.training.callbacks import EMA

    averaged = any(isinstance(callback, EMA) for callback in trainer.callbacks)  # pyright: ignore
    ledger = make_ledger(
        data=type(data).__name__,
        fingerprint=data.fingerprint("test"),
        conditional=module.conditional,
        dims=data.spec.dims,
        levels=data.spec.levels,
        split="test",
        weights="ema" if averaged else "raw",
        precision=arithmetic(str(trainer.precision), module.device),
        bound=module.bound,
        variance=module.denoiser.variance,
        estimator=module.test_estimator,
        estimate=module.tally.estimate(),
    )
    summary = {**metrics, "step": trainer.global_step, "ledger": ledger.to_dict()}
    tally = module.tally
    example_table.write(run_dir / example_table.FILE_NAME, tally.groups.columns, tally.example_table())
    (run_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
