"""The bound on held-out data: scalars, rows of ``bound.parquet``, and a warning about the chain's start."""

from functools import partial
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from nelbo.diffusion.decoders import Softmax
from nelbo.diffusion.schedules import LearnedSchedule, NoiseSchedule
from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.t_bins import VISIBLE_SHARE, share_below_half_bin, shares_by_t_bin
from nelbo.runs import bound_table as table
from nelbo.training.loggers.charts import Curve
from nelbo.training.loggers.media import BoundChart, curve_of, media_loggers, shown_curves
from nelbo.training.module import DiffusionModule
from nelbo.training.ranks import all_reduce_sum


class ValidationBound(Callback):
    """Log the bound that the module measured: ``val/bpd`` and its parts, or ``test/...``.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: str) -> None:
        self.path = Path(run_dir) / table.FILE_NAME
        self._warned = False
        self._curves: dict[str, dict[int, Curve]] = {}  # L_t against t, by split and optimizer steps

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the validation."""
        self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the test."""
        self._report(trainer, pl_module, "test")
        if trainer.is_global_zero:
            table.merge(self.path)

    def _report(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        assert isinstance(pl_module, DiffusionModule)
        pl_module.accumulator.all_reduce_sum(partial(all_reduce_sum, trainer))
        chain, accumulator = pl_module.bound.chain, pl_module.accumulator
        estimate, contributions = accumulator.estimate(), accumulator.contributions()
        metrics = pl_module.unit.metrics(split, estimate)
        shares: dict[str, float] = {}
        if pl_module.unit.is_discrete:  # the parts of a density's bound may be negative
            shares = shares_by_t_bin(chain.t(), contributions, estimate.prior.mean)
            metrics |= {f"{split}/share/{name}": share for name, share in shares.items()}
        bar = f"{split}/{pl_module.unit.metric}"
        below = share_below_half_bin(chain, contributions, estimate.total.mean)
        metrics[f"{split}/share_below_half_bin"] = below
        # equal up to rounding on GPUs: sync_dist makes it equal, and BestCheckpoint compares it on every rank
        pl_module.log(bar, metrics.pop(bar), prog_bar=split == "val", sync_dist=True)
        pl_module.log_dict(metrics, sync_dist=True)
        if trainer.is_global_zero:
            steps = accumulator.step_table(chain.step_numbers)
            table.append(self.path, trainer.global_step, split, steps)
            self._log_media(trainer, pl_module, split, steps, shares)
        # the softmax decoder does without the network: its chain has to start where the data is certain
        if not isinstance(pl_module.bound.decoder, Softmax):
            self._warn_about_clean_levels(below, chain.schedule)

    def _log_media(
        self,
        trainer: Trainer,
        pl_module: DiffusionModule,
        split: str,
        steps: StepTable,
        shares: dict[str, float],
    ) -> None:
        loggers = media_loggers(trainer.loggers)
        if not loggers:
            return
        unit = pl_module.unit
        if split not in self._curves:  # the file has this validation, and those before an interruption
            earlier = table.read(self.path, {"T": len(steps.t)}).get(split, {})
            self._curves[split] = {step: curve_of(measured, unit) for step, measured in earlier.items()}
        curves = self._curves[split]
        curves[trainer.global_step] = curve_of(steps, unit)
        chart = BoundChart(split, unit, steps, shown_curves(curves))
        for logger in loggers:
            logger.log_bound(chart, trainer.global_step)
            if shares:
                logger.log_shares(split, shares, trainer.global_step)

    def _warn_about_clean_levels(self, share: float, schedule: NoiseSchedule) -> None:
        if share > VISIBLE_SHARE and not self._warned:
            self._warned = True
            learned = isinstance(schedule, LearnedSchedule)
            change = "a lower schedule.initial_max" if learned else "schedule.logsnr_max=auto"
            rank_zero_warn(
                f"{share:.0%} of the bound lies at noise levels below half a bin of the data, where "
                f"nothing can be learned: start the chain later with {change}"
            )
