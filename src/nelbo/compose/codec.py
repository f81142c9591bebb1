"""The codec of a trained model."""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256

import torch

from nelbo.compose.component import build_component
from nelbo.compose.measurements import DENOISER
from nelbo.compose.shorter_chain import spaced_chain, step_costs
from nelbo.compose.trained import TrainedModel, read_data
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain, LevelChain
from nelbo.diffusion.spacings import Spacing
from nelbo.evaluation.codec import ChainCodec
from nelbo.evaluation.processes import Processes

STEPS = 50


def choose_codec_chain(model: TrainedModel, spacing: str | None, steps: int | None, clip: bool) -> Chain:
    """The chain to code along.

    Args:
        model: with the costs of its steps next to the checkpoint, or with its data, for ``optimal``.
        spacing: choice of ``conf/spacing``; None for ``optimal``, and ``even`` in continuous time.
        steps: of the chain; None for 50, or all if there are fewer.
        clip: whether x0_hat is clamped.

    Raises:
        ValueError: for an unknown spacing, or more steps than there are timesteps.
        OSError: when the data of the model is needed and not there.
    """
    bound = codec_bound(model, clip)
    T = bound.chain.schedule.num_steps
    chosen: Spacing | partial[Spacing]
    chosen = build_component("spacing", spacing or ("optimal" if T is not None else "even"), {})
    processes = Processes(0, 1, torch.device("cpu"))
    return spaced_chain(
        chosen,
        bound.chain.schedule,
        min(STEPS, T or STEPS) if steps is None else steps,
        lambda: step_costs(model, bound, read_data(model), "val", processes),
    )


def codec_bound(model: TrainedModel, clip: bool) -> VariationalBound:
    """The bound over all timesteps, with x0_hat clamped to the range of the data or not.

    Raises:
        ValueError: for clipping of data that has no range.
    """
    if clip and model.spec.range is None:
        raise ValueError("--clip needs data with a range, and this data is continuous")
    own = model.module.bound
    return VariationalBound(own.chain, own.decoder, model.spec.range if clip else None, own.shape)


def build_codec(
    model: TrainedModel,
    timesteps: Sequence[float],
    *,
    clip: bool,
    bin_width: float | None,
    batch_size: int,
    threads: int,
) -> ChainCodec:
    """The codec along a chain.

    Args:
        model: on the CPU.
        timesteps: of the chain; in continuous time u, the levels.
        clip: whether x0_hat is clamped to the range of the data.
        bin_width, batch_size, threads: see :class:`ChainCodec`.

    Raises:
        ValueError: for timesteps that the schedule does not have, continuous data without a bin width, or a
            bin width for other data.
    """
    bound = codec_bound(model, clip)
    schedule, given = bound.chain.schedule, torch.tensor(timesteps)
    if schedule.num_steps is None:
        chain = LevelChain(schedule, torch.tensor(timesteps, dtype=torch.float64))
    else:
        if given.is_floating_point():
            raise ValueError("the chain has levels of continuous time, and the model has timesteps")
        chain = Chain(schedule, given)
    return ChainCodec(
        bound.along(chain),
        model.module.denoiser,
        model.spec,
        bin_width=bin_width,
        batch_size=batch_size,
        threads=threads,
    )


def describe_model(model: TrainedModel, codec: ChainCodec) -> dict[str, str]:
    """Everything about a model that its code depends on."""
    variance, bound = model.module.denoiser.variance, codec.bound
    logsnr = [bound.chain.level(torch.tensor([i])).logsnr.item() for i in range(1, bound.chain.num_steps + 1)]
    return {
        "weights": model.fingerprint,
        "denoiser": sha256(repr({name: model.config.get(name) for name in DENOISER}).encode()).hexdigest()[
            :16
        ],
        "variance": f"{type(variance).__name__}, first step {variance.first_step}",
        "decoder": str(bound.decoder),
        "levels": f"{logsnr[0]!r} to {logsnr[-1]!r}, sum {sum(logsnr)!r}",
        "data": f"{model.spec.shape}, {model.spec.levels} levels",
    }
