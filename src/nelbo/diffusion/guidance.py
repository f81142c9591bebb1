"""Classifier-free guidance (Ho & Salimans 2022, equation 6).

    eps = eps_hat(x_t) + w (eps_hat(x_t, cond) - eps_hat(x_t))

with w = 1 the conditional model, w = 0 the unconditional one, and w > 1 an extrapolation. (The paper's w is
this w - 1.) x0_hat is linear in eps_hat, so the same holds for it; the reverse variance is that of the
conditional model. The unconditional prediction uses the null value that replaces dropped conditions in
training.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nelbo.cond import Cond, Null, concatenate, drop
from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import NoiseLevel


@dataclass(frozen=True)
class Guided:
    """A denoiser under guidance: two evaluations of the network, in one call.

    Attributes:
        denoise: of a model that was trained with dropped conditions.
        weight: w.
        null: the value of the conditions of an unconditional prediction.
    """

    denoise: Denoise
    weight: float
    null: Null

    def __call__(self, xt: Tensor, level: NoiseLevel, cond: Cond | None = None) -> Prediction:
        """The guided prediction, x0_hat and eps_hat (B, ...)."""
        assert cond is not None, "guidance is towards a condition"
        twice = NoiseLevel(torch.cat([level.t, level.t]), torch.cat([level.logsnr, level.logsnr]))
        all_rows = torch.ones(len(xt), dtype=torch.bool, device=xt.device)
        conds = concatenate([cond, drop(cond, all_rows, self.null)])
        both = self.denoise(torch.cat([xt, xt]), twice, conds)
        x0_hat, x0_hat_alone = both.x0_hat.chunk(2)
        eps_hat, eps_hat_alone = both.eps_hat.chunk(2)
        return replace(
            both,
            x0_hat=torch.lerp(x0_hat_alone, x0_hat, self.weight),
            eps_hat=torch.lerp(eps_hat_alone, eps_hat, self.weight),
            var_output=None if both.var_output is None else both.var_output.chunk(2)[0],
        )
