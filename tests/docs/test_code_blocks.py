"""Every code block of the README and of the how-tos is run, or at least composed.

A comment before a block says how, and why it is not simply run:

    <!-- file: conf/schedule/mine.yaml -->         written into the copy of the tree that the page is run in
    <!-- check: few-steps: it trains for minutes -->   run with options that make it short
    <!-- check: few-steps, refused: why -->         the same, and it must fail with one line
    <!-- check: few-steps, composed "some.pt": it is not here -->   lines with that word are composed only
    <!-- check: compose: it takes a GPU -->         not run: options are composed, commands looked up

Bash and Python without a comment are run as they are.
"""

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from nelbo.cli.overrides import SHORT_NAMES
from nelbo.compose.options import check_options

ROOT = Path(__file__).parents[2]
HOW_TOS = [ROOT / "docs/quickstart.md", *sorted((ROOT / "docs/how-to").glob("*.md"))]
# run in the folder of a project that nelbo new has written
OF_A_PROJECT = [
    ROOT / f"docs/how-to/{name}.md"
    for name in ("data", "features", "loss", "model", "parameterization", "schedule")
]
README = ROOT / "README.md"
PROSE = [ROOT / "CONTRIBUTING.md", ROOT / "docs/from_python.md", ROOT / "docs/other_projects.md"]
PAGES = [README, *PROSE, *HOW_TOS]

FENCE = re.compile(
    r"(?:<!-- (?P<comment>[^>]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
CHECK = re.compile(
    r'check: (?P<how>few-steps|compose)(?P<refused>, refused)?(?:, composed "(?P<word>[^"]+)")?: (?P<why>.+)'
)


@dataclass(frozen=True)
class Block:
    """A fenced block, and what its comment asks for."""

    page: Path
    line: int
    language: str
    text: str
    file: str | None  # to write it to
    how: str  # run, few-steps or compose
    refused: bool
    composed: str | None  # a word; lines with it are composed only

    @property
    def commands(self) -> list[str]:
        """One a line, without comments and continuations."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [command for line in lines if (command := re.sub(r"(^|\s+)#.*$", "", line).strip())]

    def only_composed(self, command: str) -> bool:
        return self.how == "compose" or (self.composed is not None and self.composed in command)


def blocks(page: Path) -> list[Block]:
    text, found = page.read_text(), []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        comment = match["comment"] or ""
        file = comment.removeprefix("file: ") if comment.startswith("file: ") else None
        check = CHECK.fullmatch(comment)
        assert not comment or file or check, f"{page.name}:{line}: {comment} is no check: see {__file__}"
        how, refused, word = (
            (check["how"], bool(check["refused"]), check["word"]) if check else ("run", False, None)
        )
        found.append(Block(page, line, match["language"], match["text"], file, how, refused, word))
    return found


# ------------------------------------------------------------------------------------ composed

COMPOSED = [
    pytest.param(
        command,
        id=f"{page.stem}:{block.line}:{command[:60]}",
        marks=[pytest.mark.slow]
        if command.startswith("wandb")
        else [],  # its command line takes long to import
    )
    for page in PAGES
    for block in blocks(page)
    if block.language == "bash"
    for command in block.commands
    if block.only_composed(command)
]


@pytest.mark.parametrize("command", COMPOSED)
def test_a_command_that_is_not_run_exists(command):
    for part in re.split(r"\s*(?:&&|;)\s*", command):
        exists(shlex.split(part))


def exists(words: list[str]) -> None:
    """Raise unless such a command can be given here."""
    match words:
        case ["python", "-m", "nelbo", name, *arguments]:
            parser = ArgumentParser(exit_on_error=False)
            importlib.import_module(f"nelbo.cli.{name}").add_arguments(parser)
            parser.parse_args(arguments)
        case ["nelbo", "new", _] | ["cd", _]:
            pass
        case ["nelbo", ("train" | "evaluate" | "sample") as name, *options]:
            if "--config-dir" not in options:  # with it, the choices are those of a project
                composes(name, [option for option in options if option != "-m"])
        case ["python", "-m", module, *_] if module.startswith("benchmarks."):
            importlib.import_module(module)
        case ["python", ("train.py" | "evaluate.py" | "sample.py") as script, *options]:
            composes(script.removesuffix(".py"), [option for option in options if option != "-m"])
        case ["srun", "--kill-on-bad-exit=1", *command]:
            exists(command)
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text()
            assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
        case ["pip", "install", "-c", "constraints.txt", "-e", what]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert what == "." or what[2:-1] in extras
        case ["pip", "wheel", "--no-deps", "."] | ["pip", "install", "nelbo-*.whl"]:
            pass
        case ["wandb", name, *_]:
            from wandb.cli.cli import cli

            assert name in cli.commands
        case ["python3", "-m", "venv", _] | ["source", _]:
            pass
        case ["eval", _]:
            pass
        case ["git" | "docker" | "cp" | "pre-commit", *_]:
            pass
        case _:
            raise AssertionError(f"do not know how to check {words}: see {__file__}")


def composes(name: str, options: list[str]) -> None:
    """Compose with the first choice of everything that is swept over."""
    for word, option in SHORT_NAMES.get(name, {}).items():
        options = [re.sub(rf"^{word}=", f"{option}=", given) for given in options]
    chosen = []
    for override in OverridesParser.create().parse_overrides(options):
        sweep = override.is_sweep_override() and not override.is_hydra_override()
        first = next(iter(override.sweep_string_iterator())) if sweep else None
        chosen.append(f"{override.input_line.partition('=')[0]}={first}" if sweep else override.input_line)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        compose(name, overrides=chosen, return_hydra_config=True)
        if name == "train" and not any(option.startswith("resume=") for option in chosen):
            without_hydra = [option for option in chosen if not option.startswith("hydra")]
            check_options(compose(name, overrides=[*without_hydra, "run_dir=unused"]), name)


# ------------------------------------------------------------------------------------ run

FILES = ("train.py", "evaluate.py", "sample.py", "Makefile", "pyproject.toml", "constraints.txt")
FOLDERS = ("src", "conf", "tests", "benchmarks")
# what the README calls a trained model and runs: small, with a network that diffusers has, too
MODEL = ("schedule.num_steps=50", "model.channels=32")


@pytest.fixture(scope="session")
def tree(tmp_path_factory, tiny, improved_diffusion_golden) -> Path:
    """A copy of the repository with two runs, two checkpoints and a folder of images in it."""
    folder = tmp_path_factory.mktemp("documented") / "tree"
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name,
            folder / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    small = [option for option in tiny if not option.startswith("model")]
    for name, options in {"A": ("schedule=cosine", *MODEL), "B": ("schedule=linear", *MODEL)}.items():
        done = bash(
            shlex.join(["python", "train.py", *small, *options, f"hydra.run.dir=outputs/{name}"]), folder
        )
        assert done.returncode == 0, done.stderr
    shutil.copy(folder / "outputs/A/checkpoints/last.ckpt", folder)
    torch.save(improved_diffusion_golden("cosine_learned_range").weights, folder / "ema_0.9999_050000.pt")
    (folder / "my/images").mkdir(parents=True)
    for number in range(100):
        colour = (number, 2 * number, 255 - number)
        Image.new("RGB", (40, 32), colour).save(folder / f"my/images/{number}.png")
    (folder / "bin").mkdir()
    command = folder / "bin/nelbo"  # as pip writes it
    command.write_text(f"#!{sys.executable}\nimport sys\nfrom nelbo.__main__ import main\nsys.exit(main())\n")
    command.chmod(0o755)
    assert bash("nelbo new my_project", folder).returncode == 0
    shutil.copytree(folder / "my", folder / "my_project/my")
    return folder


@pytest.fixture
def copy(tree, tmp_path) -> Path:
    """A copy of that for one page, which may write into it."""
    return Path(shutil.copytree(tree, tmp_path / "tree", symlinks=True))


def bash(command: str, folder: Path) -> subprocess.CompletedProcess:
    """Run it in a folder, with the Python that runs this test and the code that lies there, or next to it."""
    tree = folder if (folder / "src").is_dir() else folder.parent
    environment = {**os.environ, "PYTHONPATH": f"{tree / 'src'}:{tree}", "WANDB_MODE": "offline"}
    environment["PATH"] = f"{tree / 'bin'}:{Path(sys.executable).parent}:{environment['PATH']}"
    environment |= {"NELBO_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def shortened(command: str, tiny: tuple[str, ...]) -> str:
    """The command with options that make it take seconds, and with a model that is there."""
    command = command.replace("outputs/.../", "outputs/A/").replace("checkpoint=...", "checkpoint=last.ckpt")
    if command.startswith(("python train.py", "nelbo train")):
        groups = {"model", "data"} & set(re.findall(r"(\w+)=", command))
        extra = [option for option in tiny if not option.startswith("model") or not groups]
        extra += ["data.batch_size=8"] if "image_folder" in command else []
        extra += ["callbacks.sample_quality.num_samples=100"] if "sample_quality" in command else []
        extra += ["hydra.sweeper.n_trials=2"] if "sweep=optuna" in command else []
    elif command.startswith("python evaluate.py"):
        extra = ["max_examples=20"]
    elif command.startswith("python sample.py"):
        extra = ["n=4", "sampler.steps=3"]
    else:
        extra = []
    return f"{command} {shlex.join(extra)}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page, copy, tiny):
    if page in OF_A_PROJECT:
        copy /= "my_project"
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.file is not None:
            (copy / block.file).parent.mkdir(parents=True, exist_ok=True)
            (copy / block.file).write_text(block.text)
        elif block.language == "python":
            ended = bash(f"python - <<'PYTHON'\n{block.text}PYTHON", copy)
            assert ended.returncode == 0, f"{where}: {ended.stderr}"
        elif block.language == "bash":
            for command in block.commands:
                if block.only_composed(command):
                    continue
                ended = bash(shortened(command, tiny) if block.how == "few-steps" else command, copy)
                assert (ended.returncode != 0) == block.refused, f"{where}: {command}: {ended.stderr}"
                if block.refused:
                    assert ended.stderr.startswith("error: "), f"{where}: {ended.stderr}"


def test_the_chinese_readme_has_the_same_commands_and_choices():
    chinese = ROOT / "README.zh-CN.md"
    assert [block.commands for block in blocks(chinese) if block.language == "bash"] == [
        block.commands for block in blocks(README) if block.language == "bash"
    ]
    first_cells = re.compile(r"^\| `([^`]+)`.*$", re.M)
    assert first_cells.findall(chinese.read_text()) == first_cells.findall(README.read_text())


PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]


def test_python_of_the_pages_passes_the_linters(tmp_path):
    shutil.copy(ROOT / "src/nelbo/project_template/pyproject.toml", tmp_path)  # the files are of a project
    for block in PYTHON:
        file = tmp_path / (block.file or f"{block.page.stem}_line_{block.line}.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
    for command in (["check", "--output-format=concise"], ["format", "--check"]):
        ended = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=tmp_path, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page.stem}:{block.line}")
def test_names_that_python_of_the_pages_imports_from_nelbo_exist(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "nelbo":
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def test_the_schedule_of_the_how_to_is_that_of_a_new_project():
    for block in blocks(ROOT / "docs/how-to/schedule.md"):
        if block.file:
            assert block.text == (ROOT / "src/nelbo/project_template" / block.file).read_text()


def test_files_of_the_how_tos_are_new_and_nothing_else_is_unchecked():
    for page in PAGES:
        for block in blocks(page):
            where = f"{page.name}:{block.line}"
            assert block.language != "yaml" or block.file, f"{where}: a yaml that is not written anywhere"
            if block.file:
                assert not (ROOT / block.file).exists(), f"{where}: {block.file} is in the tree already"
