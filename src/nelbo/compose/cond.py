"""Conditions and guidance of samples."""

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from nelbo.compose.trained import TrainedModel, read_data
from nelbo.cond import Cond, map_cond
from nelbo.data import DataSpec
from nelbo.data.proportions import proportional_labels
from nelbo.data.record import format_names
from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.guidance import Guided


def choose_cond(config: DictConfig, model: TrainedModel) -> Cond | None:
    """The condition of each of n samples; None for an unconditional model.

    Without a choice the classes take turns; samples that are compared with the data have its proportions. A
    list of classes is repeated. The conditions of a mapping are those of training examples, or the given one.

    Raises:
        ValueError: for an unknown class, other names or shapes, or an unconditional model.
        OSError: where the conditions of the data are needed, and it is not there.
    """
    spec, n = model.spec, int(config.n)
    given = OmegaConf.to_container(config.cond) if OmegaConf.is_config(config.cond) else config.cond
    if not model.module.conditional:
        if given is not None:
            raise ValueError(f"cond={given}, but the model was trained without conditions")
        return None
    if given is not None:
        return given_mapping(given, spec, n) if spec.cond is not None else given_classes(given, spec, n)
    if spec.cond is not None:
        return read_data(model).training_conds(n)
    if config.get("features") is None:
        return torch.arange(n) % (spec.num_classes or 1)
    counts = model.data.class_counts if model.data is not None else None
    if counts is not None:
        return proportional_labels(torch.tensor(counts), n)
    return read_data(model).training_conds(n)


def given_classes(given: Any, spec: DataSpec, n: int) -> Tensor:
    """Class numbers (n,): one class for all, or a list of classes that is repeated.

    Raises:
        ValueError: for an unknown class, an empty list, or a mapping.
    """
    if isinstance(given, Mapping) or given == []:
        raise ValueError(f"cond={given}: expected a class, or a list of classes")
    numbers = [class_number(label, spec) for label in (given if isinstance(given, list) else [given])]
    return torch.tensor(numbers)[torch.arange(n) % len(numbers)]


def given_mapping(given: Any, spec: DataSpec, n: int) -> Cond:
    """A mapping of tensors (n, ...), from tensors of that shape, or from values of one example for all.

    Raises:
        ValueError: for other names or shapes, or anything but a mapping.
    """
    names = sorted(spec.cond or ())
    if not isinstance(given, Mapping) or set(given) != set(names):
        raise ValueError(f"cond={given}: expected a mapping with the names {format_names(names)}")
    try:
        tensors = {name: torch.as_tensor(value) for name, value in given.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"cond={given}: expected numbers, or lists of them") from error
    for name, own in (spec.cond or {}).items():
        if tuple(tensors[name].shape) == tuple(own.shape):
            tensors[name] = tensors[name].expand(n, *own.shape)
    spec.check_cond(tensors, n)
    return spec.to_cond(map_cond(Tensor.cpu, tensors)) or {}


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
        raise ValueError(f"guidance={guidance}, but the model was trained without conditions")
    if module.null is None:
        raise ValueError(
            f"guidance={guidance}, but the model was trained without cond_dropout, and does not know "
            "how to predict without a condition"
        )
    return Guided(module.denoiser, float(guidance), module.null)
