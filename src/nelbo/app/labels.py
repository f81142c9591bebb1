"""Which classes are sampled, and under which guidance."""

import torch
from omegaconf import DictConfig
from torch import Tensor

from nelbo.app.trained import TrainedModel, read_data
from nelbo.data.proportions import proportional_labels
from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.guidance import Guided


def choose_labels(config: DictConfig, model: TrainedModel) -> Tensor | None:
    """The class of each sample, (n,); None for an unconditional model.

    Without a choice the classes take turns; samples that are compared with the data have its proportions.

    Raises:
        ValueError: for a class that there is not, or a model that knows none.
    """
    classes = model.spec.num_classes if model.module.conditional else None
    if classes is None:
        if config.label is not None:
            raise ValueError(f"label={config.label}, but the model was trained without classes")
        return None
    if config.label is None:
        if config.get("features") is None:
            return torch.arange(config.n) % classes
        label = read_data(model).split("train").label
        assert label is not None, "a conditional model has data with labels"
        return proportional_labels(label.bincount(minlength=classes), config.n)
    if not 0 <= config.label < classes:
        raise ValueError(f"label={config.label}: the model knows the classes 0 to {classes - 1}")
    return torch.full((config.n,), config.label)


def choose_denoise(config: DictConfig, model: TrainedModel) -> Denoise:
    """The model's predictions, guided where it is wanted.

    Raises:
        ValueError: for guidance of a model that was not trained for it.
    """
    module = model.module
    if config.guidance is None:
        return module.denoiser
    if not module.conditional:
        raise ValueError(f"guidance={config.guidance}, but the model was trained without classes")
    if module.no_label is None:
        raise ValueError(
            f"guidance={config.guidance}, but the model was trained without label_dropout, and does not know "
            "how to predict without a class"
        )
    return Guided(module.denoiser, float(config.guidance), module.no_label)
