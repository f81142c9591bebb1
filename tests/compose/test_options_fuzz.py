"""Random sets of options, valid and invalid, over all groups of ``conf/``.

The groups and their choices come from the files, types and ranges of options from the annotations of the
constructors. A valid set trains, or is refused in one line that names one of its options. A set with one
invalid value is refused in one line that begins with the name and the value of that option.

``NELBO_FUZZ=300`` runs 300 sets of each kind.
"""

import json
import math
import os
import random
import re
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from nelbo.cli.error_message import describe_error
from nelbo.compose import build, options
from nelbo.compose.declared_options import TrainOptions
from nelbo.compose.options import check_options
from nelbo.training.checks import check_network

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("NELBO_FUZZ_SEED", "0"))
MANY = int(os.environ.get("NELBO_FUZZ", "30"))
FEW = int(os.environ.get("NELBO_FUZZ", "40"))  # sets that are only checked

DEFAULTS = [
    next(iter(entry.items()))
    for entry in yaml.safe_load((ROOT / "conf/train.yaml").read_text())["defaults"]
    if isinstance(entry, dict)
]
GROUPS = [name for name, _ in DEFAULTS if not name.startswith(("override", "experiment", "objective"))]
# what a machine may lack (a GPU, downloads, files of the user's own), and what takes long
NOT_HERE = {
    "trainer": {"gpu", "ddp", "fsdp"},
    "features": {"inception", "module"},
    "logger": {"wandb"},
    "model": {"unet_ddpm", "unet_iddpm", "unet_small"},
    "data": {"patches"},
}
LEARNED = ("loss=vlb", "loss=hybrid")  # that train the variance of the defaults
FIXED = re.compile(
    r"(trainer\.(accelerator|devices|strategy|num_nodes|precision|max_epochs|max_steps|min_.*|default_root_dir)"
    r"|compile|resume|run_dir|.*\.(root|num_workers|seed|cache|n_train|n_val|n_test|crops_per_epoch|dims"
    r"|components|folder|run_dir)|data\.batch_size|checkpoint_every|max_examples.*|logger\..*)"
)
SMALL = (
    "data.batch_size=8",
    "max_examples.train=32",
    "max_examples.val=8",
    "max_examples.test=8",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "checkpoint_every=1",
    "logger=none",
    "schedule.num_steps=30",
    "val_estimator.evaluations_per_example=3",
    "test_estimator.evaluations_per_example=3",
    "callbacks.samples.num_samples=2",
)


def choices(group: str) -> list[str]:
    folder = group.partition("@")[0]
    names = sorted(path.stem for path in (ROOT / "conf" / folder).glob("*.yaml"))
    if folder == "data":  # those that need no files
        names = [n for n in names if "root:" not in (ROOT / f"conf/data/{n}.yaml").read_text()]
    return [name for name in names if name not in NOT_HERE.get(folder, ())]


def leaves(config: DictConfig) -> dict[str, tuple[dict, object]]:
    """JSON schema and value of every option that has an annotation, by its path."""
    values = OmegaConf.to_container(config, resolve=True)
    found = {}

    def add(path: str, annotation: object, value: object) -> None:
        adapter = options._adapter(annotation)
        if adapter is not None and not isinstance(value, dict):
            found[path] = (adapter.json_schema(), value)

    def walk(path: str, node: dict) -> None:
        if "_target_" in node:
            target = node["_target_"]
            known = options._declared(target)
            arguments = options._arguments(target)[0]
            for name, value in node.items():
                if name in known or name in arguments:
                    add(f"{path}.{name}", known.get(name) or arguments[name].annotation, value)
        for name, child in node.items():
            if isinstance(child, dict):
                walk(f"{path}.{name}", child)

    for name, annotation in options._hints(TrainOptions).items():
        add(name, annotation, values.get(name))
    for name, annotation in options._hints(options.MaxExamples).items():
        add(f"max_examples.{name}", annotation, values["max_examples"][name])
    for name, node in values.items():
        if isinstance(node, dict):
            walk(name, node)
    return found


def draw(schema: dict, value: object, r: random.Random) -> object:
    """A value that fits."""
    if "anyOf" in schema:
        return draw(r.choice(schema["anyOf"]), value, r)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return r.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "boolean":
        return r.random() < 0.5
    if kind == "null":
        return None
    if kind == "integer":
        step = schema.get("multipleOf", 1)
        return step * r.randint(math.ceil(schema.get("minimum", 0) / step), max(16 // step, 1))
    if kind == "number":
        low = schema.get("minimum", schema.get("exclusiveMinimum", -2.0))
        high = schema.get("maximum", schema.get("exclusiveMaximum", 2.0))
        near = [value * r.uniform(0.5, 1.5)] if isinstance(value, int | float) else []
        inside = [x for x in [*near, r.uniform(low + 1e-3, high - 1e-3)] if low < x < high]
        return round(r.choice(inside), 4)
    return value


def fits(schema: dict, value: object) -> bool:
    if "anyOf" in schema:
        return any(fits(option, value) for option in schema["anyOf"])
    if "const" in schema:
        return value == schema["const"] and type(value) is type(schema["const"])
    if "enum" in schema:
        return value in [item for item in schema["enum"] if type(item) is type(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return False
    kind = schema.get("type")
    if kind in ("integer", "number"):
        numbers = int if kind == "integer" else int | float
        if isinstance(value, bool) or not isinstance(value, numbers):
            return False
        return (
            value >= schema.get("minimum", -math.inf)
            and value > schema.get("exclusiveMinimum", -math.inf)
            and value < schema.get("exclusiveMaximum", math.inf)
            and value % schema.get("multipleOf", 1 if kind == "integer" else 1e-300) in (0, value % 1e-300)
        )
    kinds = {"boolean": bool, "string": str, "null": type(None), "array": list, "object": dict}
    return kind not in kinds or isinstance(value, kinds[kind])


WRONG = (None, True, 2, -1, 0, 1.5, -0.5, "word", math.nan, math.inf, [], ["word"])


def written(value: object) -> str:
    return "nan" if value != value else "inf" if value == math.inf else json.dumps(value).replace('"', "")


class Sets:
    """Draws sets of options; the same for the same seed."""

    def __init__(self, compose, seed: int, groups_every: int) -> None:
        self.compose = compose
        self.random = random.Random(seed)
        self.groups_every = groups_every
        self.count = 0
        self.groups: list[str] = []

    def base(self) -> None:
        """Other choices of groups, every so many sets."""
        if self.count % self.groups_every == 0:
            r = self.random
            changed = r.sample([g for g in GROUPS if choices(g) and g not in ("logger", "trainer")], k=2)
            groups = [f"{group}={r.choice(choices(group))}" for group in changed]
            if (
                "loss" in changed
                and "variance" not in changed
                and groups[changed.index("loss")] not in LEARNED
            ):
                groups.append("variance=fixed_large")
            small = [s for s in SMALL if "evaluations" not in s or "full" not in str(groups)]
            small = [s for s in small if "evaluations" not in s or "importance" not in str(groups)]
            self.groups = [*groups, *small]
            self.config = self.compose(*self.groups)
            self.leaves = leaves(self.config)
        self.count += 1

    def valid(self) -> list[str]:
        self.base()
        free = [name for name in self.leaves if not FIXED.fullmatch(name)]
        names = self.random.sample(free, k=min(3, len(free)))
        return [f"{name}={written(draw(*self.leaves[name], self.random))}" for name in names]

    def invalid(self) -> tuple[str, object]:
        self.base()
        name = self.random.choice([n for n, (schema, _) in self.leaves.items() if not fits_all(schema)])
        return name, self.random.choice([v for v in WRONG if not fits(self.leaves[name][0], v)])


def fits_all(schema: dict) -> bool:
    return all(fits(schema, value) for value in WRONG)


def begins_with(message: str, name: str, value: object) -> bool:
    shown = options.shown(value)
    return message.startswith(f"{name}={shown}: ") and "\n" not in message


def test_invalid_values_are_refused_by_name(compose):
    sets = Sets(compose, SEED, groups_every=50)
    refused = 0
    for _ in range(FEW):
        name, value = sets.invalid()
        config = sets.config.copy()
        OmegaConf.update(config, name, value, force_add=True)
        with pytest.raises(ValueError, match="=") as refusal:
            check_options(config, "train")
        assert begins_with(str(refusal.value), name, value), (name, value, str(refusal.value))
        refused += 1
    assert refused == FEW


def test_valid_values_are_accepted(compose):
    sets = Sets(compose, SEED + 1, groups_every=50)
    for _ in range(FEW):
        check_options(changed(sets, sets.valid()), "train")


def changed(sets: Sets, given: list[str]) -> DictConfig:
    config = sets.config.copy()
    for option in given:
        name, _, value = option.partition("=")
        OmegaConf.update(config, name, yaml.safe_load(value), force_add=True)
    return config


def is_named(line: str, sets: Sets, given: list[str]) -> bool:
    """Whether a refusal is one of ours, and names an option of the set."""
    foreign = re.match(r"([\w.]+: )?[A-Z]\w*Error: ", line)
    names = [re.split("[@.]", option.split("=")[0])[-1] for option in [*given, *sets.groups]]
    return not foreign and any(re.search(rf"\b{re.escape(name)}\b", line) for name in names)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_valid_sets_take_a_step_or_are_refused_by_name(compose, stub_trainer, tmp_path):
    sets = Sets(compose, SEED + 4, groups_every=5)
    wrong, stepped = [], 0
    for _ in range(MANY):
        given = sets.valid()
        config = changed(sets, given)
        config.run_dir = str(tmp_path)
        try:
            check_options(config, "train")
            data = instantiate(config.data)
            module = build.build_module(config, data.spec)
            build.build_trainer(config, build.build_callbacks(config, data.spec, module.bound.chain), [])
            check_network(module, data.spec)
            data.subset("train", 32)
            batch = data.on_after_batch_transfer(data.split("train").fetch(torch.arange(8), 0))
            optimizer = module.configure_optimizers()["optimizer"]
            stub_trainer(module)
            loss = module.training_step(batch, 0)["loss"]
            loss.backward()
            optimizer.step()
        except Exception as error:
            line = describe_error(error, "train")
            if not is_named(line, sets, given):
                wrong.append((sets.groups, given, line))
            continue
        stepped += 1
        if not all(x.isfinite().all() for x in [loss, *module.parameters()]):
            wrong.append((sets.groups, given, "not finite"))
    print(f"{stepped} of {MANY} took a step")
    assert not wrong, f"{len(wrong)} of {MANY}: " + "\n".join(map(str, wrong))
    assert stepped > MANY // 3


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_invalid_sets_are_refused_by_the_command(compose, command, tmp_path):
    sets = Sets(compose, SEED + 2, groups_every=10)
    wrong = []
    for number in range(MANY):
        name, value = sets.invalid()
        if name in ("resume", "run_dir"):  # read before the configuration is composed
            continue
        ended = command(*sets.groups, f"{name}={written(value)}", folder=tmp_path / str(number))
        message = ended.err.removeprefix("error: ").removesuffix("\n")
        if ended.code != 1 or not begins_with(message, name, value):
            wrong.append((sets.groups, name, value, ended.code, ended.err[-300:]))
    assert not wrong, f"{len(wrong)} of {MANY}: {wrong}"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_valid_sets_train_or_are_refused_by_name(compose, command, tmp_path):
    sets = Sets(compose, SEED + 3, groups_every=3)
    wrong, trained = [], 0
    runs = MANY // 10
    for number in range(runs):
        given = sets.valid()
        ended = command(*sets.groups, *given, folder=tmp_path / str(number))
        if ended.code == 0:
            summary = json.loads((ended.folder / "summary.json").read_text())
            numbers = {k: v for k, v in summary.items() if isinstance(v, float) and "stderr" not in k}
            broken = [name for name, value in numbers.items() if not math.isfinite(value)]
            if summary["step"] != 2 or broken or not (ended.folder / "report.html").exists():
                wrong.append((sets.groups, given, broken))
            trained += 1
            continue
        lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        if len(lines) != 1 or not is_named(lines[0].removeprefix("error: "), sets, given):
            wrong.append((sets.groups, given, ended.err[-400:]))
    print(f"{trained} of {runs} trained")
    assert not wrong, f"{len(wrong)} of {runs}: " + "\n".join(map(str, wrong))
    assert trained > runs // 3
