"""Measurement of the costs of all steps of all chains: T network evaluations per example for 2^T chains.

The prediction at x_t does not depend on the other end of the step, so one prediction at t gives L_0 and the
KL to every cleaner level s (Watson et al. 2021). An example has the same noise at every t, so that chains are
compared with common random numbers and the table is smooth in t.

With ``first_step=beta_tilde`` L_0 also depends on the chain's second level u, through c = 1 - SNR_u / SNR_t.
All pairs would be T^2 / 2 evaluations of the decoder, the most expensive formula. L_0 is smooth in log c, so
it is interpolated from 16 values of u to the precision of float32. (DDPM's tanh decoder with its clamp is not
smooth where the network is far off; there the error is up to 1%.)
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from nelbo.cond import Cond, repeat, rows_of
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.chain import Chain, StepSequence
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import NoiseLevel, Step, data_level, step_noise_fraction
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.step_cost_table import StepCostTable
from nelbo.evaluation.chebyshev import chebyshev_points, interpolation_matrix
from nelbo.evaluation.noise import ExampleNoise
from nelbo.progress import ReportProgress

Score = Callable[[Step, Tensor, Prediction], Tensor]

SECOND_LEVELS = 16  # at which L_0 is evaluated
# per batch of the formulas: fits the cache of a CPU; keeps a GPU busy in half a gigabyte
SCALARS_ON_CPU, SCALARS_ON_GPU = 2**16, 2**22


@torch.no_grad()
def measure_step_costs(
    bound: VariationalBound,
    denoise: Denoise,
    x0: Tensor,
    cond: Cond | None = None,
    seed: int = 0,
    pairs_per_call: int = 512,
    progress: ReportProgress = lambda done, total: None,
) -> StepCostTable:
    """The costs of all steps between the levels of a chain, means over examples in nats.

    Args:
        bound: of the full chain; its decoder and its clipping are used.
        denoise: maps (x_t, level, cond) to a prediction.
        x0: (B, ...) examples, on the device of the computation.
        cond: of conditional denoisers: (B,) class labels, or a mapping of tensors (B, ...).
        seed: of the noise, which is a function of it and of an example's position in ``x0``.
        pairs_per_call: pairs of example and timestep in one call of the network.
        progress: called after each network call with the number of completed evaluations and of all.

    Raises:
        ValueError: in continuous time, which has no timesteps.
    """
    chain, T = bound.chain, bound.chain.num_steps
    prior = _priors(bound, x0)
    first = torch.zeros(T, T + 1, dtype=torch.float64, device=x0.device)
    step = first[:, :T].clone()
    noise = ExampleNoise(seed, "step costs", torch.arange(len(x0)), x0).draw()
    done = 0
    for rows in torch.arange(len(x0), device=x0.device).split(pairs_per_call):
        own_x0, own_noise, own_cond = x0[rows], noise[rows], rows_of(cond, rows)
        for part in torch.arange(1, T + 1, device=x0.device).split(pairs_per_call // len(rows)):
            for i, prediction in _predict(chain, denoise, own_x0, own_noise, own_cond, part):
                first[i - 1, i:] += _first_costs(bound, own_x0, prediction, i)
                step[: i - 1, i - 1] += _step_costs(bound, own_x0, prediction, i)
            done += len(rows) * len(part)
            progress(done, len(x0) * T)
    impossible = torch.ones_like(first, dtype=torch.bool).tril()
    return StepCostTable(
        timesteps=chain.t(),
        first=(first / len(x0)).masked_fill(impossible, torch.inf).cpu(),
        step=(step / len(x0)).masked_fill(impossible[:, :T], torch.inf).cpu(),
        prior=prior.cpu(),
    )


def _predict(
    chain: StepSequence, denoise: Denoise, x0: Tensor, noise: Tensor, cond: Cond | None, index: Tensor
) -> Iterator[tuple[int, Prediction]]:
    """One network call for all examples at all levels ``index`` (R,); yields the predictions per level."""
    R, B = len(index), len(x0)
    level = chain.level(index.repeat_interleave(B))
    every_x0, every_noise = (x.repeat(R, *(1,) * (x.ndim - 1)) for x in (x0, noise))
    xt = diffuse(every_x0, every_noise, level)
    prediction = denoise(xt, level, repeat(cond, R))
    for row, i in enumerate(index.tolist()):
        yield i, _rows(prediction, slice(row * B, (row + 1) * B))


def _step_costs(bound: VariationalBound, x0: Tensor, prediction: Prediction, i: int) -> Tensor:
    """L_t of the steps from level i to each cleaner level, (i - 1,), summed over the examples."""
    s = bound.chain.level(torch.arange(1, i, device=x0.device))
    t = _level_like(bound.chain, i, s)
    # ``next`` matters for first steps only
    return _scored(bound.denoising, Step(s=s, t=t, next=t), x0, prediction)


def _first_costs(bound: VariationalBound, x0: Tensor, prediction: Prediction, i: int) -> Tensor:
    """L_0 from level i with second level i + 1, ..., T, or none: (T - i + 1,), summed over the examples."""

    def scored(second: NoiseLevel) -> Tensor:
        t = _level_like(bound.chain, i, second)
        return _scored(bound.reconstruction, Step(s=data_level(t), t=t, next=second), x0, prediction)

    this = bound.chain.level(torch.tensor([i], device=x0.device))
    seconds = bound.chain.level(torch.arange(i + 1, bound.chain.num_steps + 1, device=x0.device))
    alone = scored(this)
    if not _looks_ahead(bound.chain, prediction, i):
        return alone.expand(len(seconds.t) + 1)
    if len(seconds.t) <= SECOND_LEVELS:
        return torch.cat([scored(seconds), alone])
    log_share = step_noise_fraction(this, seconds).log()
    points = chebyshev_points(log_share[0].item(), log_share[-1].item(), SECOND_LEVELS).to(x0.device)
    at_points = scored(NoiseLevel(this.t.expand_as(points), this.logsnr + torch.log1p(-points.exp())))
    return torch.cat([interpolation_matrix(points, log_share) @ at_points, alone])


def _looks_ahead(chain: StepSequence, prediction: Prediction, i: int) -> bool:
    """Whether the variance of the first step from level i depends on the second level."""
    index = torch.full((len(prediction.x0_hat),), i, device=prediction.x0_hat.device)
    t, second = chain.level(index), chain.level((index + 1).clamp(max=chain.num_steps))
    with_second, alone = (prediction.log_var(Step(data_level(t), t, next=u)) for u in (second, t))
    return not torch.equal(with_second, alone)


def _priors(bound: VariationalBound, x0: Tensor) -> Tensor:
    """Mean L_T of the chains that end at each level, (T,)."""
    schedule, timesteps = bound.chain.schedule, bound.chain.t()
    ends = (VariationalBound(Chain(schedule, t), bound.decoder) for t in timesteps.split(1))
    return torch.stack([end.prior(x0).double().mean() for end in ends])


def _scored(score: Score, step: Step, x0: Tensor, prediction: Prediction) -> Tensor:
    """Terms of the same B predictions for N different steps, (N,) nats, summed over the examples."""
    B = len(x0)
    at_once = (SCALARS_ON_CPU if x0.device.type == "cpu" else SCALARS_ON_GPU) // x0.numel()
    sums: list[Tensor] = []
    for part in torch.arange(len(step.t.t), device=x0.device).split(max(1, at_once)):
        pairs = part.repeat_interleave(B)
        rows = torch.arange(B, device=x0.device).repeat(len(part))
        pair_step = Step(*(NoiseLevel(x.t[pairs], x.logsnr[pairs]) for x in (step.s, step.t, step.next)))
        nats = score(pair_step, x0[rows], _rows(prediction, rows))
        sums.append(nats.double().view(-1, B).sum(1))
    return torch.cat(sums) if sums else x0.new_zeros(0, dtype=torch.float64)


def _rows(prediction: Prediction, rows: Tensor | slice) -> Prediction:
    """The predictions of some of the examples."""
    var_output = None if prediction.var_output is None else prediction.var_output[rows]
    return replace(
        prediction, x0_hat=prediction.x0_hat[rows], eps_hat=prediction.eps_hat[rows], var_output=var_output
    )


def _level_like(chain: StepSequence, i: int, like: NoiseLevel) -> NoiseLevel:
    """Level i of the chain, shaped like ``like``."""
    return chain.level(torch.full_like(like.t, i))
