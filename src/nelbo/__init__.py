"""nelbo: train diffusion models and measure their negative evidence lower bound.

    model = nelbo.load("outputs/.../checkpoints/last.ckpt")
    result = model.bound(images)
    samples = model.sample(64)

Importing the package is cheap: torch, Lightning and Hydra are imported when a name is first used.
"""

from typing import TYPE_CHECKING

from nelbo import _torchvision
from nelbo._lazy import lazy_names

if TYPE_CHECKING:
    from nelbo import data, diffusion, evaluation, interop, models
    from nelbo.pretrained import BoundResult, Model, StepTerms, load

__all__ = [
    "BoundResult",
    "Model",
    "StepTerms",
    "data",
    "diffusion",
    "evaluation",
    "interop",
    "load",
    "models",
]
__version__ = "0.1.0"
__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("BoundResult", "Model", "StepTerms", "load"), "nelbo.pretrained"),
        **{name: f"nelbo.{name}" for name in ("data", "diffusion", "evaluation", "interop", "models")},
    },
)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


_torchvision.install()
