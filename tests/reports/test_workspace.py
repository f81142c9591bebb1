"""The W&B workspace shows what runs log, and says in one line what it lacks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nelbo import __main__ as nelbo_main
from nelbo.reports.workspace import GROUPED_BY, STEP, bound_workspace


@pytest.fixture(scope="module")
def sections() -> list[dict]:
    view = bound_workspace("someone", "nelbo")._to_model().model_dump(by_alias=True, exclude_none=True)
    return view["spec"]["section"]["panelBankConfig"]["sections"]


def panels(sections: list[dict]) -> dict[str, dict]:
    """By title."""
    configs = [panel["config"] for section in sections for panel in section["panels"]]
    return {config.get("chartTitle") or config["stringSettings"]["title"]: config for config in configs}


def asked(config: dict) -> tuple[list[str], str | None]:
    """The keys that a panel names, and the pattern that it matches keys with."""
    text = json.dumps(config)
    keys = [*config.get("metrics", []), *config.get("mediaKeys", [])]
    keys += re.findall(r'"tableKey", "value": "([^"]+)"', text)
    return keys, config.get("metricRegex")


def logged(run_dir: Path) -> tuple[set[str], dict]:
    """Keys of the history of an offline run, media and tables included, and its configuration."""
    (folder,) = (run_dir / "wandb").glob("offline-run-*")
    wandb = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    ended = subprocess.run(wandb, capture_output=True, text=True, timeout=120, check=True)
    keys: set[str] = set()
    config: dict = {}
    for line in ended.stdout.splitlines():
        record = json.loads(line)
        if record["type"] == "history":
            keys |= {re.sub(r"\._type$", "", key) for key in record["history"]["item"]}
        if record["type"] == "config":
            config |= record["config"]["update"]
    return keys, config


@pytest.mark.slow
def test_every_panel_shows_what_a_run_logs(sections, run_in_process, tiny, tmp_path):
    keys, config = set(), {}
    for number, data in enumerate(("data=digits", "data=gaussian")):
        quality = ("callbacks=sample_quality", "callbacks.sample_quality.num_samples=100")
        folder = tmp_path / str(number)
        options = (*quality, data, *tiny, f"callbacks.sample_quality.cache={tmp_path}")
        assert run_in_process("train", *options, "logger=wandb", folder=folder) == 0
        found, config = logged(folder)
        keys |= found
    for title, panel in panels(sections).items():
        named, pattern = asked(panel)
        assert named or pattern, title
        assert set(named) <= keys, title
        assert pattern is None or any(re.search(pattern, key) for key in keys), title
    assert STEP in keys
    for key in GROUPED_BY:
        group, name = key.split(".")
        assert config[group][name].startswith("nelbo.diffusion.")


def test_it_shows_every_part_of_the_bound(sections):
    named = {key for panel in panels(sections).values() for key in asked(panel)[0]}
    assert {"val/bpd", "val/L_0", "val/L_t", "val/L_T", "val/L_t_against_t_table", "samples"} <= named


def test_a_dry_run_prints_what_would_be_sent_and_needs_no_key(capsys):
    assert nelbo_main.main(["workspace", "someone", "nelbo", "--dry-run"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert (view["entity"], view["project"]) == ("someone", "nelbo")
    grouping = view["spec"]["section"]["runSets"][0]["grouping"]
    assert [key["name"] for key in grouping] == ["schedule.value._target_", "loss.value._target_"]


def test_without_a_key_it_says_so_in_one_line(capsys):
    assert nelbo_main.main(["workspace", "someone", "nelbo"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: saving a workspace needs a W&B key")
    assert err.count("\n") == 1


def test_without_the_library_it_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert nelbo_main.main(["workspace", "someone", "nelbo"]) == 1
    assert "needs wandb-workspaces: pip install" in capsys.readouterr().err
