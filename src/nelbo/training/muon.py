"""Muon for matrices, and AdamW for all other parameters, as one optimizer."""

from collections.abc import Iterable
from typing import Any

from torch.nn import Parameter
from torch.optim import AdamW, Muon, Optimizer

from nelbo.option_types import NonNegativeFloat, PositiveFloat


class MuonAdamW(Optimizer):
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) and AdamW of torch.optim.

    Muon orthogonalises the update of a matrix. It takes the parameters with two axes, AdamW all others, such
    as biases and the weights of convolutions.

    Args:
        params: parameters of a model.
        lr: learning rate of AdamW.
        betas: of AdamW.
        muon_lr: learning rate of Muon, whose updates have singular values of about 1.
        momentum: of Muon.
        weight_decay: decoupled, of both.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: PositiveFloat,
        betas: tuple[float, float],
        muon_lr: PositiveFloat,
        momentum: NonNegativeFloat,
        weight_decay: NonNegativeFloat,
    ) -> None:
        params = list(params)
        others = [parameter for parameter in params if parameter.ndim != 2]
        matrices = [parameter for parameter in params if parameter.ndim == 2]
        self._parts: list[Optimizer] = []
        if others:
            self._parts.append(AdamW(others, lr=lr, betas=betas, weight_decay=weight_decay, fused=True))
        if matrices:
            self._parts.append(Muon(matrices, lr=muon_lr, momentum=momentum, weight_decay=weight_decay))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Any = None) -> Any:
        """Update all parameters; ``closure`` computes the loss, which is returned."""
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of both."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let both parts use the state and the groups of this optimizer; each has one group."""
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.state, part.param_groups = self.state, [group]
