"""A configuration from a file is data: what it may name, and what becomes of it on resume."""

import copy
import re
import shutil
import sys

import pytest
import yaml
from omegaconf import OmegaConf

from nelbo.cli import resume
from nelbo.compose.config import to_plain
from nelbo.compose.resumed_config import check_outputs, linked_value, links
from nelbo.compose.stored_config import MAX_DEPTH, Components, nodes_of_folder, validate_stored
from nelbo.runs.run_options import write_config


@pytest.fixture(scope="module")
def composed(compose):
    """Two configurations of runs: as plain values, once for all tests."""
    return {
        "images": to_plain(compose("data=image_folder", "callbacks=sample_quality", "logger=tensorboard")),
        "loggers": to_plain(compose("logger=[tensorboard,mlflow,trackio]", "callbacks=sample_quality")),
    }


@pytest.fixture
def stored(composed):
    """The configuration of a run as a checkpoint holds it."""
    return copy.deepcopy(composed["images"])


def test_what_our_own_yaml_files_compose_is_accepted(stored, compose):
    assert validate_stored(stored, "last.ckpt", None) == stored
    for options in (["trainer=fsdp"], ["experiment=ddpm_cifar10"], ["data=gaussian"], ["logger=wandb"]):
        config = to_plain(compose(*options))
        assert validate_stored(config, "last.ckpt", None) == config


REFUSED = {
    "another function": ("loss", {"_target_": "os.mkdir", "_args_": ["x"]}),
    "a component of another kind": ("schedule", {"_target_": "nelbo.models.mlp.MLP"}),
    "a component inside an argument": (
        "model.channels",
        {"_target_": "nelbo.diffusion.losses.vlb.VLB"},
    ),
    "a function inside a list": ("data.root", [{"_target_": "os.mkdir", "_args_": ["x"]}]),
    "a function of a module of ours": ("lr_schedule._target_", "nelbo.training.lr_schedule.math.exp"),
    "positional arguments": ("loss._args_", ["x"]),
    "a component that is not called": ("loss._partial_", True),
    "a target that is no name": ("loss._target_", 3),
    "a resolver": ("loss", "${oc.decode:'{_target_: os.mkdir}'}"),
    "an environment variable": ("run_dir", "${oc.env:HOME}"),
    "an interpolation in a name": ("data", {"${oc.env:HOME}": 1}),
    "a part that there is not": ("anything", {"_target_": "nelbo.diffusion.losses.vlb.VLB"}),
    "a value that is not plain": ("seed", {1, 2}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_call_or_read_anything_is_refused(case, stored, monkeypatch):
    path, value = REFUSED[case]
    config = OmegaConf.create(stored)
    *parents, name = path.split(".")
    node = to_plain(config)
    inside = node
    for parent in parents:
        inside = inside[parent]
    inside[name] = value
    monkeypatch.setenv("HOME", "a secret")
    with pytest.raises(ValueError, match=r"^last\.ckpt: ") as refused:
        validate_stored(node, "last.ckpt", None)
    assert "a secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_depth_and_size_are_limited(stored):
    deep: dict = {}
    for _ in range(MAX_DEPTH + 1):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="nested more than"):
        validate_stored(stored | {"deep": deep}, "last.ckpt", None)
    bomb: list = [0] * 10
    for _ in range(6):  # aliases of yaml make this of a few bytes
        bomb = [bomb] * 10
    with pytest.raises(ValueError, match="has more than"):
        validate_stored(stored | {"bomb": bomb}, "last.ckpt", None)


@pytest.fixture
def _package(tmp_path, monkeypatch):
    """A package of the user's: ``mine.nets.Net``, and torch, which it imports."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("from mine.nets import Net\n")
    (tmp_path / "mine/nets.py").write_text("import torch\n\nclass Net(torch.nn.Identity):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("mine", "mine.nets"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("_package")
def test_trust_names_a_component_or_its_package(stored):
    stored["model"] = {"_target_": "mine.nets.Net", "width": 3}
    with pytest.raises(ValueError, match=r"model\._target_=mine\.nets\.Net .* or trust=mine\.nets\.Net"):
        validate_stored(stored, "last.ckpt", None)
    for trust in ("mine.nets.Net", "mine", ["other", "mine.nets"]):
        validate_stored(stored, "last.ckpt", trust)
    with pytest.raises(ValueError, match="is refused"):
        validate_stored(stored, "last.ckpt", "mine.net")
    with pytest.raises(ValueError, match="is refused"):  # a file cannot trust itself
        validate_stored(stored | {"trust": "mine"}, "last.ckpt", None)


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize("trust", ["mine", "mine.nets", "mine.nets.torch", ["other", "mine.nets.Net"]])
def test_trust_in_a_package_does_not_include_what_it_imports(trust, stored):
    for target in ("mine.nets.torch.load", "mine.nets.torch.hub.load", "mine.nets.Net.load_state_dict"):
        stored["model"] = {"_target_": target}
        with pytest.raises(ValueError, match=rf"model\._target_={re.escape(target)} is not a component"):
            validate_stored(stored, "last.ckpt", trust)
    stored["model"] = {"_target_": "mine.nets.torch.load"}
    validate_stored(stored, "last.ckpt", "mine.nets.torch.load")
    stored["model"] = {"_target_": "mine.Missing"}
    with pytest.raises(ValueError, match=r"mine\.Missing cannot be imported \(AttributeError"):
        validate_stored(stored, "last.ckpt", "mine")


def test_standard_library_is_not_suggested_for_trust(stored):
    stored["model"] = {"_target_": "os.mkdir"}
    with pytest.raises(ValueError, match=r"os\.mkdir is not a component of conf/, and is refused$"):
        validate_stored(stored, "last.ckpt", None)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("logger.tensorboard.version", "$SECRET"),
        ("logger.tensorboard.name", "/elsewhere"),
        ("logger.tensorboard.name", ".."),
        ("logger.tensorboard.filename_suffix", "/../../x"),
        ("logger.tensorboard.save_dir", "elsewhere"),
        ("logger.tensorboard.log_dir", "elsewhere"),
        ("logger.mlflow.save_dir", "elsewhere"),
        ("logger.mlflow.tracking_uri", "databricks"),
        ("logger.mlflow.tracking_uri", "http://127.0.0.1:5000"),
        ("logger.mlflow.artifact_location", "elsewhere"),
        ("logger.trackio.save_dir", "elsewhere"),
        ("logger.trackio.name", "../x"),
        ("logger.trackio.space_id", "someone"),
        ("logger.trackio.server_url", "someone"),
        ("callbacks.sample_quality.cache", "relative"),
        ("callbacks.sample_quality.cache", "/elsewhere"),
        ("callbacks.last_checkpoint.folder", "elsewhere"),
    ],
)
def test_stored_paths_outside_of_the_run_are_refused_unless_the_command_names_them(place, value, composed):
    config = composed["loggers"]
    check_outputs(config, {}, "run")
    changed = OmegaConf.create(config)
    OmegaConf.update(changed, place, value, force_add=True)
    with pytest.raises(
        ValueError, match=rf"run: {re.escape(place)}=.* add {re.escape(place)}=\.\.\. to this"
    ):
        check_outputs(to_plain(changed), config, "run")
    check_outputs(to_plain(changed), to_plain(changed), "run")


def test_names_of_wandb_runs_are_free_text(compose):
    config = to_plain(compose("logger=wandb"))
    config["logger"]["wandb"] |= {"name": "a/b $x", "tags": ["x/y"]}
    check_outputs(config, {}, "run")


def test_features_that_name_code_need_trust(stored, compose):
    stored["features"] = to_plain(compose("features=module"))["features"]
    validate_stored(stored, "last.ckpt", None)
    stored["features"]["path"] = "os.abort"
    with pytest.raises(ValueError, match=r"features\.path=os\.abort names code"):
        validate_stored(stored, "last.ckpt", None)
    validate_stored(stored, "last.ckpt", "os.abort")


def test_a_reader_of_a_model_does_not_look_at_the_rest(stored):
    stored["callbacks"]["any"] = {"_target_": "os.abort"}
    validate_stored(stored, "last.ckpt", None, model_only=True)
    with pytest.raises(ValueError, match=r"callbacks\.any"):
        validate_stored(stored, "last.ckpt", None)


def test_files_that_cannot_be_chosen_name_no_components(tmp_path):
    """A --config-dir may be the folder of a project, with runs that come from others in it."""
    component = "# @package _global_\nlr_schedule: {_target_: %s}\n"
    files = {
        "experiment/mine/long.yaml": "mine.long",
        "mine.yaml": "mine.top",
        "outputs/theirs/config.yaml": "os.system",
        ".hidden/config.yaml": "os.abort",
    }
    for name, target in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(component % target)
    (tmp_path / "several.documents").mkdir()
    (tmp_path / "several.documents/x.yaml").write_text("a: 1\n---\nb: 2\n")
    assert {node["_target_"] for _, node in nodes_of_folder(tmp_path)} == {"mine.long", "mine.top"}


def test_every_component_of_conf_is_known():
    places = {place[0] for place, _ in Components.known().nodes}
    assert {"schedule", "model", "data", "callbacks", "logger", "trainer", "val_estimator"} <= places


def test_options_follow_others_as_in_their_yaml_files(stored):
    found = dict(links(stored))
    assert found["lr_schedule.total_steps"] == "${trainer.max_steps}"
    assert found["callbacks.last_checkpoint.folder"] == "${run_dir}/checkpoints"
    stored["lr_schedule"]["total_steps"] = 5  # set by the user to something else
    stored["callbacks"]["last_checkpoint"]["folder"] = "/etc"  # the folder of a run cannot be
    found = dict(links(stored))
    assert "lr_schedule.total_steps" not in found
    text = found["callbacks.last_checkpoint.folder"]
    assert linked_value(text, stored | {"run_dir": "here"}) == "here/checkpoints"


@pytest.mark.slow
def test_an_option_changed_and_changed_back_is_applied_each_time(command, tiny, tmp_path, monkeypatch):
    """Formerly the third command was taken for the first, whose option it repeats, and trained 4 steps."""
    first = command(*tiny, "logger=none", "trainer.max_steps=2")
    assert first.code == 0, first.err
    seen = []
    monkeypatch.setattr(resume, "is_complete", lambda config, _: seen.append(config) or True)
    for steps in (4, 2):
        again = command(f"resume={first.folder}", f"trainer.max_steps={steps}", "checkpoint_every=1")
        assert again.code == 0, again.err
        assert (seen[-1].trainer.max_steps, seen[-1].lr_schedule.total_steps) == (steps, steps)
        assert seen[-1].callbacks.last_checkpoint.every_n_steps == 1
        write_config(to_plain(seen[-1]), first.folder)


@pytest.mark.slow
def test_a_run_that_was_moved_writes_where_it_is(finished_run, command, tmp_path, monkeypatch):
    folder = shutil.copytree(finished_run.folder, tmp_path / "moved", symlinks=True)
    seen = []
    monkeypatch.setattr(resume, "is_complete", lambda config, _: seen.append(config) or True)
    assert command(f"resume={folder}").code == 0
    assert seen[0].callbacks.last_checkpoint.folder == f"{folder}/checkpoints"


def test_a_run_with_interpolations_is_not_resumed(finished_run, command, tmp_path):
    folder = shutil.copytree(finished_run.folder, tmp_path / "old", symlinks=True)
    config = yaml.safe_load((folder / ".hydra/config.yaml").read_text())
    assert "${" not in yaml.safe_dump(config)
    config["seed"] = "${oc.env:HOME}"
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump(config))
    ended = command(f"resume={folder}")
    assert ended.code == 1
    assert ended.err == (f"error: {folder}/.hydra/config.yaml: seed is an interpolation, which is refused\n")


SWEEPS = [
    ("task", "loss._target_=os.mkdir"),
    ("task", "+loss={_target_:os.mkdir}"),
    ("task", "loss='${oc.env:HOME}'"),
    ("task", "model=../../elsewhere/net"),
    ("hydra", "hydra.job.env_set.LD_PRELOAD=x.so"),
    ("hydra", "hydra.launcher.setup=[touch x]"),
    ("hydra", "hydra.searchpath=[file:///tmp]"),
    ("hydra", "hydra.sweeper.sampler._target_=os.mkdir"),
    ("hydra", "+hydra.callbacks.any={_target_:os.mkdir}"),
]


@pytest.mark.parametrize(("kind", "option"), SWEEPS)
def test_the_file_of_a_sweep_repeats_plain_options_alone(kind, option, command, tmp_path):
    overrides = {"task": ["seed=0,1"], "hydra": ["hydra/sweeper=grid"]}
    overrides[kind].append(option)
    written = {"hydra": {"overrides": overrides, "job": {"config_name": "train"}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(written))
    ended = command(f"resume={tmp_path}", job=pytest.fail)
    assert ended.code == 1
    assert f"multirun.yaml: the option {option} is refused" in ended.err
