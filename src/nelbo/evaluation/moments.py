"""Measurement of the mean squared error of x0_hat at every timestep, for ``variance=analytic``."""

import torch
from torch import Tensor

from nelbo.cond import rows_of
from nelbo.data.batch import Batch
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.level import mean_per_example
from nelbo.diffusion.process import diffuse
from nelbo.evaluation.estimators.importance import steps_by_logsnr
from nelbo.evaluation.log_linear import log_linear
from nelbo.evaluation.noise import ExampleNoise
from nelbo.evaluation.stratified_draws import stratified_draws
from nelbo.progress import ReportProgress

EVALUATIONS = 16_384  # of the network, in total
EXAMPLES = 1024  # at most; their noise is in memory at the same time
DRAWS_PER_BIN = 64  # gives an error of log MSE of about 0.1, which enters a KL squared


@torch.no_grad()
def measure_log_mse(
    bound: VariationalBound,
    denoise: Denoise,
    batch: Batch,
    conditional: bool = False,
    seed: int = 0,
    pairs_per_call: int = 512,
    evaluations: int = EVALUATIONS,
    progress: ReportProgress = lambda done, total: None,
) -> Tensor:
    """log E |x_0 - x0_hat|^2 / D at each timestep of a full chain, (T,) float64 on the CPU.

    Timesteps are spread evenly over the examples, half of them uniform in t and half in logsnr. Means are
    taken over bins of neighbouring timesteps and interpolated linearly in the logarithm.

    Args:
        bound: of the full chain; its clipping is applied to x0_hat.
        denoise: maps (x_t, level, cond) to a prediction.
        batch: examples, on the device of the computation.
        conditional: whether the denoiser receives their conditions.
        seed: of the draws.
        pairs_per_call: pairs of example and timestep in one call of the network.
        evaluations: network evaluations, at least one per example.
        progress: called with the number of completed evaluations and of all.
    """
    T, n = bound.chain.num_steps, len(batch.x0)
    draws = max(1, evaluations // n)
    u = stratified_draws(n, draws, seed, "moments")
    steps = torch.searchsorted(steps_by_logsnr(bound.chain).cumsum(0), u, right=True).clamp(max=T - 1) + 1
    noise = ExampleNoise(seed, "moments", torch.arange(n), batch.x0)
    count, total = torch.zeros(2, T, dtype=torch.float64)
    for number, column in enumerate(steps.to(batch.x0.device).T, start=1):
        eps = noise.draw()
        for rows in torch.arange(n, device=batch.x0.device).split(pairs_per_call):
            x0, level = batch.x0[rows], bound.chain.level(column[rows])
            cond = rows_of(batch.cond, rows) if conditional else None
            prediction = denoise(diffuse(x0, eps[rows], level), level, cond)
            error = mean_per_example((x0 - bound.x0_hat(prediction)).square())
            index = column[rows].cpu() - 1
            count.index_add_(0, index, torch.ones(len(index), dtype=torch.float64))
            total.index_add_(0, index, error.double().cpu())
        progress(number * n, draws * n)
    return log_linear(count, total, DRAWS_PER_BIN).log()
