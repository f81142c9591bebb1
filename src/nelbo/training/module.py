"""The LightningModule: training step of a diffusion model, and its bound on held-out data."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nelbo.cond import Cond, Null, drop
from nelbo.data.base import DataModule, SplitName
from nelbo.data.batch import Batch
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.losses import Loss, NoisyBatch
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import AdaptiveSchedule
from nelbo.diffusion.timesteps import AdaptiveTimestepSampler, TimestepSample, TimestepSampler
from nelbo.evaluation.accumulator import BoundAccumulator
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.control_variate import GaussianControl, control_of
from nelbo.evaluation.estimators import BoundEstimator
from nelbo.evaluation.t_bins import t_bins
from nelbo.evaluation.units import Unit
from nelbo.models.layers import set_dropout_keys, unset_dropout_keys
from nelbo.randomness import generator, normals, reseed, uniforms
from nelbo.training.muon import MuonAdamW
from nelbo.training.sharded.weights import shard


class DiffusionModule(LightningModule):
    """Trains a denoiser and measures its bound.

    Noise and dropped conditions of a training batch are keyed by (seed, batch number, row of the global
    batch). Timesteps are drawn for the global batch from a generator keyed by (seed, batch number), and each
    rank takes its rows. Masks of dropout are keyed by (seed, batch number, layer, row of the global batch).
    None depends on the number of processes or on interruptions. Dropout of other classes than
    :class:`nelbo.models.layers.Dropout` is keyed by (seed, batch number, rank).

    Args:
        denoiser: the model.
        bound: the bound to measure, on the full chain.
        loss: training objective.
        timesteps: sampler of the training timesteps.
        optimizer: factory of an optimizer from parameters.
        lr_schedule: factory of a learning-rate schedule, stepped after every optimizer step.
        val_estimator: estimator of the bound in validations.
        test_estimator: estimator of the bound in the test.
        unit: unit of the logged bound.
        conditional: whether the network receives the conditions of the data, such as class labels.
        cond_dropout: probability of replacing a training condition by ``null``, for classifier-free guidance
            (Ho & Salimans 2022).
        null: value of a dropped condition: the null class, or the value of each tensor of a mapping; None if
            no conditions are dropped.
        seed: of noise and timesteps.
        config: the run's configuration as plain values, stored in every checkpoint.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        bound: VariationalBound,
        loss: Loss,
        timesteps: TimestepSampler,
        optimizer: Callable[[Iterable[Parameter]], Optimizer],
        lr_schedule: Callable[[Optimizer], LRScheduler],
        val_estimator: BoundEstimator,
        test_estimator: BoundEstimator,
        unit: Unit,
        conditional: bool = False,
        cond_dropout: float = 0.0,
        null: Null | None = None,
        seed: int = 0,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.bound = bound
        self.schedule = bound.chain.schedule  # the parameters of a learned one, the curve of an adaptive one
        self.loss = loss
        self.timesteps = timesteps
        self.make_optimizer = optimizer
        self.make_lr_schedule = lr_schedule
        self.val_estimator = val_estimator
        self.test_estimator = test_estimator
        self.unit = unit
        self.conditional = conditional
        self.cond_dropout = cond_dropout
        self.null = null
        self.seed = seed
        self.config = config or {}
        self.validated_at = -1  # optimizer steps at the last validation
        self._reshape_due = False  # an adaptive schedule changes with the first batch after a validation
        self.reported: dict[str, float] = {}  # metrics in the checkpoint that was resumed
        self._lr: float | None = None  # of the optimizer step of this batch, if there is one
        self._seen: tuple[Tensor, ...] = ()  # steps, losses, bound terms and times of the last batch
        self.accumulator = BoundAccumulator(bound.chain.num_steps)  # of the current evaluation
        self._controls: dict[str, GaussianControl] = {}  # of the splits

    def configure_model(self) -> None:
        """Shard the weights, if the strategy has a device mesh.

        Raises:
            ValueError: for parameters outside of the network, whose gradients no process would share.
        """
        if self._device_mesh is not None:
            if len(list(self.parameters())) > len(list(self.denoiser.network.parameters())):
                raise ValueError(
                    f"trainer=fsdp shards the network alone, and schedule={type(self.schedule).__name__} or "
                    f"loss={type(self.loss).__name__} has parameters: use trainer=ddp"
                )
            shard(self.denoiser.network, self._device_mesh["data_parallel"])

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss of one batch, and the terms that callbacks accumulate.

        Returns:
            ``loss`` (), and per example: ``index`` (B,) step of the chain, ``weight`` (B,) its importance
            weight, ``bound`` (B,) L_0 or L_t in nats, ``prior`` (B,) L_T in nats.
        """
        number, network = self.trainer.fit_loop.total_batch_idx, self.denoiser.network
        set_dropout_keys(network, (self.seed, "dropout", number), self._rows(batch.x0))
        reseed(self.seed, "other dropout", number, self.trainer.global_rank)  # for nn.Dropout
        sample, eps = self.draw(batch.x0)
        step = self.bound.chain.step(sample.index, sample.offset)
        prediction = self.denoiser(diffuse(batch.x0, eps, step.t), step.t, self.training_cond(batch))
        terms = self.loss(NoisyBatch(batch.x0, eps, step, sample.weight), prediction, self.bound)
        self._seen = (sample.index, terms.loss.detach(), terms.bound, step.t.t)
        return {
            "loss": (sample.weight.to(terms.loss.dtype) * terms.loss).mean(),
            "index": sample.index,
            "weight": sample.weight,
            "bound": terms.bound,
            "prior": self.bound.prior(batch.x0),
        }

    def cond(self, batch: Batch) -> Cond | None:
        """Conditions for the network; None for an unconditional one."""
        return batch.cond if self.conditional else None

    def training_cond(self, batch: Batch) -> Cond | None:
        """Conditions with dropout, keyed by (seed, batch number) and the row of the global batch."""
        cond = self.cond(batch)
        if cond is None or self.null is None:
            return cond
        key = (self.seed, "label dropout", self.trainer.fit_loop.total_batch_idx)
        return drop(cond, uniforms(key, self._rows(batch.x0), 1)[:, 0] < self.cond_dropout, self.null)

    def draw(self, x0: Tensor) -> tuple[TimestepSample, Tensor]:
        """Timesteps and noise (B, *shape) of this rank's rows of the current global batch."""
        number, row = self.trainer.fit_loop.total_batch_idx, self._rows(x0)
        world, rank = self.trainer.world_size, self.trainer.global_rank
        whole = self.timesteps.sample(len(row) * world, generator(self.seed, "timesteps", number))
        mine = slice(rank * len(row), (rank + 1) * len(row))
        parts = (whole.index, whole.weight, whole.offset)
        sample = TimestepSample(*(part[mine].to(x0.device, non_blocking=True) for part in parts))
        noise = normals((self.seed, "noise", number), row, x0.shape[1:], x0.dtype)
        return sample, noise.squeeze(1)

    def _rows(self, x0: Tensor) -> Tensor:
        """(B,) int64 rows of the global batch that this rank has."""
        first = self.trainer.global_rank * len(x0)
        return torch.arange(first, first + len(x0), device=x0.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Reshape an adaptive schedule after a validation."""
        if isinstance(self.schedule, AdaptiveSchedule) and self._reshape_due:
            self.schedule.reshape()
        self._reshape_due = False

    def on_after_backward(self) -> None:
        """Update an adaptive timestep sampler and an adaptive schedule with the losses of the global batch.

        This synchronises host and device, so it is done after the backward pass is queued.
        """
        unset_dropout_keys(self.denoiser.network)  # activation checkpointing has computed the masks again
        timesteps, schedule = self.timesteps, self.schedule
        if not isinstance(timesteps, AdaptiveTimestepSampler) and not isinstance(schedule, AdaptiveSchedule):
            return
        seen = torch.stack([column.to(torch.float64) for column in self._seen])
        if self.trainer.world_size > 1:
            seen = torch.cat(list(self.all_gather(seen)), dim=1)
        index, loss, bound, u = seen
        if isinstance(timesteps, AdaptiveTimestepSampler):
            timesteps.update(index.long(), loss, bound)
        if isinstance(schedule, AdaptiveSchedule):
            in_bins = index > 1  # the first step is L_0
            schedule.update(u[in_bins], (self.bound.chain.num_steps - 1) * bound[in_bins])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Record the learning rate: the schedule changes it before ``on_train_batch_end``."""
        self._lr = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the learning rate of the optimizer step, if there was one."""
        lr, self._lr = self._lr, None
        if lr is not None and self.trainer.global_step % self.trainer.log_every_n_steps == 0:  # pyright: ignore
            self.log("train/lr", lr)
            self._log_step()

    def on_validation_epoch_end(self) -> None:
        """Log the number of completed optimizer steps."""
        self._log_step()

    def on_test_epoch_end(self) -> None:
        """Log the number of completed optimizer steps."""
        self._log_step()

    def _log_step(self) -> None:
        """A metric named ``step`` replaces the step of Lightning, which counts from 0."""
        step, epoch = float(self.trainer.global_step), float(self.trainer.current_epoch)
        self.log_dict({"step": step, "epoch": epoch}, sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        """Reset the accumulator."""
        self.accumulator = self._empty_accumulator(self.val_estimator, "val")
        self.validated_at = self.trainer.global_step
        self._reshape_due = True

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch of the validation split to the accumulator."""
        self._measure(self.val_estimator, batch, "val")

    def on_test_epoch_start(self) -> None:
        """Reset the accumulator."""
        self.accumulator = self._empty_accumulator(self.test_estimator, "test")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch of the test split to the accumulator."""
        self._measure(self.test_estimator, batch, "test")

    def _empty_accumulator(self, estimator: BoundEstimator, split: SplitName) -> BoundAccumulator:
        chain, n = self.bound.chain, self._num_examples(split)
        stored = estimator.stored_draws(chain)
        if estimator.control_variate and split not in self._controls:
            data: DataModule = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
            self._controls[split] = control_of(data, split, self.device)
        control = estimator.control_variate
        return BoundAccumulator(chain.num_steps, self.device, n, t_bins(chain.t()), stored, control)

    def _num_examples(self, split: SplitName) -> int:
        data: DataModule = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        return len(data.split(split))

    def _measure(self, estimator: BoundEstimator, batch: Batch, split: SplitName) -> None:
        estimator.measure(
            [self.accumulator],
            [BoundVariant(self.bound)],
            self.denoiser,
            batch.x0,
            batch.index,
            self.cond(batch),
            self._num_examples(split),
            self._controls.get(split),
        )

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients as configured in the Trainer.

        Lightning raises an error for a fused optimizer in mixed precision, because it unscales gradients
        itself. bfloat16 gradients have no scale and can be clipped.
        """
        if self.trainer.precision == "bf16-mixed" and gradient_clip_val:
            by_value = gradient_clip_algorithm == "value"
            clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
            clip(self.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        """The optimizer, and a learning-rate schedule stepped at every optimizer step.

        Raises:
            ValueError: for an optimizer of whole matrices where they are sharded.
        """
        optimizer = self.make_optimizer(self.parameters())
        if self._device_mesh is not None and isinstance(optimizer, MuonAdamW):
            raise ValueError(
                "optimizer=muon updates whole matrices, and trainer=fsdp shards them: use optimizer=adamw or "
                "trainer=ddp"
            )
        optimizer.register_load_state_dict_post_hook(check_fused_state)
        schedule = self.make_lr_schedule(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add configuration, data record, timestep sampler and metrics, as plain values and tensors."""
        metrics, adaptive = self.trainer.callback_metrics, self.timesteps
        checkpoint["nelbo"] = {
            "config": self.config,
            "data": self.trainer.datamodule.record().to_dict(),  # pyright: ignore[reportAttributeAccessIssue]
            "timesteps": adaptive.state_dict() if isinstance(adaptive, AdaptiveTimestepSampler) else {},
            "validated_at": self.validated_at,
            "reshape_due": self._reshape_due,
            "reported": self.reported
            | {name: float(value) for name, value in metrics.items() if "/" in name},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the timestep sampler and the metrics."""
        stored = checkpoint["nelbo"]
        if isinstance(self.timesteps, AdaptiveTimestepSampler):
            self.timesteps.load_state_dict(stored["timesteps"])
        self.validated_at = stored["validated_at"]
        self._reshape_due = stored["reshape_due"]
        self.reported = stored["reported"]


def check_fused_state(optimizer: Optimizer) -> None:
    """Check the shapes of a loaded state: fused optimizers of torch do not, and would write beyond a tensor.

    Raises:
        ValueError: naming a state of another shape than its parameter.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            for name, value in optimizer.state[parameter].items():
                expected = () if name == "step" else tuple(parameter.shape)
                if isinstance(value, Tensor) and tuple(value.shape) != expected:
                    raise ValueError(
                        f"the checkpoint's optimizer state {name} has shape {tuple(value.shape)}, and the "
                        f"parameter needs {expected}"
                    )
