"""The configuration folders and classes of the user's own project, and the command that the user started."""

import sys
from pathlib import Path

import pytest

from nelbo.__main__ import main
from nelbo.cli.project import read_project, searched_folders
from nelbo.cli.resume import add_resumed_run
from nelbo.cli.started import VARIABLE, started_command, store_started_command
from nelbo.compose.config import CONFIG_DIR, folder_of

SCHEDULE = """# A schedule of the project.
_target_: {target}
num_steps: 20
logsnr_max: auto
logsnr_min: paper
offset: 0.008
max_beta: 0.999
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """The configuration folder of a project, whose folder is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "conf/schedule").mkdir(parents=True)
    (tmp_path / "own_schedule.py").write_text(
        "from nelbo.diffusion.schedules import CosineSchedule\n\n\nclass Mine(CosineSchedule):\n    pass\n"
    )
    (tmp_path / "conf/schedule/mine.yaml").write_text(SCHEDULE.format(target="own_schedule.Mine"))
    return tmp_path / "conf"


@pytest.mark.parametrize(
    "flags",
    [
        ["--config-dir", "conf"],
        ["--config-path", "conf"],
        ["--config-dir=conf"],
        ["-cd", "conf"],
        ["hydra.searchpath=[file://conf]"],
        ["hydra.searchpath=[conf]"],
    ],
    ids=" ".join,
)
def test_all_ways_to_name_a_folder_are_one_search_path(own, flags):
    project = read_project(["seed=1", *flags, "loss=simple"], "train")
    assert project.arguments == ["seed=1", "loss=simple", f"hydra.searchpath=['file://{own}']"]
    assert project.main == str(CONFIG_DIR)
    assert str(own.parent) in project.import_from
    assert searched_folders(project.arguments) == [CONFIG_DIR, own]


def test_the_folder_of_config_path_comes_before_that_of_nelbo(own):
    (own / "train.yaml").write_text("seed: 1\n")
    project = read_project(["--config-path", "conf", "-m"], "train")
    flag, path, search = project.arguments
    assert (flag, path) == ("-m", f"--config-path={own}")
    assert search == f"hydra.searchpath=['file://{CONFIG_DIR}']"
    assert project.main == str(own)
    again = read_project(project.arguments, "train")  # as a rank does
    assert (again.main, again.arguments[-1]) == (project.main, search)


def test_without_a_project_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    project = read_project(["-m", "seed=1,2", "--cfg=job"], "train")
    assert project.arguments == ["-m", "--cfg=job", "seed=1,2"]
    assert (project.typed, project.import_from, sys.path) == ("", [], before)


@pytest.mark.parametrize("option", ["trust=mine", "model._target_=mine.Net", "+features.path=mine.Net"])
def test_an_option_that_names_code_makes_the_current_folder_importable(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert read_project([option], "train").import_from == [str(tmp_path)]
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-dir", "missing"], "--config-dir: there is no folder {folder}/missing"),
        (["--config-path", "missing"], "--config-path: there is no folder {folder}/missing"),
        (["hydra.searchpath=[file://missing]"], "hydra.searchpath: there is no folder {folder}/missing"),
        (["hydra.searchpath=[pkg://missing.a]"], "pkg://missing.a: there is no Python package missing.a"),
        (["--config-name", "mine"], "--config-name=mine: this command composes train.yaml; name your own"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_a_folder_that_is_missing_is_refused_in_one_line(own, command, arguments, message):
    ended = command(*arguments)
    assert ended.code == 1
    assert ended.err.startswith(f"error: {message.format(folder=own.parent)}")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--config-dir", "--config-path"])
def test_a_choice_with_the_name_of_one_of_nelbo_is_refused(own, command, flag):
    (own / "schedule/cosine.yaml").write_text(SCHEDULE.format(target="own_schedule.Mine"))
    ended = command(flag, "conf")
    assert ended.code == 1
    assert ended.err == (
        f"error: {own}/schedule/cosine.yaml: nelbo has schedule=cosine, so this file would hide it: "
        "give it another name\n"
    )


@pytest.mark.parametrize("target", ["own_schedule.Other", "no_module.Mine"])
def test_a_class_that_cannot_be_imported_is_named(own, command, target):
    (own / "schedule/mine.yaml").write_text(SCHEDULE.format(target=target))
    ended = command("--config-dir", "conf", "schedule=mine")
    assert ended.code == 1
    assert ended.err.startswith(f"error: schedule._target_={target}: cannot be imported (")
    assert ended.err.count("\n") == 1


def test_a_train_yaml_of_config_path_is_composed(own, command):
    text = (CONFIG_DIR / "train.yaml").read_text()
    (own / "train.yaml").write_text(text.replace("- schedule: cosine", "- schedule: mine"))
    found = []
    ended = command("--config-path", "conf", job=lambda config: found.append(config.schedule))
    assert ended.code == 0, ended.err
    assert found[0]["_target_"] == "own_schedule.Mine"


@pytest.mark.parametrize("flag", ["--config-dir", "--config-path"])
def test_a_command_composes_the_choices_of_the_project(own, command, flag):
    found = []
    ended = command(flag, "conf", "schedule=mine", job=lambda config: found.append(config.schedule))
    assert ended.code == 0, ended.err
    assert found[0]["_target_"] == "own_schedule.Mine"


def test_the_choices_of_a_resumed_run_may_be_of_the_project(own, tmp_path):
    run_dir = tmp_path / "run"
    (run_dir / ".hydra").mkdir(parents=True)
    (run_dir / ".hydra/config.yaml").write_text("{}")
    (run_dir / ".hydra/overrides.yaml").write_text("[schedule=mine, schedule=missing, seed=1]")
    project = read_project(["--config-dir", "conf", f"resume={run_dir}"], "train")
    assert add_resumed_run(project.arguments)[0] == "schedule=mine"
    assert "schedule=mine" not in add_resumed_run([f"resume={run_dir}"])


@pytest.mark.parametrize(
    ("program", "subcommand", "words", "shown"),
    [
        ("train.py", None, ["{folder}/train.py"], "python train.py --config-dir conf"),
        ("/venv/bin/nelbo", "train", ["/venv/bin/nelbo", "train"], "nelbo train --config-dir conf"),
        ("nelbo/__main__.py", "train", ["-m", "nelbo", "train"], "python -m nelbo train --config-dir conf"),
    ],
    ids=["script", "nelbo", "module"],
)  # fmt: skip
def test_the_started_command_is_that_of_the_user(tmp_path, monkeypatch, program, subcommand, words, shown):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setenv(VARIABLE, "")
    store_started_command(subcommand, "--config-dir conf")
    command = started_command()
    assert command.words == [word.format(folder=tmp_path) for word in words]
    assert command.shown == shown


def test_the_configuration_is_found_as_a_package():
    assert folder_of("pkg://nelbo.conf").resolve() == CONFIG_DIR.resolve()
    assert (CONFIG_DIR / "train.yaml").is_file()


def test_new_writes_a_project_with_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "waves"]) == 0
    assert "cd waves && nelbo train --config-dir conf" in capsys.readouterr().out
    files = [path for path in (tmp_path / "waves").rglob("*") if path.is_file()]
    assert {"schedule.py", "network.py", "data.py", "stripes.yaml", "README.md", "test_waves.py"} <= {
        path.name for path in files
    }
    assert not any("my_project" in path.read_text() for path in files)
    assert main(["new", "waves"]) == 1
    assert capsys.readouterr().err == "error: waves is not empty: choose a new folder\n"


@pytest.mark.parametrize("name", ["two-words", "1st", "json", "torch", "nelbo", "class"])
def test_new_refuses_a_name_that_no_package_can_have(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", name]) == 1
    assert capsys.readouterr().err.startswith(f"error: {name}: ")
    assert not list(tmp_path.iterdir())
