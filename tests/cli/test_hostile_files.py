"""Stored files that try to run code or to read secrets: every trick, at every place, in every format."""

import copy
import json
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf

from nelbo.cli import resume
from nelbo.cli.sweep.job import Job
from nelbo.cli.sweep.resume_sweep import add_resumed_sweep
from nelbo.compose import build, stored_config
from nelbo.compose.config import to_plain
from nelbo.compose.options import check_component
from nelbo.compose.stored_config import MODEL, validate_stored
from nelbo.compose.trained import load_model, training_config
from nelbo.interop.diffusers.folder import Folder
from nelbo.interop.formats import DiffusersFormat, NelboFormat
from nelbo.runs.paths import CONFIG

ROOT = Path(__file__).parents[2]
SECRET = "a-secret-of-the-environment"
VLB = "nelbo.diffusion.losses.vlb.VLB"


class MakesFolder:
    """Unpickling it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pickled(path: str) -> str:
    """A file that makes the folder ``path`` when it is unpickled."""
    file = f"{path}.pkl"
    Path(file).write_bytes(pickle.dumps(MakesFolder(path), protocol=2))
    return file


def call(target: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"_target_": target, **({"_args_": [*args]} if args else {}), **kwargs}


def decoded(resolver: str, m: str) -> str:
    return "${" + resolver + ":'{_target_: os.mkdir, _args_: [\"" + m + "\"]}'}"


# What each of them would make or tell, as a function of the path of a marker
CALLS: dict[str, Callable[[str], Any]] = {
    "os.mkdir": lambda m: call("os.mkdir", m),
    "os.mkdir by name": lambda m: call("os.mkdir", path=m),
    "os.makedirs": lambda m: call("os.makedirs", m),
    "os.symlink": lambda m: call("os.symlink", "/etc/hostname", m),
    "os.mkfifo": lambda m: call("os.mkfifo", m),
    "os.open": lambda m: call("os.open", m, os.O_CREAT),
    "os.system": lambda m: call("os.system", f"touch {m}"),
    "os.popen": lambda m: call("os.popen", f"touch {m}"),
    "subprocess.run": lambda m: call("subprocess.run", ["touch", m]),
    "shutil.copy": lambda m: call("shutil.copy", "/etc/hostname", m),
    "shutil.copyfile": lambda m: call("shutil.copyfile", "/etc/hostname", m),
    "shutil.copytree": lambda m: call("shutil.copytree", str(Path(__file__).parent / "__pycache__"), m),
    "builtins.open": lambda m: call("builtins.open", m, "w"),
    "builtins.exec": lambda m: call("builtins.exec", f"open({m!r}, 'w')"),
    "io.open": lambda m: call("io.open", m, "w"),
    "io.FileIO": lambda m: call("io.FileIO", m, "w"),
    "codecs.open": lambda m: call("codecs.open", m, "w"),
    "gzip.open": lambda m: call("gzip.open", m, "w"),
    "lzma.open": lambda m: call("lzma.open", m, "w"),
    "zipfile.ZipFile": lambda m: call("zipfile.ZipFile", m, "w"),
    "tarfile.open": lambda m: call("tarfile.open", m, "w"),
    "sqlite3.connect": lambda m: call("sqlite3.connect", m),
    "logging.FileHandler": lambda m: call("logging.FileHandler", m),
    "tempfile.mkdtemp": lambda m: call("tempfile.mkdtemp", prefix=m),
    "torch.save": lambda m: call("torch.save", 1, m),
    "torch.load": lambda m: call("torch.load", pickled(m), weights_only=False),
    "numpy.save": lambda m: call("numpy.save", m, 1),
    "numpy.savetxt": lambda m: call("numpy.savetxt", m, [1]),
    "numpy.load": lambda m: call("numpy.load", pickled(m), allow_pickle=True),
    "numpy.memmap": lambda m: call("numpy.memmap", m, mode="w+", shape=[1]),
    "pandas-like pickle": lambda m: call("pickle.load", call("builtins.open", pickled(m), "rb")),
    "runpy.run_path": lambda m: call("runpy.run_path", __file__),
    "importlib.import_module": lambda m: call("importlib.import_module", "antigravity"),
    "hydra.utils.instantiate": lambda m: call("hydra.utils.instantiate", call("os.mkdir", m)),
    "hydra.utils.call": lambda m: call("hydra.utils.call", {"_target_": "os.mkdir", "path": m}),
    "functools.partial": lambda m: call("functools.partial", call("os.mkdir", m, _partial_=True)),
    "a function of ours that writes": lambda m: call("nelbo.atomic_file.write_json", m, {}),
    "a module that ours imports": lambda m: call("nelbo.torch_file.os.mkdir", m),
    "a method of a known class": lambda m: call(f"{VLB}.__init__.__globals__", m),
    "a name with spaces": lambda m: call(" os.mkdir", m),
    "inside a known component": lambda m: call(VLB, x=call("os.mkdir", m)),
    "inside a list": lambda m: [1, [call("os.mkdir", m)]],
    "inside a mapping": lambda m: {"a": {"b": call("os.mkdir", m)}},
    "partial": lambda m: call("os.mkdir", m, _partial_=True),
    "not recursive": lambda m: call("hydra.utils.instantiate", call("os.mkdir", m), _recursive_=False),
    "converted": lambda m: call("hydra.utils.instantiate", call("os.mkdir", m), _convert_="all"),
    "oc.decode": lambda m: decoded("oc.decode", m),
    "oc.create": lambda m: decoded("oc.create", m),
    "oc.decode of an argument": lambda m: call(VLB, x=decoded("oc.decode", m)),
    "an interpolated target": lambda m: call("${oc.decode:os.mkdir}", m),
    "an interpolated name": lambda m: {"${oc.env:SECRET}": 1},
    "a secret": lambda m: "${oc.env:SECRET}",
    "a secret as a target": lambda m: call("${oc.env:SECRET}"),
    "a secret inside of a text": lambda m: {"_target_": VLB, "x": "a ${oc.env:SECRET} b"},
    "an escaped interpolation": lambda m: "\\${oc.env:SECRET} \\\\${oc.env:SECRET}",
    "a secret by a nested interpolation": lambda m: "${oc.env:${oc.decode:SECRET}}",
}
# Where an object is built from a configuration, and inside of what is built there
PLACES = [
    *sorted(MODEL),
    "callbacks", "callbacks.ema", "callbacks.other", "logger", "logger.other", "trainer", "trainer.strategy",
    "trainer.plugins", "sampler", "spacing", "features", "model.channels", "optimizer.lr", "data.root",
    "lr_schedule.total_steps", "decoder.levels", "elsewhere", "hydra",
]  # fmt: skip
OPTIONS_OF_A_SWEEP = [
    "--experimental-rerun=MARKER.pkl", "--config-dir=/tmp", "-cd", "--config-name=other",
    "hydra.searchpath=[file:///tmp]", "+hydra.searchpath=[pkg://evil]", "hydra.job.env_set.LD_PRELOAD=x.so",
    "hydra/callbacks=evil", "hydra.callbacks.any._target_=os.mkdir", "hydra.launcher.setup=[touch MARKER]",
    "hydra/job_logging=evil", "hydra.sweep.subdir=/tmp/elsewhere", "hydra.sweep.subdir=../../elsewhere",
    "hydra.sweeper.sampler._target_=os.mkdir", "hydra.sweeper.storage=sqlite:////tmp/other.db",
    "hydra.sweeper.params={loss:{_target_:os.mkdir}}", "hydra.output_subdir=/tmp",
    r"data.root=$\{oc.env:SECRET\}", r"data.root='\${oc.env:SECRET}'", "data.root=${oc.env:SECRET}",
    "+loss.x=${oc.decode:'{_target_:os.mkdir}'}", "features.path=os.abort", "features={path: os.abort}",
    "+features={'path': os.abort}", "trust=os", "+trust=[os]", "trained_with=['trust=os']",
    "trained_with=['loss._target_=os.mkdir']", "trained_with=['+a.b={_target_:os.mkdir}']",
    "trained_with=['hydra.searchpath=[file:///tmp]','model=evil']", "resume=/tmp/other", "+resume=/tmp/other",
    "hydra.sweeper.params={hydra.searchpath:'[file:///tmp]'}", "hydra.sweep.subdir= /tmp",
    "hydra.sweep.subdir=..",
    "hydra.sweeper.params.model=evil", "hydra.sweep.subdir=str(/tmp)", "model@hydra.searchpath=mlp",
    "+callbacks.x={_target_: os.mkdir}", "callbacks.best_checkpoint.folder=/tmp", "run_dir=/tmp",
    "callbacks.sample_quality.cache=relative", "+logger.tensorboard.version=$SECRET",
    "logger.tensorboard.name=/tmp",
    "+logger.x={name: [a, ../b]}", "logger.wandb.save_dir=x",
    "logger.mlflow.tracking_uri=databricks", "+logger.trackio.server_url=x", "logger.trackio.save_dir=x",
    "trained_with=['model=mlp']", "trained_with.2='optimizer.lr={_target_:os.mkdir}'",
    "trained_as=../../../tmp/evil",
    "+preset=../../evil", "+preset=evil", "+anything.x=1", "seed=range(0,3000000000)",
    "seed=shuffle(range(1000000))",
    "hydra/launcher=submitit_local", "hydra/launcher=submitit_slurm", "model=glob(*,exclude=../x)",
    "x=str('${oc.env:SECRET}')",
    "loss=../../../tmp/evil", "model=mlp/../../../tmp/evil", "loss._target_=os.mkdir", "~loss._target_",
    "loss._args_=[MARKER]", "loss={_target_:os.mkdir}", "loss={'_target_':os.mkdir}",
    "+x=[{_target_:os.mkdir}]",
    " hydra.searchpath=[file:///tmp]", "\thydra.job.chdir=true", "++hydra.job.chdir=true", "@x=1", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def composed(compose) -> dict[str, Any]:
    return to_plain(compose("data=image_folder", "model=unet_tiny", "trainer=ddp"))


@pytest.fixture(autouse=True)
def _secret(monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)


def with_hostile(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    node: Any
    *parents, name = place.split(".")
    node = changed
    for parent in parents:
        node = node.setdefault(parent, {})
        assert isinstance(node, dict)
    node[name] = value
    return changed


def ran(marker: Path) -> bool:
    return any(path.suffix != ".pkl" for path in marker.parent.glob(f"{marker.name}*"))


def is_harmless(read: Callable[[], Any], place: str, marker: Path) -> str:
    """Read a file, build what the reader accepts, and look for what must not have happened."""
    said = ""
    try:
        config = read()
    except ValueError as error:
        said = str(error)
    else:  # not refused: then it must be of no effect
        try:
            instantiate(OmegaConf.select(OmegaConf.create(config), place.partition(".")[0]))
        except Exception as error:
            said = f"not refused: {error}"
    assert not ran(marker)
    assert SECRET not in said
    assert "\n" not in said
    assert not said.startswith("not refused"), said
    return said


@pytest.mark.filterwarnings("ignore")
def test_the_tricks_work_where_nothing_is_validated(tmp_path):
    """Most of them: Hydra's own list stops some, and some leave no marker."""
    worked = []
    for number, (name, trick) in enumerate(CALLS.items()):
        marker = tmp_path / f"m{number}_"
        try:
            found = str(instantiate(OmegaConf.create({"x": trick(str(marker))})))
        except Exception as error:
            found = str(error)
        if ran(marker) or SECRET in found:
            worked.append(name)
    assert len(CALLS) >= 40
    assert len(worked) >= 30, worked


@pytest.mark.parametrize("name", CALLS)
def test_no_trick_passes_at_any_place(name, composed, tmp_path):
    for number, place in enumerate(PLACES):
        marker = tmp_path / f"m{number}_"
        hostile = with_hostile(composed, place, CALLS[name](str(marker)))
        said = is_harmless(partial(validate_stored, hostile, "run", None), place, marker)
        assert said.startswith("run: "), place


def read_checkpoint(config: dict[str, Any], path: Path) -> Any:
    state = {"denoiser.network.x": torch.zeros(1)}
    torch.save({"state_dict": state, "nelbo": {"config": config}}, path)
    return training_config(NO_OPTIONS, NelboFormat().read(path, "raw"), path)


def read_folder(config: dict[str, Any], path: Path) -> Any:
    ours = json.loads(json.dumps({"config": config}))
    weights = DiffusersFormat().pick(Folder(UNET, SCHEDULER, {}, ours), path, "ema")
    return training_config(NO_OPTIONS, weights, path)


@pytest.mark.parametrize("read", [read_checkpoint, read_folder])
@pytest.mark.parametrize("name", CALLS)
def test_no_trick_passes_in_a_checkpoint_or_a_folder(name, read, composed, tmp_path):
    place = sorted(MODEL)[list(CALLS).index(name) % len(MODEL)]
    hostile = with_hostile(composed, place, CALLS[name](str(tmp_path / "m_")))
    path = tmp_path / "model"
    assert str(path) in is_harmless(partial(read, hostile, path), place, tmp_path / "m_")


NO_OPTIONS = OmegaConf.create({"trained_as": None, "trust": None})
UNET = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": [32], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "norm_num_groups": 32,
}  # fmt: skip
SCHEDULER = {"num_train_timesteps": 10, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


@pytest.mark.parametrize("name", CALLS)
def test_no_trick_passes_in_the_folder_of_a_run(name, composed, tmp_path):
    place = PLACES[list(CALLS).index(name) % len(PLACES)]
    hostile = with_hostile(composed, place, CALLS[name](str(tmp_path / "m_")))
    (tmp_path / ".hydra").mkdir()
    (tmp_path / CONFIG).write_text(yaml.safe_dump(hostile))
    said = is_harmless(lambda: resume.saved_config(tmp_path), place, tmp_path / "m_")
    assert CONFIG in said or "not a run of train.py" in said


def test_tags_and_aliases_of_yaml_are_no_code(tmp_path):
    (tmp_path / ".hydra").mkdir()
    for text in (
        f"!!python/object/apply:os.mkdir ['{tmp_path}/m']",
        "a: &a [*a]\ntrainer: {b: *a}",
        "{" * 500,
    ):
        (tmp_path / CONFIG).write_text(text)
        with pytest.raises(ValueError, match=r"config\.yaml|not a run"):
            resume.saved_config(tmp_path)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("field", ["root", "name"])
def test_the_data_record_of_a_checkpoint_is_not_interpolated(field, finished_run, tmp_path):
    for text in (
        f"${{oc.create:{{_target_:logging.FileHandler,filename:{tmp_path}/ran}}}}",
        "/x/${oc.env:SECRET}",
    ):
        content = torch.load(finished_run.folder / "checkpoints/last.ckpt", weights_only=True)
        content["nelbo"]["data"][field] = text
        torch.save(content, tmp_path / "hostile.ckpt")
        with pytest.raises(
            ValueError, match=f"data.{field} is an interpolation, which is refused"
        ) as refused:
            load_model(tmp_path / "hostile.ckpt")
        assert SECRET not in str(refused.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("parts", "refused"),
    [
        ({"variance": {"_target_": VLB, "first_step": "${oc.env:SECRET}"}}, "is an interpolation"),
        ({"model": {"_target_": VLB, "config": {"_target_": "os.mkdir"}}}, "names a component"),
        ({"model": {"_target_": VLB, "blocks": [{"_target_": "os.mkdir"}]}}, "names a component"),
        ({"model": {"_target_": VLB, "_args_": ["x"]}}, "names a component"),
    ],
)
def test_values_of_other_formats_are_plain(parts, refused):
    with pytest.raises(ValueError, match=refused):
        stored_config.check_values(parts, "file")


@pytest.mark.parametrize("kind", ["task", "hydra"])
@pytest.mark.parametrize("option", OPTIONS_OF_A_SWEEP)
def test_no_option_of_a_sweep_runs_code(kind, option, tmp_path):
    overrides = {"task": ["seed=0,1"], "hydra": ["hydra/sweeper=grid"]}
    overrides[kind].append(option.replace("MARKER", str(tmp_path / "m")))
    for command in ("train", "evaluate", "sample"):
        written = {"hydra": {"overrides": overrides, "job": {"config_name": command}}}
        (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(written))
        with pytest.raises(ValueError, match="is refused") as refused:
            add_resumed_sweep([f"resume={tmp_path}"], command)
        assert SECRET not in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", CALLS)
def test_no_trick_passes_as_an_option_of_a_sweep(name, tmp_path):
    value = json.dumps(CALLS[name](str(tmp_path / "m_"))).replace('"_', "_").replace('_"', "_")
    for option in (f"loss={value}", f"+callbacks.x={value}", f"hydra.sweeper.params={{loss: {value}}}"):
        written = {"hydra": {"overrides": {"task": [option], "hydra": []}, "job": {"config_name": "train"}}}
        (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(written))
        is_harmless(lambda: add_resumed_sweep([f"resume={tmp_path}"], "train"), "x", tmp_path / "m_")


def test_hydra_unescapes_what_the_file_of_a_sweep_may_not_escape():
    value = OverridesParser.create().parse_override(r"data.root=$\{oc.env:SECRET\}").value()
    assert OmegaConf.create({"x": value}).x == SECRET


@pytest.mark.parametrize(
    ("command", "task"),
    [
        ("train", [
            "loss=simple,vlb", "optimizer.lr='tag(log,interval(1e-4,1e-2))'", "model.channel_mult=[1,2],[1]",
            "data.root=/data/my images", "+trainer.limit_val_batches=2", "~callbacks.samples", "seed=0,1",
            "features.weights_path=x.pt", "estimator@val_estimator=full", "logger.wandb.tags=[a/b,c]",
            "callbacks.sample_quality.split=val", "max_examples={train: 3, val: null}", "experiment=mnist",
            "objective=hybrid", "schedule=glob(*,exclude=lin*)",
        ]),
        ("evaluate", [
            "checkpoint='outputs/a b/last.ckpt',/x/y.ckpt", "trained_as=iddpm_cifar10_hybrid", "split=val",
            "format@checkpoint_format=diffusers", "estimator=full,stratified", "steps=4,8", "root=/data",
        ]),
        ("sample", ["checkpoint=a/last.ckpt", "sampler=ddim,heun", "sampler.steps=10,20", "cond='a cat'"]),
    ],
)  # fmt: skip
def test_what_sweeps_usually_vary_is_accepted(command, task, tmp_path):
    before = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=3",
        "hydra.sweep.subdir=a",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=-1",
    ]
    written = {"hydra": {"overrides": {"task": task, "hydra": before}, "job": {"config_name": command}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(written))
    line = add_resumed_sweep([f"resume={tmp_path}"], command)
    assert line == ["--multirun", *task, *before, f"hydra.sweep.dir='{tmp_path}'"]


def test_the_user_repeats_what_a_sweep_trusts(tmp_path):
    task, before = ["trust=mine", "seed=0,1"], ["hydra.sweeper.storage=sqlite:///a.db"]
    written = {"hydra": {"overrides": {"task": task, "hydra": before}, "job": {"config_name": "train"}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(
        ValueError, match=r"trust=mine is refused; to use it, add trust=\.\.\. to this command"
    ):
        add_resumed_sweep([f"resume={tmp_path}", *before], "train")
    with pytest.raises(ValueError, match=r"add hydra\.sweeper\.storage=\.\.\. to this command"):
        add_resumed_sweep([f"resume={tmp_path}", "trust=mine"], "train")
    line = add_resumed_sweep([f"resume={tmp_path}", "trust=mine", *before], "train")
    assert line == ["--multirun", *task, f"hydra.sweep.dir='{tmp_path}'", *before]


def test_a_trial_of_a_study_from_elsewhere_has_the_options_of_the_search():
    optuna = pytest.importorskip("optuna")
    from nelbo.cli.sweep.search import OptunaSweeper, Space

    sweeper = OptunaSweeper(1, 1, "nelbo", "sqlite://", "minimize", 0, optuna.samplers.TPESampler)
    choices = optuna.distributions.CategoricalDistribution
    space = Space({"loss": choices(["simple", "vlb"])}, [])
    hostile = {
        "loss._target_": choices(["os.mkdir"]),
        "hydra.searchpath": choices(["[file:///tmp]"]),
        "loss": choices(["simple", "{_target_: os.mkdir}"]),
    }
    for option, distribution in hostile.items():
        value = distribution.choices[-1]
        trial = optuna.create_trial(params={option: value}, distributions={option: distribution}, value=0.0)
        with pytest.raises(ValueError, match="has other options than this search"):
            sweeper._job(trial, space)


def test_a_number_of_a_study_from_elsewhere_is_a_number(tmp_path):
    """SQLite stores a text in a column of numbers."""
    optuna = pytest.importorskip("optuna")
    from nelbo.cli.sweep.search import OptunaSweeper, Space

    storage = f"sqlite:///{tmp_path}/study.db"
    rates = optuna.distributions.FloatDistribution(0.0, 1.0)
    study = optuna.create_study(study_name="nelbo", storage=storage)
    study.ask({"optimizer.lr": rates})
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("UPDATE trial_params SET param_value = '{_target_: os.mkdir, path: x}'")
    [trial] = optuna.load_study(study_name="nelbo", storage=storage).get_trials()
    assert trial.params == {"optimizer.lr": "{_target_: os.mkdir, path: x}"}
    sweeper = OptunaSweeper(1, 1, "nelbo", storage, "minimize", 0, optuna.samplers.TPESampler)
    with pytest.raises(ValueError, match=r"has other options than this search \(optimizer\.lr\)"):
        sweeper._job(trial, Space({"optimizer.lr": rates}, []))


def test_the_storage_of_a_search_is_in_its_folder(tmp_path, monkeypatch):
    """In a URL, the path ends at a question mark."""
    optuna = pytest.importorskip("optuna")
    from nelbo.cli.sweep.search import OptunaSweeper

    folder = f"{tmp_path}/a?b"
    storage = f"sqlite:///{folder}/optuna.db"
    sweeper = OptunaSweeper(1, 1, "nelbo", storage, "minimize", 0, optuna.samplers.TPESampler)
    sweeper.sweep_config = OmegaConf.create({"hydra": {"sweep": {"dir": folder}}})
    monkeypatch.setattr(sweeper, "_space", lambda arguments: None)
    with pytest.raises(ValueError, match=r"a\?b: a search needs a folder without \? in its name"):
        sweeper.sweep([])
    assert not any(tmp_path.iterdir())


def test_a_journal_of_sqlite_that_names_a_file_is_refused(tmp_path):
    """SQLite would delete it. The journal of a process that was killed has no such name."""
    from nelbo.cli.sweep.search import check_journal

    storage, journal = f"sqlite:///{tmp_path}/study.db", tmp_path / "study.db-journal"
    check_journal(storage)
    magic = bytes.fromhex("d9d505f920a163d7")
    journal.write_bytes(magic + bytes(504))
    check_journal(storage)
    name = b"/home/me/notes.txt"
    end = len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + magic
    journal.write_bytes(magic + bytes(504) + name + end)
    (tmp_path / "link.db").symlink_to(tmp_path / "study.db")
    for name in ("study.db", "study.db?timeout=20", "link.db"):
        with pytest.raises(ValueError, match=r"study\.db-journal names another database, and is refused"):
            check_journal(f"sqlite:///{tmp_path}/{name}")


def test_control_codes_in_the_options_of_a_sweep_are_not_printed(tmp_path):
    job = Job("train", (), {"data.dims": "\x1b]0;PWNED\x07"}, "0", tmp_path)
    assert job.title == r"data.dims=\x1b]0;PWNED\x07"


@pytest.mark.parametrize("download", [{"download": True}, {}], ids=["named", "by default"])
def test_no_model_downloads_into_a_folder_that_its_file_names(download, finished_run, tmp_path):
    content = torch.load(finished_run.folder / "checkpoints/last.ckpt", weights_only=True)
    mnist = {"_target_": "nelbo.data.mnist.MNIST", "root": str(tmp_path / "elsewhere"), **download}
    content["nelbo"]["config"]["data"] = mnist
    content["nelbo"]["data"]["root"] = mnist["root"]
    torch.save(content, tmp_path / "model.ckpt")
    model = load_model(tmp_path / "model.ckpt")
    data = instantiate(model.config.data)
    data.prepare_data()
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(FileNotFoundError, match=r"evaluate\.py and sample\.py: root"):
        data.split("test")
    named = load_model(tmp_path / "model.ckpt", f"root={tmp_path}")
    assert named.config.data.get("download", True)


def test_submitit_reads_no_pickles_of_the_sweep_that_is_resumed(tmp_path):
    written = {"hydra": {"overrides": {"task": ["seed=0,1"], "hydra": []}, "job": {"config_name": "train"}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(written))
    given = [f"resume={tmp_path}", "hydra/launcher=submitit_local"]
    *_, first = add_resumed_sweep(given, "train")
    *_, second = add_resumed_sweep(given, "train")
    assert first.startswith(f"hydra.launcher.submitit_folder='{tmp_path}/.submitit-")
    assert first.endswith("/%j'")
    assert first != second


def test_lightning_adds_no_checkpoint_callback(compose, tmp_path):
    """Its ModelCheckpoint removes the files that its state in a checkpoint names."""
    config = compose("callbacks.last_checkpoint=null", "callbacks.best_checkpoint=null")
    config.run_dir = str(tmp_path)
    del config.trainer.default_root_dir
    trainer = build.build_trainer(config, [], [])
    assert not trainer.checkpoint_callbacks
    assert trainer.default_root_dir == str(tmp_path)
    with pytest.raises(ValueError, match=r"trainer\.enable_checkpointing=true: not an option"):
        check_component("trainer", to_plain(config)["trainer"] | {"enable_checkpointing": True})


def test_messages_show_no_control_codes_of_a_file(composed):
    hostile = with_hostile(composed, "loss", {"_target_": "\x1b[2J\nos.mkdir" + "x" * 10_000})
    with pytest.raises(
        ValueError, match=r"^run: loss\._target_=\\x1b\[2J\\nos\.mkdirx+\.\.\. is not"
    ) as refused:
        validate_stored(hostile, "run", None)
    assert len(str(refused.value)) < 400


def test_modules_that_import_by_name_are_those_that_the_gate_knows():
    """A new one needs an entry in CODE_ARGUMENTS if the name can come from a configuration."""
    words = ("import_module(", "__import__(", "get_object(", "get_class(", "eval(", "exec(")
    source = ROOT / "src/nelbo"
    found = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8").replace(".eval(", "") for word in words)
    }
    assert found <= KNOWN_TO_IMPORT, found - KNOWN_TO_IMPORT
    [named] = stored_config.CODE_ARGUMENTS
    assert hydra.utils.get_class(named).__name__ == "TorchModule"


KNOWN_TO_IMPORT = {
    "__main__.py",  # the commands of its table
    "cli/entry.py",  # the commands, by names in the code
    "_lazy.py",  # the modules of a table in an __init__
    "compose/build.py",  # of validated nodes
    "evaluation/codec/stack.py",  # constriction
    "evaluation/image_codecs.py",  # pillow_jxl
    "evaluation/sample_metrics/features/torch_module.py",  # in CODE_ARGUMENTS
}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "sample", "train"])
def test_commands_refuse_hostile_files(command, finished_run, tmp_path):
    """Real processes."""
    marker = tmp_path / "ran"
    hostile = {"loss": call("shutil.copy", "/etc/hostname", str(marker)), "schedule": "${oc.env:SECRET}"}
    for place, value in hostile.items():
        if command == "train":
            folder = tmp_path / place
            (folder / ".hydra").mkdir(parents=True)
            content = yaml.safe_load((finished_run.folder / CONFIG).read_text())
            (folder / CONFIG).write_text(yaml.safe_dump(with_hostile(content, place, value)))
            options = [f"resume={folder}"]
        else:
            path = tmp_path / f"{place}.ckpt"
            content = torch.load(finished_run.folder / "checkpoints/last.ckpt", weights_only=True)
            content["nelbo"]["config"] = with_hostile(content["nelbo"]["config"], place, value)
            torch.save(content, path)
            options = [f"checkpoint={path}", f"hydra.run.dir={tmp_path}/{command}"]
        ended = subprocess.run(
            [sys.executable, f"{command}.py", *options],
            cwd=ROOT,
            env=os.environ | {"SECRET": SECRET},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 1
        assert "refused" in ended.stderr
        assert ended.stderr.count("\n") == 1
        assert SECRET not in ended.stdout + ended.stderr
    assert not marker.exists()
