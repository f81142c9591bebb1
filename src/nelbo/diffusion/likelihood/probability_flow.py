"""Log-likelihood by the probability-flow ODE (Song et al. 2021, "Score-based generative modeling").

In y = x / signal and sigma = noise / signal the ODE of every Gaussian process is (EDM, Karras et al. 2022)

    dy/dsigma = (y - D(y; sigma)) / sigma = eps_hat .

It is integrated in x = signal y, over log sigma = -logsnr / 2, with v_hat = signal eps_hat - noise x0_hat:

    dx/dlog sigma = signal noise v_hat .

The change of variables has log |dy/dx| = -D log signal. In x the states keep the scale of the data and of
N(0, I), and the velocity and its divergence vanish at both ends; in y the state grows as sigma and the
divergence contains D log sigma, which cancels at the end. The density at the clean end is

    log p(x at start) = log N(x at end; 0, I) + int tr(d velocity / dx) dlog sigma .
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.cond import Cond
from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.gaussian import DiagonalGaussian
from nelbo.diffusion.level import NoiseLevel, scale, sum_per_example
from nelbo.diffusion.likelihood.divergence import Divergence
from nelbo.diffusion.likelihood.solvers import Solver
from nelbo.diffusion.schedules import NoiseSchedule


@dataclass(frozen=True)
class FlowLogProb:
    """Log densities of a batch.

    Attributes:
        log_prob: (B, P) float64, nats, one estimate for each probe of the divergence; (B, 1) if it is exact.
        evaluations: (B,) int64, network evaluations.
    """

    log_prob: Tensor
    evaluations: Tensor


class ProbabilityFlow:
    """The probability-flow ODE of a denoiser.

    It runs from the cleanest level of the schedule to the noisiest finite one, where the distribution is
    N(0, I). Between the timesteps of a discrete schedule the denoiser is evaluated at fractional timesteps,
    see :meth:`NoiseSchedule.at_logsnr`.

    Args:
        denoise: maps (x_t, level, cond) to a prediction; differentiable with respect to x_t.
        schedule: noise levels.
    """

    def __init__(self, denoise: Denoise, schedule: NoiseSchedule) -> None:
        self.denoise = denoise
        self.schedule = schedule
        self.start, self.end = (-0.5 * logsnr for logsnr in schedule.finite_ends())

    def velocity(self, x: Tensor, log_sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """dx/dlog sigma, (B, ...), at x (B, ...) and log sigma (B,) float64."""
        logsnr = -2.0 * log_sigma
        level = NoiseLevel(self.schedule.at_logsnr(logsnr), logsnr)
        prediction = self.denoise(x, level, cond)
        signal, noise = level.signal_scale, level.noise_scale
        along_eps = scale(signal.square() * noise, prediction.eps_hat)
        return along_eps - scale(signal * noise.square(), prediction.x0_hat)

    def log_prob(
        self, x: Tensor, solver: Solver, divergence: Divergence, probes: Tensor, cond: Cond | None = None
    ) -> FlowLogProb:
        """Log density of x at the cleanest level.

        Args:
            x: (B, ...) signal x_0 + noise eps at the cleanest level. The network receives its dtype; the
                state of the solver is float64.
            solver: of the ODE.
            divergence: of the velocity.
            probes: (P, B, ...) of ``divergence.probes``.
            cond: of conditional denoisers: (B,) class labels, or a mapping of tensors (B, ...).

        Raises:
            ValueError: if the solver does not reach the noisy end.
        """
        shape, dims = x.shape, x[0].numel()

        def derivative(log_sigma: Tensor, state: Tensor) -> Tensor:
            with torch.inference_mode(False), torch.enable_grad():
                at = state[:, :dims].detach().clone().to(x.dtype).view(shape).requires_grad_()
                velocity = self.velocity(at, log_sigma, cond)
                trace = divergence.trace(velocity, at, probes)
            return torch.cat([velocity.detach().flatten(1).double(), trace.double()], dim=1)

        estimates = max(1, len(probes))
        state = torch.cat([x.flatten(1).double(), x.new_zeros(len(x), estimates).double()], dim=1)
        solution = solver.solve(derivative, state, self.start, self.end)
        end, integral = solution.y[:, :dims], solution.y[:, dims:]
        prior = DiagonalGaussian(torch.zeros_like(end), torch.zeros_like(end[:, :1])).log_prob(end)
        return FlowLogProb(sum_per_example(prior)[:, None] + integral, solution.evaluations)
