"""The codec of a trained model."""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256

import torch

from nelbo.compose.component import build_component
from nelbo.compose.measurements import denoiser_options
from nelbo.compose.shorter_chain import spaced_chain, step_costs
from nelbo.compose.trained import TrainedModel, read_data
from nelbo.data import DataModule
from nelbo.diffusion.chain import Chain, LevelChain
from nelbo.diffusion.spacings import Spacing
from nelbo.evaluation.codec import ChainCodec
from nelbo.evaluation.processes import Processes

STEPS = 50
EXAMPLES = 8  # on which the costs of steps are measured, if none are kept
LEVELS = 2**20  # of continuous time that a chain is chosen from


def choose_timesteps(model: TrainedModel, spacing: str | None, steps: int | None, clip: bool) -> list[int]:
    """The timesteps of the chain to code along; in continuous time multiples of u = 2^-20.

    Args:
        model: with the costs of its steps next to the checkpoint, or with its data, for ``optimal``.
        spacing: choice of ``conf/spacing``; None for ``optimal``, and ``even`` in continuous time.
        steps: of the chain; None for 50, or all if there are fewer.
        clip: whether x0_hat is clamped.

    Raises:
        ValueError: for an unknown spacing, or more steps than there are timesteps.
        OSError: when the data of the model is needed and not there.
    """
    bound = model.bound(clip, "--clip")
    T = bound.chain.schedule.num_steps
    chosen: Spacing | partial[Spacing]
    chosen = build_component("spacing", spacing or ("optimal" if T is not None else "even"), {})
    processes = Processes(0, 1, torch.device("cpu"))
    chain = spaced_chain(
        chosen,
        bound.chain.schedule,
        min(STEPS, T or STEPS) if steps is None else steps,
        lambda: step_costs(model, bound, _data_of(model), "val", processes, EXAMPLES),
    )
    t = chain.t()
    return (t if T is not None else (LEVELS * t).round().long()).tolist()


def _data_of(model: TrainedModel) -> DataModule:
    try:
        return read_data(model)
    except OSError as error:
        raise OSError(
            f"--spacing=optimal needs the data of the model: {error}; use --spacing=even"
        ) from error


def build_codec(
    model: TrainedModel,
    timesteps: Sequence[int],
    *,
    clip: bool,
    bin_width: float | None,
    batch_size: int,
    threads: int,
) -> ChainCodec:
    """The codec along a chain.

    Args:
        model: on the CPU.
        timesteps: of the chain; in continuous time multiples of u = 2^-20.
        clip: whether x0_hat is clamped to the range of the data.
        bin_width, batch_size, threads: see :class:`ChainCodec`.

    Raises:
        ValueError: for timesteps that the schedule does not have, continuous data without a bin width, or a
            bin width for other data.
    """
    bound = model.bound(clip, "--clip")
    schedule, t = bound.chain.schedule, torch.tensor(timesteps)
    chain = LevelChain(schedule, t / LEVELS) if schedule.num_steps is None else Chain(schedule, t)
    return ChainCodec(
        bound.along(chain),
        model.module.denoiser,
        model.spec,
        bin_width=bin_width,
        batch_size=batch_size,
        threads=threads,
    )


def describe_model(model: TrainedModel, codec: ChainCodec) -> dict[str, str]:
    """Hashes of everything about a model that its code depends on, by name: 8 hexadecimal digits each."""
    variance, bound = model.module.denoiser.variance, codec.bound
    logsnr = [bound.chain.level(torch.tensor([i])).logsnr.item() for i in range(1, bound.chain.num_steps + 1)]
    parts = {
        "weights": model.fingerprint,
        "denoiser": denoiser_options(model),
        "variance": f"{type(variance).__name__}, first step {variance.first_step}",
        "decoder": str(bound.decoder),
        "levels": repr(logsnr),
        "data": f"{model.spec.shape}, {model.spec.levels} levels",
    }
    return {name: sha256(part.encode()).hexdigest()[:8] for name, part in parts.items()}
