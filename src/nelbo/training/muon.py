"""Muon for matrices, and AdamW for all other parameters, as one optimizer."""

from collections.abc import Iterable
from typing import Any

from torch import __version__, optim
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from nelbo.option_types import NonNegativeFloat, PositiveFloat, Probability


class MuonAdamW(Optimizer):
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) and AdamW of torch.optim.

    Muon orthogonalises the update of a matrix. It takes all parameters with two axes, so also embeddings and
    the output of a transformer, which the authors leave to AdamW. AdamW takes all others, such as biases and
    the weights of convolutions. ``train/lr`` is the learning rate of AdamW.

    Args:
        params: parameters of a model.
        lr: learning rate of AdamW.
        betas: of AdamW.
        muon_lr: learning rate of Muon, whose updates have singular values of about 1.
        momentum: of Muon.
        weight_decay: decoupled, of both.

    Raises:
        ValueError: for a version of torch without Muon.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: PositiveFloat,
        betas: tuple[Probability, Probability],
        muon_lr: PositiveFloat,
        momentum: Probability,
        weight_decay: NonNegativeFloat,
    ) -> None:
        if not hasattr(optim, "Muon"):
            raise ValueError(
                f"optimizer=muon needs torch>=2.9, and this is {__version__}: use optimizer=adamw"
            )
        params = list(params)
        others = [parameter for parameter in params if parameter.ndim != 2]
        matrices = [parameter for parameter in params if parameter.ndim == 2]
        self._parts: list[Optimizer] = []
        if others:
            self._parts.append(AdamW(others, lr=lr, betas=betas, weight_decay=weight_decay, fused=True))
        if matrices:
            self._parts.append(optim.Muon(matrices, lr=muon_lr, momentum=momentum, weight_decay=weight_decay))
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
