"""A model from a checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig, OmegaConf

from nelbo.compose.build import build_module
from nelbo.compose.config import nested_composition, search_path_option, to_plain
from nelbo.compose.options import check_component, has_argument, names_argument
from nelbo.compose.stored_config import MODEL, check_values, plain_config, validate_stored
from nelbo.data import DataModule, DataRecord, DataSpec
from nelbo.data.record import format_names
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.decoders import Decoder
from nelbo.evaluation.fingerprint import fingerprint
from nelbo.interop.formats import CheckpointFormat, Weights
from nelbo.interop.formats.nelbo import NETWORK, SCHEDULE, below
from nelbo.interop.state_dict import differences
from nelbo.runs.paths import LAST
from nelbo.training.module import DiffusionModule
from nelbo.training.post_hoc_ema import average_of_length


@dataclass(frozen=True)
class TrainedModel:
    """A model from a checkpoint.

    Attributes:
        module: network, parameterization, variance, schedule and decoder, with the weights loaded.
        spec: of the data that it was trained on.
        config: that it was trained with.
        weights: of the network, and what else the file contains.
        path: of the checkpoint.
        data: record of the data that it was trained on; None for checkpoints that have none.
    """

    module: DiffusionModule
    spec: DataSpec
    config: DictConfig
    weights: Weights
    path: Path
    data: DataRecord | None = None

    @property
    def fingerprint(self) -> str:
        """A hash of the weights of the network and, where it is learned, of the schedule."""
        schedule = {f"schedule.{name}": value for name, value in self.weights.schedule.items()}
        return fingerprint({**self.weights.network, **schedule})

    def bound(self, clip: bool, option: str, decoder: Decoder | None = None) -> VariationalBound:
        """The bound over all timesteps, or of continuous time.

        Args:
            clip: whether x0_hat is clamped to the range of the data.
            option: name of ``clip`` in the message.
            decoder: None for that of the model.

        Raises:
            ValueError: for clipping of data that has no range.
        """
        if clip and self.spec.range is None:
            raise ValueError(f"{option} needs data with a range, and this data is continuous")
        own = self.module.bound
        return VariationalBound(
            own.chain, decoder or own.decoder, self.spec.range if clip else None, own.shape
        )


def load_model(checkpoint: Path | str, *options: str) -> TrainedModel:
    """The model of a checkpoint, for scripts and notebooks.

    Args:
        checkpoint: file or folder.
        *options: of ``conf/evaluate.yaml``: ``weights=raw``, ``format@checkpoint_format=diffusers``.

    Raises:
        ValueError: for a checkpoint that is missing, damaged, of another format or for another network.
    """
    with composing():
        config = hydra.compose("evaluate", overrides=list(options))
        config.checkpoint = str(checkpoint)  # not an option: a path may hold what Hydra would read otherwise
        return read_model(config)


@contextmanager
def composing() -> Iterator[None]:
    """A :func:`nested_composition` for use from Python.

    Raises:
        ValueError: for a choice that there is not. The error of a constructor is raised without that of
            Hydra around it.
    """
    try:
        with nested_composition():
            yield
    except InstantiationException as error:
        raise error.__cause__ or error from None
    except MissingConfigException as error:
        raise ValueError(" ".join(str(error).split())) from None


def read_model(config: DictConfig, checkpoint_format: CheckpointFormat | None = None) -> TrainedModel:
    """The model of a command.

    Args:
        config: of the command: ``checkpoint``, ``checkpoint_format``, ``trained_as``, ``trained_with``,
            ``weights``, ``ema``, ``root``.
        checkpoint_format: in place of that of ``config``.

    Raises:
        ValueError: for a checkpoint that is missing, damaged, of another format or for another network.
    """
    if OmegaConf.is_missing(config, "checkpoint"):
        raise ValueError("which model? checkpoint=outputs/.../checkpoints/last.ckpt")
    path = Path(config.checkpoint)
    if (path / LAST).is_file():  # the folder of a run
        path = path / LAST
    checkpoint_format = checkpoint_format or instantiate(config.checkpoint_format)
    assert checkpoint_format is not None
    weights = read_weights(config, checkpoint_format, path)
    values = training_config(config, weights, path)
    record = read_record(weights, path)
    if config.root is not None and (
        config.get("data") is None or has_argument(values["data"]["_target_"], "root")
    ):  # otherwise it is the root of the data that the command chooses
        set_root(values["data"], config.root)
    else:
        if record is not None and record.root is not None:  # a relative one depends on the current folder
            values["data"]["root"] = record.root
        if names_argument(values["data"]["_target_"], "download"):  # into a folder that a file names
            values["data"]["download"] = False
    trained = plain_config(values, path)
    spec: DataSpec = instantiate(trained.data).spec if record is None else record.spec
    module = build_module(trained, spec)
    load_weights(module, weights, path)
    return TrainedModel(module.eval(), spec, trained, weights, path, record)


def set_root(data: dict[str, Any] | DictConfig, root: str) -> None:
    """Set the folder of the data in its node.

    Raises:
        ValueError: for data that reads no files.
    """
    if not has_argument(data["_target_"], "root"):
        name = data["_target_"].rpartition(".")[2]
        raise ValueError(f"root={root}: {name} reads no files from a folder: leave out root")
    data["root"] = root


def read_weights(config: DictConfig, checkpoint_format: CheckpointFormat, path: Path) -> Weights:
    """The weights that a command names: those of the checkpoint, or an average of another length.

    Raises:
        ValueError: for a checkpoint that cannot be read, and for ``ema`` of a run without snapshots.
    """
    if config.ema is None:
        return checkpoint_format.read(path, config.weights)
    if config.weights == "raw":
        raise ValueError(f"ema={config.ema:g} is an average: leave out weights=raw")
    average = average_of_length(path, config.ema)
    weights = checkpoint_format.read(path, "raw")  # with the buffers; all runs have them
    return replace(
        weights,
        network=weights.network | below(NETWORK, average),
        schedule=weights.schedule | below(SCHEDULE, average),
        kind=f"ema_{config.ema:g}",
    )


def read_record(weights: Weights, path: Path) -> DataRecord | None:
    """The record of the training data in a checkpoint; None if there is none.

    Raises:
        ValueError: for a record that is damaged.
    """
    if weights.data is None:
        return None
    check_values({"data": weights.data}, path)
    try:
        return DataRecord.from_dict(weights.data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_data(model: TrainedModel) -> DataModule:
    """The data that the model was trained on.

    Raises:
        OSError: when it is not there.
        ValueError: when its classes are not those of the model.
    """
    data: DataModule = instantiate(model.config.data)
    data.prepare_data()
    match_classes(data, model)
    return data


def match_classes(data: DataModule, model: TrainedModel) -> None:
    """Give the classes of the data the indices that the conditional model was trained with.

    Raises:
        ValueError: for data with other classes than the model's.
    """
    if not model.module.conditional:
        return
    names, spec = model.spec.class_names, data.spec
    if spec.cond != model.spec.cond:
        raise ValueError(
            f"the model has the conditions {dict(model.spec.cond or {})}, and {type(data).__name__} has "
            f"{dict(spec.cond or {})}"
        )
    if names is not None and model.data is not None:
        data.map_classes(names)
        return
    if spec.num_classes != model.spec.num_classes:  # all that is known of classes without names
        raise ValueError(
            f"the model knows {model.spec.num_classes} classes, and {type(data).__name__} has "
            f"{spec.num_classes or 'none'}"
        )
    if spec.class_names is not None:
        rank_zero_warn(
            f"{model.path} does not store class names: its classes 0 to {len(spec.class_names) - 1} are "
            f"taken to be, in this order, {format_names(spec.class_names)}"
        )


def training_config(config: DictConfig, weights: Weights, path: Path) -> dict[str, Any]:
    """The configuration that the model was trained with: the file's own, or a named experiment.

    Returns:
        Plain values, in which every component is known or trusted.

    Raises:
        ValueError: when neither is there, or both are; for options that are refused or out of range.
    """
    if weights.config is not None:
        if config.trained_as is not None:
            raise ValueError(
                f"experiment={config.trained_as}, but {path} says itself how it was trained: leave it out"
            )
        trained = validate_stored(weights.config, path, config.trust, model_only=True)
    elif config.trained_as is None:
        raise ValueError(f"{path} does not say how it was trained: name it, such as experiment=ddpm_cifar10")
    else:
        options = [f"experiment={config.trained_as}", *config.trained_with, *search_path_option()]
        try:
            composed = hydra.compose("train", overrides=options)
        except MissingConfigException:
            raise
        except HydraException as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ValueError(f"trained_with: {reason}; expected options of train.py") from error
        composed.run_dir = None  # an interpolation that Hydra resolves inside of a command only
        check_values(weights.parts, path)
        trained = to_plain(composed) | weights.parts
    for part in MODEL & trained.keys():
        check_component(part, trained[part])
    return trained


def load_weights(module: DiffusionModule, weights: Weights, path: Path) -> None:
    """Load the weights into the network, and into a learned schedule.

    Raises:
        ValueError: for missing or unexpected weights, or weights of another shape.
    """
    parts = {"network": module.denoiser.network, "schedule": module.schedule}
    stored = {"network": weights.network, "schedule": weights.schedule}
    for name, part in parts.items():
        found = differences(stored[name], part.state_dict())
        if found:
            raise ValueError(f"the weights in {path} do not fit the {name} of its configuration: {found}")
        part.load_state_dict(stored[name])
