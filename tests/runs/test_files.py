"""A folder that comes from someone else: nothing outside of it is read, written or waited for."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from nelbo.__main__ import main
from nelbo.runs.files import RunFolderError, check_contained
from tests.runs.test_folder_lock import hashes

LINKS = (
    "samples",
    "checkpoints",
    "wandb",
    ".hydra",
    "0",
    "output.txt",
    "traceback.txt",
    "metrics.csv",
    "summary.json",
    ".lock",
    ".lock.json",
    "checkpoints/last.ckpt",
    "samples/step_00000001.png",
    ".hydra/config.yaml",
    "wandb/run/files",
)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder with files of the user's."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("keep.tmp", "last.ckpt", "id_rsa", "config.yaml", "step_00000001.png"):
        (folder / name).write_text("secret")
    return folder


@pytest.fixture
def run_folder(tmp_path) -> Path:
    folder = tmp_path / "run"
    for name in (".hydra", "checkpoints", "samples", "wandb/run/logs"):
        (folder / name).mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text("trainer: {max_steps: 2}")
    (folder / ".hydra/overrides.yaml").write_text("[]")
    (folder / "checkpoints/last.ckpt").write_text("none")
    (folder / "metrics.csv").write_text("step,val/bpd\r\n1,2.0\r\n")
    return folder


def put_link(run_folder: Path, name: str, target: Path) -> Path:
    place = run_folder / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(target)
    return place


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("target", ["", "id_rsa", "not/there"])
def test_a_link_to_the_outside_is_refused_and_says_what_to_do(name, target, run_folder, outside):
    place = put_link(run_folder, name, outside / target)
    with pytest.raises(RunFolderError) as caught:
        check_contained(run_folder)
    assert str(caught.value).startswith(f"{place} is a link to {outside / target}, outside of {run_folder}: ")
    assert "mount --bind" in str(caught.value)


def test_links_inside_of_the_folder_and_the_folder_itself_as_a_link_are_accepted(run_folder, outside):
    (run_folder / "wandb/latest-run").symlink_to("run")
    (run_folder / "samples/last.png").symlink_to("../checkpoints/last.ckpt")
    (run_folder / "loop").symlink_to("loop")
    (run_folder / "self").symlink_to(run_folder)
    (run_folder / "wandb/run/logs/debug-core.log").symlink_to(outside / "id_rsa")  # W&B makes this one
    check_contained(run_folder)
    (run_folder.parent / "link").symlink_to(run_folder)
    check_contained(run_folder.parent / "link")


def test_a_link_by_way_of_another_link_is_refused(run_folder, outside):
    (run_folder / "a").symlink_to("b")
    (run_folder / "b").symlink_to(Path("..") / outside.name)
    with pytest.raises(RunFolderError, match="is a link to"):
        check_contained(run_folder)


@pytest.mark.parametrize(
    "name", [".lock.json", "output.txt", "samples/step_00000001.png", ".hydra/config.yaml"]
)
def test_a_pipe_is_refused_and_not_waited_for(name, run_folder):
    (run_folder / name).unlink(missing_ok=True)
    os.mkfifo(run_folder / name)
    with pytest.raises(RunFolderError, match=rf"{name} is not a regular file"):
        check_contained(run_folder)


@pytest.mark.parametrize("name", LINKS)
def test_resume_changes_nothing_outside_of_the_folder(name, run_folder, outside, command):
    place = put_link(run_folder, name, outside / "last.ckpt" if "." in Path(name).name[1:] else outside)
    before = hashes(outside)
    ended = command(f"resume={run_folder}", folder=run_folder)
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert f"{place} is a link to" in ended.err
    assert hashes(outside) == before


@pytest.mark.parametrize("name", ["images", "sampling.json", "parts"])
def test_sampling_into_a_folder_changes_nothing_outside_of_it(name, tmp_path, outside, command):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / name).symlink_to(outside)
    ended = command("checkpoint=any.ckpt", name="sample", folder=tmp_path / "samples")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert f"{tmp_path / 'samples' / name} is a link to" in ended.err


@pytest.mark.parametrize("name", ["0", "0/output.txt", "0/.hydra", "search.db", "0/traceback.txt"])
def test_a_sweep_that_is_resumed_changes_nothing_outside_of_its_folder(name, tmp_path, outside, command):
    sweep = tmp_path / "sweep"
    (sweep / "0").mkdir(parents=True)
    overrides = {"task": ["seed=0,1"], "hydra": []}
    written = {"hydra": {"overrides": overrides, "job": {"config_name": "train"}}}
    (sweep / "multirun.yaml").write_text(yaml.safe_dump(written))
    place = put_link(sweep, name, outside)
    before = hashes(outside)
    ended = command(f"resume={sweep}", folder=sweep)
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert f"{place} is a link to" in ended.err
    assert hashes(outside) == before


@pytest.mark.parametrize("name", [".lock.json", ".hydra/overrides.yaml"])
def test_resume_does_not_wait_for_a_pipe(name, run_folder, command):
    (run_folder / name).unlink(missing_ok=True)
    os.mkfifo(run_folder / name)
    ended = command(f"resume={run_folder}", folder=run_folder)
    assert ended.err == f"error: {run_folder / name} is not a regular file: remove it\n"


@pytest.mark.parametrize("name", ["samples", "samples/step_00000001.png", "metrics.csv", ".hydra"])
def test_a_report_reads_nothing_outside_of_the_folder(name, run_folder, outside, capsys):
    (outside / "step_00000001.png").write_bytes(PNG + b"secret")
    put_link(run_folder, name, outside / "step_00000001.png" if "." in name[1:] else outside)
    assert main(["report", str(run_folder)]) == 1
    assert f"{run_folder / name} is a link to" in capsys.readouterr().err
    assert not (run_folder / "report.html").exists()


def test_a_report_of_a_run_with_linked_checkpoints_is_written(run_folder, outside, capsys):
    put_link(run_folder, "checkpoints", outside)  # which a report does not read
    assert main(["report", str(run_folder)]) == 0


@pytest.mark.parametrize("name", ["step_00000001.png", "step_x.png"])
def test_only_images_are_put_into_a_report(name, run_folder, capsys):
    (run_folder / "samples" / name).write_bytes(b"secret" if name[5] == "0" else PNG)
    assert main(["report", str(run_folder)]) == 1
    assert f"{run_folder / 'samples' / name}: not an image of samples" in capsys.readouterr().err


DAMAGED = {
    ".hydra/config.yaml": "a: " + "[" * 5000,
    "metrics.csv": "step,val/bpd\r\n1,2.0,3.0,4.0\r\n",
    "bound.parquet": "none",
    "examples.parquet": "none",
    "summary.json": json.dumps({"ledger": {"dims": [], "levels": 3}}),
    "evaluation.json": "{",
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("verb", ["report", "compare"])
def test_a_damaged_run_among_others_is_left_out_and_named(
    name, verb, run_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    summary = {
        "test/bpd": 2.0,
        "test/L_0": 1.0,
        "test/L_t": 1.0,
        "test/L_T": 0.0,
        "ledger": {"split": "test"},
    }
    (run_folder / "summary.json").write_text(json.dumps(summary))
    others = [shutil.copytree(run_folder, tmp_path / other) for other in ("one", "two")]
    (run_folder / name).write_text(DAMAGED[name])
    assert main([verb, str(others[0]), str(run_folder), str(others[1])]) == 0
    err = capsys.readouterr().err
    assert err.startswith(f"left out: {run_folder}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", ["report", "compare"])
def test_folders_that_are_left_out_are_counted_in_one_line(verb, run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = {f"test/{name}": 1.0 for name in ("bpd", "L_0", "L_t", "L_T")} | {"ledger": {"split": "test"}}
    (run_folder / "summary.json").write_text(json.dumps(summary))
    other = shutil.copytree(run_folder, tmp_path / "other")
    refused = [tmp_path / name for name in ("refused", "refused too")]
    for folder in refused:
        folder.mkdir()
    assert main([verb, str(refused[0]), str(run_folder), str(refused[1]), str(other)]) == 0
    err = capsys.readouterr().err
    assert err.startswith(f"left out: 2 folders that cannot be read, such as {refused[0]}: ")
    assert err.count("\n") == 1


def test_a_row_of_metrics_that_a_kill_cut_off_is_dropped(run_folder):
    from nelbo.runs.run_folder import read_run

    for rest in ("2", "2,3.", "2,3.5"):
        (run_folder / "metrics.csv").write_text(f"step,val/bpd\r\n1,2.0\r\n{rest}")
        assert read_run(run_folder).metrics["val/bpd"].values.tolist() == [2.0]


@pytest.mark.parametrize(
    "name", ["wandb/settings", ".wandb/settings", "hpc_ckpt_1.ckpt", "0/hpc_ckpt_2.ckpt"]
)
def test_files_that_only_libraries_read_are_refused(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    with pytest.raises(RunFolderError, match=re.escape(f"{path} changes what a library does")):
        check_contained(tmp_path)
