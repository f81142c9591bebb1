"""The training job: fit, validate, test, and write a run folder."""

import errno
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from nelbo.runs.paths import DATA, LAST, REPORT

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger

    from nelbo.data import DataModule
    from nelbo.runs.resume_point import ResumePoint
    from nelbo.training.module import DiffusionModule
    from nelbo.training.stopwatch import Stopwatch


@dataclass(frozen=True)
class Training:
    """What a training consists of, before its loggers and its Trainer.

    Attributes:
        config: with absolute paths, and without the options that are for this command alone.
        data: its splits are read.
        module: the model.
        callbacks: in the order of the configuration, and the stopwatch.
        stopwatch: measures the time of training steps.
        point: the checkpoint that training resumes from; None to start at step 0.
        subsets: size of each split that is replaced by a subset of itself.
    """

    config: DictConfig
    data: "DataModule"
    module: "DiffusionModule"
    callbacks: "list[Callback]"
    stopwatch: "Stopwatch"
    point: "ResumePoint | None"
    subsets: dict[str, int]


def train(config: DictConfig) -> float | None:
    """Train, validate and test one model, or resume the run ``config.resume``.

    A signal that asks the run to stop ends the process with exit code 128 + its number.

    Returns:
        The validation bound at the end, for searches; None for a run that was finished before.

    Raises:
        ValueError: for a configuration that cannot work.
        OSError: for data that cannot be read, or a run folder that cannot be written.
        NonFiniteLossError: when the loss becomes NaN or infinite.
    """
    from nelbo.cli import resume
    from nelbo.cli.launch import launch_ranks, needs_launch
    from nelbo.cli.overrides import AUTO
    from nelbo.cli.rendezvous import check_process_count
    from nelbo.compose import build
    from nelbo.compose.environment import rank
    from nelbo.compose.options import check_options
    from nelbo.connections import close_process_group
    from nelbo.reports.html import report_finished_run
    from nelbo.reports.terminal import print_bound

    run_dir, resumes = Path(config.run_dir), bool(config.resume)
    if resumes:
        if config.resume != AUTO:
            config = resume.continued_config(config, run_dir)
            check_options(config, "train")
        if resume.is_complete(config, run_dir):
            if rank() == 0:
                _print_complete_run(run_dir)
            return None
    devices = build.device_count(config)
    if needs_launch(devices):
        check_process_count(devices, config.trainer.num_nodes)
        return launch_ranks(devices, partial(_last_checkpoint, run_dir))
    training = _build(config, run_dir, resumes)
    unit = training.module.unit
    loggers = build.build_loggers(training.config, run_dir)
    with _ends(run_dir, loggers):  # runs of loggers are open from here on
        trainer = build.build_trainer(training.config, training.callbacks, loggers)
        check_process_count(trainer.num_devices, trainer.num_nodes)
        metrics = _fit(training, trainer)
        if trainer.is_global_zero:
            _write_summary(run_dir, metrics, training, trainer)
    if trainer.is_global_zero:
        try:
            report_finished_run(run_dir)
        finally:
            print_bound(metrics, ("val", "test"), unit, run_dir)
    close_process_group()
    return metrics[f"val/{unit.metric}"]


def _build(config: DictConfig, run_dir: Path, resumes: bool) -> Training:
    """Build and check everything; the files of a resumed run are changed last.

    Args:
        config: of the run, which does not say whether this command resumes it.
        run_dir: its folder.
        resumes: whether to continue from the newest checkpoint in the folder.

    Raises:
        ValueError: for a configuration that cannot work.
        OSError: for data that cannot be read, or a run folder that cannot be written.
    """
    from hydra.utils import instantiate
    from lightning import seed_everything
    from lightning.pytorch.utilities import rank_zero_only

    from nelbo.atomic_file import write_json
    from nelbo.cli import resume
    from nelbo.compose import build
    from nelbo.compose.config import to_plain
    from nelbo.runs.resume_point import check_data, newest_checkpoint
    from nelbo.runs.run_options import write_config
    from nelbo.training.checks import check_network
    from nelbo.training.stopwatch import Stopwatch

    point = newest_checkpoint(run_dir) if resumes else None
    # of this command alone, so not stored
    allow_changed_data, config.allow_changed_data = config.get("allow_changed_data", False), False
    config.trust = None
    if config.data.get("root") is not None:  # a relative one would depend on the folder of a later command
        config.data.root = str(Path(config.data.root).expanduser().absolute())
    seed_everything(config.seed, workers=True, verbose=False)

    data: DataModule = instantiate(config.data)
    module = build.build_module(config, data.spec)
    stopwatch = Stopwatch()
    callbacks = [*build.build_callbacks(config, data.spec, module.bound.chain), stopwatch]
    data.prepare_data()
    data.setup()  # missing or broken data shows now, and not at the end of the training that needs it
    subsets = {split: most for split, most in config.get("max_examples", {}).items() if most is not None}
    for split, most in subsets.items():
        data.subset(split, most)
    check_network(module, data.spec)
    if resumes:
        check_data(run_dir, point, data.record(), module.conditional, allow_changed_data)
        resume.check_learning_rate(config, point)
        resume.restore_run(config, run_dir, point)
    else:
        write_config(to_plain(config), run_dir)
    if rank_zero_only.rank == 0:
        write_json(run_dir / DATA, data.record().to_dict())
    return Training(config, data, module, callbacks, stopwatch, point, subsets)


def _fit(training: Training, trainer: "Trainer") -> dict[str, float]:
    """Train, validate and test, and return the metrics.

    Raises:
        NonFiniteLossError: when the loss or a bound becomes NaN or infinite.
    """
    from nelbo.training.checks import check_bound_is_finite

    module, data, point = training.module, training.data, training.point
    trainer.fit(module, datamodule=data, ckpt_path=None if point is None else point.path)
    metrics = module.reported | _metrics(trainer)
    if module.validated_at != trainer.global_step:
        trainer.validate(module, datamodule=data, verbose=False)
    metrics |= _metrics(trainer) | {"train_seconds": round(training.stopwatch.seconds, 1)}
    trainer.test(module, datamodule=data, verbose=False)
    metrics |= _metrics(trainer)
    check_bound_is_finite(metrics, module.unit)
    return metrics


@contextmanager
def _ends(run_dir: Path, loggers: "Sequence[Logger]") -> Iterator[None]:
    """Finish the runs of the loggers however training ends, and say what ended it.

    Raises:
        SystemExit: with 128 + the number of the signal that stopped it.
        KeyboardInterrupt: for a second Ctrl-C.
        OSError: when the disk is full, and for any other error of it.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from nelbo.cli import resume
    from nelbo.training.errors import Interrupted
    from nelbo.training.loggers.media import finish

    try:
        yield
    except Interrupted as stop:
        if rank_zero_only.rank != 0:  # one of several processes that fails would have the others killed
            sys.exit(0)
        print(f"{stop}{resume.resume_hint(run_dir, stop)}", file=sys.stderr)
        if stop.signal == signal.SIGUSR1:
            resume.requeue_slurm_job()
        sys.exit(128 + stop.signal)
    except SystemExit as ended:  # how Lightning handles a second Ctrl-C
        raise KeyboardInterrupt from ended
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(f"cannot write to {run_dir}: the disk is full") from error
    finally:
        finish(loggers)


def _print_complete_run(run_dir: Path) -> None:
    """Say that a run is finished, and write its report if it was stopped before that."""
    from nelbo.reports.html import report_finished_run
    from nelbo.runs.summary import finished_step

    if not (run_dir / REPORT).exists():
        report_finished_run(run_dir)
    missing = "" if (run_dir / LAST).exists() else "; its last.ckpt is missing"
    step = finished_step(run_dir)
    print(f"{run_dir} is finished, after {step} steps: more with trainer.max_steps=...{missing}")


def _last_checkpoint(run_dir: Path) -> str:
    """The end of a sentence about what ended the training."""
    last = run_dir / LAST
    return f"; last checkpoint: {last if last.exists() else 'none'}"


def _metrics(trainer: "Trainer") -> dict[str, float]:
    """Metrics by name, without the step and the epoch that they are logged at."""
    return {name: float(value) for name, value in sorted(trainer.callback_metrics.items()) if "/" in name}


def _write_summary(run_dir: Path, metrics: dict[str, float], training: Training, trainer: "Trainer") -> None:
    from nelbo.evaluation.ledger import arithmetic, make_ledger
    from nelbo.runs import example_table, history
    from nelbo.runs.metrics_file import METRICS_FILE
    from nelbo.runs.summary import write_summary
    from nelbo.training.callbacks import BestCheckpoint
    from nelbo.training.callbacks.ema import measured_weights

    module = training.module
    ledger = make_ledger(
        data=training.data,
        split="test",
        conditional=module.conditional,
        weights=measured_weights(trainer),
        precision=arithmetic(str(trainer.precision), module.device),
        bound=module.bound,
        variance=module.denoiser.variance,
        estimator=module.test_estimator,
        estimate=module.accumulator.estimate(),
    )
    summary: dict[str, Any] = {**metrics, "step": trainer.global_step, "ledger": ledger.to_dict()}
    if training.subsets:
        summary["max_examples"] = training.subsets  # the bounds are those of subsets
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, BestCheckpoint) and callback.step is not None:
            summary["best"] = {"step": callback.step, f"val/{module.unit.metric}": callback.best}
    accumulator = module.accumulator
    example_table.write(
        run_dir / example_table.FILE_NAME, accumulator.groups.columns, accumulator.example_table()
    )
    names = (METRICS_FILE, history.BOUND, example_table.FILE_NAME)
    write_summary(run_dir, summary, names)
