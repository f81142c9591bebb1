"""Every file of ``conf/`` is one component: it says all of its arguments, and only what exists.

A new component is found by listing the folders; nothing here has to be touched for it.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning import Callback
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from nelbo.cli.error_message import describe_error
from nelbo.compose import build
from nelbo.evaluation.estimators import MultiRoundEstimator

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
FILES = sorted(CONF.glob("*/*.yaml"))
DEFAULTS = yaml.safe_load((CONF / "train.yaml").read_text())["defaults"]

# what the composition root adds to the arguments of a file; the rest must be in the file
SUPPLIED = {
    "schedule": {"half_bin"},
    "sampler": {"data_range"},
    "decoder": {"levels"},
    "model": {"shape", "out_channels", "num_classes"},
    "optimizer": {"params"},
    "lr_schedule": {"optimizer"},
    "trainer": {"callbacks", "logger"},
}
# what it adds to the arguments of those that have them
OFFERED = {
    "callbacks": {"sampler", "spacing", "features", "spec", "num_classes"},
    "variance": {"log_mse"},
    "spacing": {"costs"},
    "timesteps": {"num_steps", "chain"},
    "c_noise": {"scale"},
    "parameterization": {"levels"},
    "dequantization": {"levels"},
    "likelihood": {"solver", "divergence", "dequantization"},
}
# where the components of a group live, and what they have in common
HOMES = {
    "schedule": ("nelbo.diffusion.schedules", "NoiseSchedule"),
    "parameterization": ("nelbo.diffusion.parameterizations", "Parameterization"),
    "variance": ("nelbo.diffusion.variances", "ReverseVariance"),
    "decoder": ("nelbo.diffusion.decoders", "Decoder"),
    "loss": ("nelbo.diffusion.losses", "Loss"),
    "c_noise": ("nelbo.diffusion.noise_conditioning", "NoiseConditioning"),
    "timesteps": ("nelbo.diffusion.timesteps", "TimestepSampler"),
    "sampler": ("nelbo.diffusion.samplers", "Sampler"),
    "spacing": ("nelbo.diffusion.spacings", "Spacing"),
    "estimator": ("nelbo.evaluation.estimators", "BoundEstimator"),
    "solver": ("nelbo.evaluation.likelihoods.solvers", "Solver"),
    "divergence": ("nelbo.diffusion.likelihood.divergence", "Divergence"),
    "features": ("nelbo.evaluation.sample_metrics.features", "Features"),
    "format": ("nelbo.interop.formats", "CheckpointFormat"),
    "data": ("nelbo.data", "DataModule"),
}


def components() -> dict[str, tuple[str, dict]]:
    """Every node with a ``_target_``, under the name that a person gives it: its group and its node."""
    found = {}
    for path in FILES:
        group = path.parent.name
        content = yaml.safe_load(path.read_text()) or {}
        nodes = {"": content} if "_target_" in content else {f".{k}": v for k, v in content.items()}
        for suffix, node in nodes.items():
            if isinstance(node, dict) and "_target_" in node:
                found[f"{group}={path.stem}{suffix}"] = (group + suffix, node)
    return found


COMPONENTS = components()


def options(node: dict) -> set[str]:
    return {name for name in node if not (name.startswith("_") or name == "defaults")}


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_file_says_every_argument_and_no_other(name, arguments_of):
    group, node = COMPONENTS[name]
    target = get_object(node["_target_"])
    arguments = set(arguments_of(target)) - {"args"}
    supplied = SUPPLIED.get(group, OFFERED.get(group.split(".")[0], set()) & arguments)
    assert supplied <= arguments
    assert options(node) <= arguments - supplied
    if node["_target_"].startswith("nelbo."):
        assert options(node) == arguments - supplied


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_a_file_begins_with_what_it_is(path):
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("group", HOMES)
def test_every_class_has_a_file_and_every_file_a_class(group):
    package, base = HOMES[group]
    home = importlib.import_module(package)
    classes = set()
    inside = pkgutil.iter_modules(home.__path__, f"{package}.") if hasattr(home, "__path__") else ()
    for name in (package, *(module.name for module in inside)):
        for _, member in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if issubclass(member, getattr(home, base)) and not inspect.isabstract(member):
                classes.add(f"{member.__module__}.{member.__qualname__}")
    targets = [node["_target_"] for name, (of, node) in COMPONENTS.items() if of == group]
    assert sorted(target for target in targets if target.startswith("nelbo.")) == sorted(classes)


def is_network(member: type) -> bool:
    return issubclass(member, nn.Module) and set(inspect.signature(member).parameters) >= SUPPLIED["model"]


def is_callback(member: type) -> bool:
    return issubclass(member, Callback)


@pytest.mark.parametrize(
    ("package", "group", "is_one"),
    [("nelbo.models", "model", is_network), ("nelbo.training.callbacks", "callbacks.", is_callback)],
)
def test_every_network_and_every_callback_has_a_file(package, group, is_one):
    home = importlib.import_module(package)
    classes = set()
    for module in pkgutil.iter_modules(home.__path__, f"{package}."):
        for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if member.__module__ == module.name and is_one(member):
                classes.add(f"{member.__module__}.{member.__qualname__}")
    targets = {node["_target_"] for of, node in COMPONENTS.values() if of.startswith(group)}
    named = {get_object(target) for target in targets if target.startswith(package)}
    assert {f"{found.__module__}.{found.__qualname__}" for found in named} == classes


def test_every_class_can_be_imported_from_its_package():
    for package, base in HOMES.values():
        home = importlib.import_module(package)
        assert base in home.__all__


# ----------------------------------------------------------------------------------------------------------

GROUPS = {next(iter(entry)).split("@")[0]: next(iter(entry)) for entry in DEFAULTS if isinstance(entry, dict)}


def is_for_training(path: Path) -> bool:
    """train.py refuses what needs several rounds, or something measured on a trained model."""
    content = yaml.safe_load(path.read_text()) or {}
    if "_target_" not in content:
        return True
    target = get_object(content["_target_"])
    if inspect.isclass(target) and issubclass(target, MultiRoundEstimator):
        return False
    return not (path.parent.name in ("variance", "spacing") and content.get("_partial_"))


CHOICES = [
    (GROUPS[path.parent.name], path.stem)
    for path in FILES
    if path.parent.name in GROUPS and is_for_training(path)
]
DATA = ("digits", "patches", "gaussian")  # grey, colour, and no images at all


def compose_choice(compose: Callable, group: str, option: str, *others: str, run_dir: Path) -> DictConfig:
    """What ``train.py <others> group=option`` composes.

    Hydra composes a choice that changes no other one without the rest, in a third of the time.
    """
    folder, _, place = group.partition("@")
    text = (CONF / folder / f"{option}.yaml").read_text()
    if "@package _global_" in text or "override /" in text:
        return compose(*others, f"{group}={option}", run_dir=run_dir)
    config, place = compose(*others, run_dir=run_dir), place or folder
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config[place] = hydra_compose(overrides=[f"+{group}={option}"])[place]
    return config


@pytest.mark.parametrize(("group", "option"), CHOICES, ids=lambda value: value)
def test_every_choice_works_with_some_data_and_is_refused_in_one_line_by_the_rest(
    group, option, compose, arguments_of, tmp_path
):
    (tmp_path / "a class").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "a class/image.png")
    np.save(tmp_path / "images.npy", np.zeros((1, 1, 8, 8), np.uint8))
    companions = [()] if group in ("data", "experiment") else [(f"data={name}",) for name in DATA]
    if group == "loss":  # most losses need a fixed variance
        companions = [(*data, *more) for data in companions for more in ((), ("variance=fixed_large",))]
    if group == "schedule":  # continuous time needs them
        companions = [(*data, "variance=fixed_large", "c_noise=logsnr") for data in companions]
    refusals = []
    for options in companions:
        config = compose_choice(compose, group, option, *options, run_dir=tmp_path)
        if config.data._target_.endswith("HFDataset"):
            pytest.importorskip("datasets")
            config.data.column, config.data.levels = "x", 2
            images = np.zeros((40, 1, 28, 28), np.uint8).tolist()
            pq.write_table(pa.table({"x": images}), tmp_path / "x.parquet")
        if "root" in config.data:
            config.data.root = str(tmp_path)
        if config.model.get("depth", 0) > 8:
            config.model.depth = 1  # the blocks are equal, and the published size takes seconds
            if "width" in config.model:
                config.model.width = 4 * config.model.num_heads
        assert_no_unknown_arguments(OmegaConf.to_container(config, resolve=True), arguments_of)
        spec = instantiate(config.data).spec
        try:
            module = build.build_module(config, spec)
            build.build_callbacks(config, spec, module.bound.chain)
        except (ValueError, InstantiationException) as error:
            if not isinstance(error.__cause__ or error, ValueError):
                raise
            refusals.append(describe_error(error, "train"))
        else:
            break
    else:
        pytest.fail(f"it works with no data: {refusals}")
    assert all("use " in line or "attention_resolutions=" in line for line in refusals), refusals


def assert_no_unknown_arguments(node: object, arguments_of: Callable) -> None:
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        assert options(node) <= set(arguments_of(get_object(node["_target_"])))
    for child in node.values():
        assert_no_unknown_arguments(child, arguments_of)
