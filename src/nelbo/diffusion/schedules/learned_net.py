"""VDM's schedule with a learned interior (Kingma et al. 2021, section 5.2 and appendix H).

    logsnr(u) = max + (min - max) (g(u) - g(0)) / (g(1) - g(0)),   g(u) = l1(u) + l3(tanh(l2(2 u - 1) / 2))

where the l are linear layers with positive weights, so g increases. The ends are parameters, and normalising
g keeps the curve on them however g is trained. The bound does not depend on the interior in continuous time:
its expected gradient there is 0. ``loss=vlb`` trains the interior to minimise the variance of the training
estimate w loss instead, where w is the importance weight of the timestep. The gradient of E[(w loss)^2] is
2 w loss times that of w loss (appendix I.2, where w = 1).
"""

import torch
from torch import Tensor, nn

from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.schedules.base import CurvePoint
from nelbo.diffusion.schedules.learned_ends import LearnedEnds


class LearnedNet(LearnedEnds):
    """Learned ends, and a monotone network between them.

    Args:
        num_steps: None: continuous time.
        initial_max: logsnr at u = 0 at the start of training; see :class:`LearnedEnds` for ``"auto"``.
        initial_min: logsnr at u = 1 at the start of training.
        features: number of hidden units.
        half_bin: see :class:`LearnedEnds`.

    Raises:
        ValueError: as :class:`LearnedEnds`.
    """

    def __init__(
        self,
        num_steps: int | None = None,
        initial_max: float | str = "auto",
        initial_min: float = -5.0,
        features: int = 1024,
        half_bin: float | None = None,
    ) -> None:
        super().__init__(num_steps, initial_max, initial_min, half_bin)
        self.w1 = nn.Parameter((self.max - self.min).detach())
        self.w2 = nn.Parameter(torch.randn(features))
        self.b2 = nn.Parameter(torch.zeros(features))
        self.w3 = nn.Parameter(torch.randn(features))

    def point(self, u: Tensor) -> CurvePoint:
        """Noise levels and rates at u (B,) in [0, 1], float64, differentiable in the parameters."""
        with torch.inference_mode(False), torch.enable_grad():
            at = u.detach().clone().requires_grad_()
            interior = self.interior(at)
            (slope,) = torch.autograd.grad(interior.sum(), at, create_graph=True)
        clean, noisy = self.max.to(u), self.min.to(u)
        level = NoiseLevel(u, clean + interior * (noisy - clean))
        return CurvePoint(level, slope * (clean - noisy), (interior, slope))

    def interior(self, u: Tensor) -> Tensor:
        """(g(u) - g(0)) / (g(1) - g(0)), same shape as ``u``."""
        clean, noisy = self._g(torch.arange(2, dtype=torch.float64, device=u.device))
        return (self._g(u) - clean) / (noisy - clean)

    def _g(self, u: Tensor) -> Tensor:
        # positive weights: absolute values, as in VDM's code
        w1, w2, w3 = (w.to(u).abs() for w in (self.w1, self.w2, self.w3))
        hidden = torch.tanh(0.5 * (w2 * (2.0 * u.unsqueeze(-1) - 1.0) + self.b2.to(u)))
        return w1 * u + hidden @ w3 / len(w3)
