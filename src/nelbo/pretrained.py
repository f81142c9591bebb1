"""Models of checkpoints for use from Python: the bound of given images, samples, predictions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import hydra
import numpy as np
import torch
from torch import Tensor

from nelbo.compose.component import build_component
from nelbo.compose.cond import choose_denoise, class_number, given_mapping
from nelbo.compose.shorter_chain import spaced_chain, step_costs
from nelbo.compose.trained import TrainedModel, composing, read_data, read_model
from nelbo.cond import Cond, drop, rows_of, to_device
from nelbo.data.base import DataModule, Loading, SplitName
from nelbo.data.examples import Examples, TensorExamples
from nelbo.data.spec import DataSpec
from nelbo.data.to_stored import check_shape, to_stored
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import ContinuousTime
from nelbo.diffusion.denoiser import Denoiser, Prediction
from nelbo.diffusion.process import diffuse
from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.generation import SampleGenerator
from nelbo.evaluation.ledger import Ledger
from nelbo.evaluation.measure import Measurement
from nelbo.evaluation.measure_split import measure_split
from nelbo.evaluation.noise import ExampleNoise
from nelbo.evaluation.processes import Processes
from nelbo.evaluation.units import Unit
from nelbo.interop.detected_format import DetectedFormat
from nelbo.interop.formats import CheckpointFormat
from nelbo.progress import counted
from nelbo.reports.evaluation_progress import evaluation_progress
from nelbo.reports.numbers import plus_minus

if TYPE_CHECKING:
    from nelbo.diffusion.chain import Chain, StepSequence
    from nelbo.diffusion.samplers import Sampler
    from nelbo.diffusion.spacings import Spacing
    from nelbo.evaluation.estimators import BoundEstimator

_Cond = (
    int
    | str
    | Sequence[int | str]
    | Tensor
    | np.ndarray
    | Mapping[str, Tensor | np.ndarray | Sequence[Any] | float]
)
GivenCond = _Cond | np.integer


def load(
    checkpoint: Path | str,
    *,
    weights: str = "ema",
    experiment: str | None = None,
    options: Sequence[str] = (),
    checkpoint_format: CheckpointFormat | None = None,
    trust: str | Sequence[str] | None = None,
    device: torch.device | str | None = None,
) -> "Model":
    """The model of a checkpoint. Nothing in the file is executed.

    Args:
        checkpoint: a checkpoint of ``train.py`` or the folder of a run, a folder of diffusers, weights of
            improved-diffusion, or the name of a model on the Hugging Face hub.
        weights: ``ema`` (averaged) or ``raw``.
        experiment: training configuration, for files that do not store it: ``iddpm_cifar10_hybrid``.
        options: of ``train.py``, that differ from the experiment: ``["model.channels=64"]``.
        checkpoint_format: None to detect it. Weights of guided-diffusion need a ``GuidedDiffusionFormat``.
        trust: class or package to accept in the stored configuration although ``conf/`` does not name it.
        device: of the network; None for a GPU if there is one.

    Raises:
        ValueError: for a checkpoint that is missing (also a FileNotFoundError), damaged, or refused, with the
            remedy.
        OSError: for a file that cannot be read.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with composing():
        config = hydra.compose("evaluate")
        config.checkpoint, config.weights = str(checkpoint), weights
        config.trained_as = experiment
        config.trained_with = [options] if isinstance(options, str) else list(options)
        config.trust = list(trust) if isinstance(trust, Sequence) and not isinstance(trust, str) else trust
        trained = read_model(config, checkpoint_format or DetectedFormat())
    trained.module.requires_grad_(False).to(device)
    return Model(trained, torch.device(device))


@dataclass(frozen=True)
class StepTerms:
    """L_t of each step of the chain after the first, whose term is L_0. Arrays (K - 1,).

    Attributes:
        t: timestep; in continuous time the number of the bin, 2..K.
        mean: of L_t over its draws, in the unit of the bound; NaN for a step that was not drawn.
        stderr: standard error of ``mean``; NaN for fewer than two draws.
        count: draws of the step.
        contribution: unbiased estimate of L_t; the sum over the chain is that of the bound.
    """

    t: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray
    count: np.ndarray
    contribution: np.ndarray


@dataclass(frozen=True)
class BoundResult:
    """The bound of a set of images: total = L_0 + sum of L_t + L_T, in bits/dim (nats for continuous data).

    Attributes:
        unit: of all values; ``unit.label`` is its name.
        total: mean over the images, its standard error, and the Monte Carlo part of the error.
        L_0: the reconstruction term.
        L_t: the denoising terms by timestep.
        L_T: the prior term.
        per_example: (N,) the bound of each image.
        ledger: what the bound depends on.
        shortfall: a sentence about a target that the measurement missed; None if it missed none.
        measurement: the same in nats, with the terms of each image by bins of t.
    """

    unit: Unit
    total: Estimate
    L_0: Estimate
    L_t: StepTerms
    L_T: Estimate
    per_example: np.ndarray
    ledger: Ledger
    shortfall: str | None
    measurement: Measurement

    @property
    def bpd(self) -> float:
        """The bound in bits/dim.

        Raises:
            ValueError: for continuous data, whose bound is in nats.
        """
        if not self.unit.is_discrete:
            raise ValueError("the bound of continuous data is in nats: use total.mean")
        return self.total.mean

    @property
    def stderr(self) -> float:
        """Standard error of the bound, in its unit; NaN for a single image."""
        return self.total.stderr

    def __str__(self) -> str:
        denoising = _scaled(self.measurement.estimate.denoising, self.unit.per_nat)
        parts = {"L_0": self.L_0, "sum of L_t": denoising, "L_T": self.L_T}
        terms = ", ".join(f"{name} {plus_minus(part.mean, part.stderr)}" for name, part in parts.items())
        return f"{plus_minus(self.total.mean, self.total.stderr)} {self.unit.label} ({terms})"


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        trained: network, schedule, decoder, data specification and configuration.
        device: of the network.
    """

    trained: TrainedModel
    device: torch.device

    def __repr__(self) -> str:
        network = self.denoiser.network
        parameters = sum(parameter.numel() for parameter in network.parameters())
        return (
            f"Model({str(self.trained.path)!r}, {type(network).__name__} with {parameters:,} parameters, "
            f"data {self.spec.shape}, {self.trained.weights.kind} weights, {self.device})"
        )

    @property
    def spec(self) -> DataSpec:
        """Shape, levels and classes of the data."""
        return self.trained.spec

    @property
    def denoiser(self) -> Denoiser:
        """Network, parameterization and reverse variance. Its parameters have no gradients."""
        return self.trained.module.denoiser

    @property
    def chain(self) -> "StepSequence":
        """All timesteps, or continuous time."""
        return self.trained.module.bound.chain

    def bound(
        self,
        images: Tensor | np.ndarray,
        *,
        cond: GivenCond | None = None,
        target_stderr: float | None = None,
        estimator: "str | BoundEstimator" = "importance",
        steps: int | None = None,
        spacing: "str | Spacing" = "even",
        clip: bool = False,
        seed: int = 0,
        batch_size: int = 512,
        progress: bool = False,
    ) -> BoundResult:
        """The variational bound of images, as ``evaluate.py`` measures it.

        Args:
            images: (N, *shape): integers are level indices, such as 0 to 255, and floats are in [-1, 1].
            cond: the classes, for a conditional model: one for all images by name or number, a list of N, or
                (N,) class indices. For a mapping of conditions: a mapping of tensors (N, ...), or of the
                values of one example for all images.
            target_stderr: Monte Carlo standard error to reach, in bits/dim (nats for continuous data); None
                for 0.005. It is an option of the importance estimator.
            estimator: choice of ``conf/estimator``, or an object. ``full`` evaluates every term. An
                ``ImportanceEstimator`` makes one measurement.
            steps: length of a shorter chain; None for all T timesteps.
            spacing: choice of ``conf/spacing``, or an object: the timesteps of a shorter chain.
            clip: clamp x0_hat to the range of the data: a different bound.
            seed: of the measurement, for an estimator that is named.
            batch_size: images at a time.
            progress: show a progress bar.

        Raises:
            ValueError: for images of another kind than the model's, classes or options that cannot work, and
                a bound that is not finite.
        """
        module, spec = self.trained.module, self.spec
        _check_batch_size(batch_size)
        data = GivenImages(images, self._cond(cond, len(images)), spec, eval_batch_size=batch_size)
        bound = self.trained.bound(clip, "clip=True")
        if steps is not None:
            bound = bound.along(self._shorter_chain(spacing, steps, bound))
        if isinstance(estimator, str):
            target = {} if target_stderr is None else {"target_stderr": target_stderr}
            estimator = build_component("estimator", estimator, {"seed": seed, **target})
        elif target_stderr is not None:
            raise ValueError("target_stderr is an argument of the estimator that is given")
        assert not isinstance(estimator, str)
        with evaluation_progress(estimator, module.unit, shown=progress) as show:
            (measured,), (ledger,) = measure_split(
                data,
                "test",
                denoiser=module.denoiser,
                bound=bound,
                others=[],
                estimator=estimator,
                unit=module.unit,
                conditional=module.conditional,
                weights=self.trained.weights.kind,
                processes=self._processes,
                progress=show,
            )
        if not math.isfinite(measured.estimate.total.mean):
            raise ValueError(f"the bound is {measured.estimate.total.mean}: the model has diverged")
        shortfall = estimator.shortfall(measured.estimate, module.unit)
        return _result(measured, ledger, module.unit, shortfall)

    @torch.no_grad()
    def terms(
        self,
        x0: Tensor | np.ndarray,
        t: float | Sequence[float] | Tensor,
        *,
        cond: GivenCond | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Terms of the bound of each image, one draw of noise each.

        Args:
            x0: (N, *shape) images, as in :meth:`bound`; all of them are evaluated at once.
            t: a timestep in 1..T, or R of them. The term of t = 1 is L_0. In continuous time u in [0, 1]: the
                term of u = 0 is L_0, and others are per unit of u, so that their mean over uniform u is the
                sum of L_t.
            cond: the classes, as in :meth:`bound`.
            seed: of the noise, which depends on the seed, t and the position of the image alone.

        Returns:
            (N,) for one timestep, (N, R) for several, in bits/dim (nats for continuous data).

        Raises:
            ValueError: for images of another kind, timesteps outside 1..T, or u outside [0, 1].
        """
        module = self.trained.module
        batch = GivenImages(x0, self._cond(cond, len(x0)), self.spec).take("test", len(x0)).to(self.device)
        timesteps = self._timesteps(t)
        columns = []
        for number in timesteps.flatten().tolist():
            at = torch.full((len(x0),), number, dtype=timesteps.dtype, device=self.device)
            step = self.chain.at(at) if isinstance(self.chain, ContinuousTime) else self.chain.step(at)
            noise = ExampleNoise(seed, f"terms, t={number}", batch.index, batch.x0).draw()
            prediction = module.denoiser(diffuse(batch.x0, noise, step.t), step.t, batch.cond)
            columns.append(module.bound.term(step, batch.x0, prediction) * module.unit.per_nat)
        return columns[0] if timesteps.ndim == 0 else torch.stack(columns, dim=1)

    def denoise(
        self, xt: Tensor, t: float | Sequence[float] | Tensor, *, cond: GivenCond | None = None
    ) -> Prediction:
        """The prediction at x_t: ``x0_hat`` and ``eps_hat``, (N, *shape).

        Gradients with respect to ``xt`` are available if it requires them.

        Args:
            xt: (N, *shape) floats, signal x_0 + noise eps, as of ``nelbo.diffusion.diffuse``.
            t: a timestep in 1..T, or u in [0, 1] in continuous time; or one for each example.
            cond: the classes, as in :meth:`bound`. A model with ``cond_dropout`` predicts without a condition
                if it is None.

        Raises:
            ValueError: for another shape, timesteps outside 1..T, u outside [0, 1], or classes that cannot
                work.
        """
        check_shape(xt, self.spec)
        timesteps = self._timesteps(t)
        if timesteps.ndim and len(timesteps) not in (1, len(xt)):
            raise ValueError(f"t has {len(timesteps)} timesteps for {len(xt)} examples: give 1 or {len(xt)}")
        null = self.trained.module.null
        if cond is None and null is not None:
            all_rows = torch.ones(len(xt), dtype=torch.bool)
            own_cond = drop(self.spec.example_cond(len(xt)), all_rows, null)
        else:
            own_cond = self._cond(cond, len(xt))
        level = self.chain.schedule.level(timesteps.expand(len(xt)).to(self.device))
        return self.denoiser(xt.to(self.device), level, to_device(own_cond, self.device))

    def sample(
        self,
        n: int,
        *,
        sampler: "str | Sampler" = "ddim",
        steps: int | None = None,
        spacing: "str | Spacing" = "trailing",
        seed: int = 0,
        cond: GivenCond | None = None,
        guidance: float | None = None,
        batch_size: int = 64,
        progress: bool = False,
    ) -> Tensor:
        """Samples as of ``sample.py``, (n, *shape) float32 on ``device``, in values, rounded to the levels.

        ``spec.to_pixels`` converts them to uint8 pixels.

        Args:
            n: number of samples. Sample i depends on the seed and i alone.
            sampler: choice of ``conf/sampler``, or an object.
            steps: of the sampler; None for its own number.
            spacing: choice of ``conf/spacing``, or an object: the timesteps of the steps.
            seed: of the noise.
            cond: a class, or classes that are repeated, or a mapping as in :meth:`bound`; None for all
                classes in turn, or the conditions of training examples.
            guidance: scale of classifier-free guidance, for models with ``cond_dropout``.
            batch_size: samples at a time.
            progress: show a progress bar.

        Raises:
            ValueError: for classes or options that cannot work, and samples that are not finite.
        """
        if n < 1:
            raise ValueError(f"n={n}: at least one sample is needed")
        _check_batch_size(batch_size)
        if isinstance(sampler, str):
            options = {} if steps is None else {"steps": steps}
            sampler = build_component("sampler", sampler, options, data_range=self.spec.range)
        assert not isinstance(sampler, str)
        cond = _without_dimensions(cond)
        if cond is None and self.trained.module.conditional:
            own_cond = (
                torch.arange(n) % (self.spec.num_classes or 1)
                if self.spec.cond is None
                else read_data(self.trained).training_conds(n)
            )
        elif isinstance(cond, Sequence | Tensor | np.ndarray) and not isinstance(cond, str) and len(cond):
            own_cond = rows_of(self._cond(cond, len(cond)), torch.arange(n) % len(cond))
        else:
            own_cond = self._cond(cond, n)
        steps = sampler.steps if steps is None else steps
        denoise = choose_denoise(guidance, self.trained)
        chain = self._shorter_chain(spacing, steps, self.trained.module.bound)
        generate = SampleGenerator(self.spec.shape, sampler, denoise, chain, own_cond, seed, self.device)
        parts = []
        with counted("drawing samples", shown=progress) as show:
            for numbers in torch.arange(n).split(batch_size):
                parts.append(generate(numbers.tolist()))
                show(int(numbers[-1]) + 1, n)
        return self.spec.as_stored(torch.cat(parts))

    @property
    def _processes(self) -> Processes:
        return Processes(0, 1, self.device)

    def _shorter_chain(self, spacing: "str | Spacing", steps: int | None, bound: VariationalBound) -> "Chain":
        chosen: Spacing | partial[Spacing]
        chosen = build_component("spacing", spacing, {}) if isinstance(spacing, str) else spacing
        return spaced_chain(
            chosen,
            self.chain.schedule,
            steps,
            lambda: step_costs(self.trained, bound, read_data(self.trained), "val", self._processes),
        )

    def _timesteps(self, t: float | Sequence[float] | Tensor) -> Tensor:
        """Timesteps () or (R,) int64; in continuous time u, float64.

        Raises:
            ValueError: for others than integers in 1..T, or numbers in [0, 1].
        """
        timesteps, T = torch.as_tensor(t).cpu(), self.chain.schedule.num_steps
        is_list = timesteps.ndim <= 1 and timesteps.numel() > 0
        if T is None:
            if not is_list or timesteps.is_complex() or not bool(((timesteps >= 0) & (timesteps <= 1)).all()):
                raise ValueError(f"t={t}: the model is in continuous time, expected u from 0 to 1")
            return timesteps.double()
        if not is_list or not _are_integers(timesteps, 1, T):
            raise ValueError(f"t={t}: expected integers from 1 to {T}")
        return timesteps.long()

    def _cond(self, cond: GivenCond | None, n: int) -> Cond | None:
        """Class indices (n,) int64, or a mapping of tensors (n, ...), on the CPU; None for an unconditional
        model.

        Raises:
            ValueError: for an unknown class, or another number, names or shapes.
        """
        cond, last = _without_dimensions(cond), (self.spec.num_classes or 0) - 1
        if not self.trained.module.conditional:
            if cond is not None:
                raise ValueError(f"cond={cond}, but the model was trained without conditions")
            return None
        if cond is None:
            kind = "one class or one for each image" if self.spec.cond is None else "a mapping of tensors"
            raise ValueError(f"the model is conditional: give cond=, {kind}")
        if self.spec.cond is not None:
            return given_mapping(cond, self.spec, n)
        if isinstance(cond, Mapping):
            raise ValueError("cond must be classes: the model has no mapping of conditions")
        if isinstance(cond, int | str):
            return torch.full((n,), class_number(cond, self.spec))
        if isinstance(cond, Tensor | np.ndarray):
            label = torch.as_tensor(cond).cpu()
            if label.ndim != 1 or not _are_integers(label, 0, last):
                raise ValueError(f"cond must be class indices (N,), integers from 0 to {last}")
        else:
            label = torch.tensor([class_number(name, self.spec) for name in cond])
        if len(label) != n:
            raise ValueError(f"cond has {len(label)} classes for {n} images")
        return label.long()


class GivenImages(DataModule):
    """Images in memory; the same ones in each split.

    Args:
        images: (N, *shape), see :func:`to_stored`.
        cond: (N,) int64 class indices, or a mapping of tensors (N, ...); None for an unconditional model.
        spec: of the data of the model.
        loading: see :class:`DataModule`.

    Raises:
        ValueError: for images that do not agree with ``spec``.
    """

    def __init__(self, images: Any, cond: Cond | None, spec: DataSpec, **loading: Unpack[Loading]) -> None:
        super().__init__(**loading)
        self._examples = TensorExamples(to_stored(images, spec), cond)
        self._spec = spec if cond is not None else replace(spec, cond=None)

    @property
    def spec(self) -> DataSpec:
        """That of the model."""
        return self._spec

    def read_split(self, name: SplitName) -> Examples:
        """The images, whatever the split."""
        return self._examples


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected an integer of at least 1")


def _without_dimensions(cond: GivenCond | None) -> _Cond | None:
    """A class that is given as an array or tensor () as a number or name; others unchanged.

    Raises:
        ValueError: for an array () of another type.
    """
    if isinstance(cond, np.generic) or (isinstance(cond, Tensor | np.ndarray) and cond.ndim == 0):
        item = cond.item()
        if not isinstance(item, int | str):
            raise ValueError(f"cond={item}: expected a class, or one for each image")
        return item
    return cond


def _are_integers(x: Tensor, low: int, high: int) -> bool:
    is_integral = not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
    return is_integral and bool(((x >= low) & (x <= high)).all())


def _result(measured: Measurement, ledger: Ledger, unit: Unit, shortfall: str | None) -> BoundResult:
    estimate, steps, per_nat = measured.estimate, measured.steps, unit.per_nat
    return BoundResult(
        unit=unit,
        total=_scaled(estimate.total, per_nat),
        L_0=_scaled(estimate.reconstruction, per_nat),
        L_t=StepTerms(
            t=steps.t[1:].numpy(),
            mean=(steps.mean * per_nat)[1:].numpy(),
            stderr=(steps.stderr * per_nat)[1:].numpy(),
            count=steps.count.long()[1:].numpy(),
            contribution=(measured.contributions * per_nat)[1:].numpy(),
        ),
        L_T=_scaled(estimate.prior, per_nat),
        per_example=(measured.examples.sum(1) * per_nat).numpy(),
        ledger=ledger,
        shortfall=shortfall,
        measurement=measured,
    )


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    mc_stderr = None if estimate.mc_stderr is None else estimate.mc_stderr * factor
    return Estimate(estimate.mean * factor, estimate.stderr * factor, mc_stderr)
