"""Which classes are sampled, and under which guidance."""

import torch
from omegaconf import DictConfig
from torch import Tensor

from nelbo.compose.trained import TrainedModel, read_data
from nelbo.data import DataSpec
from nelbo.data.proportions import proportional_labels
from nelbo.data.record import format_names
from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.guidance import Guided


def choose_cond(config: DictConfig, model: TrainedModel) -> Tensor | None:
    """The class of each sample, (n,); None for an unconditional model.

    Without a choice the classes take turns; samples that are compared with the data have its proportions.

    Raises:
        ValueError: for an unknown class, or an unconditional model.
    """
    classes = model.spec.num_classes if model.module.conditional else None
    if classes is None:
        if config.cond is not None:
            raise ValueError(f"cond={config.cond}, but the model was trained without classes")
        return None
    if config.cond is None:
        if config.get("features") is None:
            return torch.arange(config.n) % classes
        counts = model.data.class_counts if model.data is not None else None
        if counts is not None:
            return proportional_labels(torch.tensor(counts), config.n)
        label = read_data(model).split("train").label
        assert label is not None, "a conditional model has data with labels"
        return proportional_labels(label.bincount(minlength=classes), config.n)
    return torch.full((config.n,), class_number(config.cond, model.spec))


def class_number(label: int | str, spec: DataSpec) -> int:
    """The number of a class that is given by its name or its number.

    Where names are numbers themselves, such as those of digits, only names count.

    Raises:
        ValueError: for a class that there is not.
    """
    names, given = spec.class_names or (), str(label)
    if given in names:
        return names.index(given)
    numbers = () if any(name.isdigit() for name in names) else tuple(map(str, range(spec.num_classes or 0)))
    if given in numbers:
        return numbers.index(given)
    or_numbers = f", or their numbers 0 to {len(numbers) - 1}" if names and numbers else ""
    raise ValueError(
        f"cond={label}: the model knows the classes {format_names(names or numbers)}{or_numbers}"
    )


def choose_denoise(guidance: float | None, model: TrainedModel) -> Denoise:
    """The model's predictions, with classifier-free guidance of this scale unless it is None.

    Raises:
        ValueError: for guidance of a model that was not trained for it.
    """
    module = model.module
    if guidance is None:
        return module.denoiser
    if not module.conditional:
        raise ValueError(f"guidance={guidance}, but the model was trained without classes")
    if module.null is None:
        raise ValueError(
            f"guidance={guidance}, but the model was trained without cond_dropout, and does not know "
            "how to predict without a class"
        )
    return Guided(module.denoiser, float(guidance), module.null)
