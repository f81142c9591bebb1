"""A flipped bit in a checkpoint is refused by every command, or changes nothing that the command writes.

``NELBO_TEST_FLIPS_OF_COMMANDS=50`` tries 50 flips with each command, and ``NELBO_TEST_DAMAGED_RESUMES=40``
resumes 40 runs with a damaged checkpoint.
"""

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nelbo.__main__ import main
from tests.runs.test_folder_lock import hashes

FLIPS = int(os.environ.get("NELBO_TEST_FLIPS_OF_COMMANDS", "4"))
RESUMES = int(os.environ.get("NELBO_TEST_DAMAGED_RESUMES", "2"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# the smallest network that can be exported
MODEL = (
    "model=unet_tiny",
    "model.channels=32",
    "model.channel_mult=[1]",
    "model.attention_resolutions=[]",
    "lr_schedule=constant",  # which does not depend on the number of steps
    "logger=none",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_in_process, tiny) -> Path:
    """The folder of a finished run with a last and a previous checkpoint, of steps 6 and 4."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = [option for option in tiny if not option.startswith(("model", "lr_schedule"))]
    assert run_in_process("train", *options, *MODEL, folder=folder) == 0
    return folder


@pytest.fixture
def use(command, tmp_path, capfd):
    """Runs a command on a checkpoint: exit code, standard error, and all that it computed."""

    def evaluate(path: Path, into: Path) -> SimpleNamespace:
        options = ("estimator=stratified", "estimator.evaluations_per_example=4", "max_examples=8")
        ended = command(f"checkpoint={path}", *options, name="evaluate", folder=into)
        ended.result = ended.code == 0 and json.loads((into / "evaluation.json").read_text())["ledger"]
        return ended

    def sample(path: Path, into: Path) -> SimpleNamespace:
        options = ("n=4", "sampler.steps=2", "format=npz")
        ended = command(f"checkpoint={path}", *options, name="sample", folder=into)
        ended.result = ended.code == 0 and np.load(into / "samples.npz")["samples"].tolist()
        return ended

    def export(path: Path, into: Path) -> SimpleNamespace:
        capfd.readouterr()
        code = main(["export", str(path), str(into)])
        ended = SimpleNamespace(code=code, err=capfd.readouterr().err)
        ended.result = code == 0 and {name: digest for name, digest in hashes(into).items() if "unet" in name}
        return ended

    def resume(path: Path, into: Path) -> SimpleNamespace:
        run = shutil.copytree(path.parents[1], into, symlinks=True)
        before = hashes(run)
        ended = command(f"resume={run}", "trainer.max_steps=8", folder=run)
        if ended.code == 0:
            ended.result = weights(run)
        else:
            assert hashes(run) == before
        return ended

    return {"evaluate": evaluate, "sample": sample, "export": export, "resume": resume}


def weights(run: Path) -> list:
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert content["global_step"] == 8
    return [tensor.tolist() for tensor in content["state_dict"].values()]


def places(whole: bytes, count: int, draw: random.Random) -> list[int]:
    """Half of them anywhere, half in the last kilobytes: the directory of the archive, and the checksum."""
    end = range(len(whole) - 4000, len(whole))
    return [draw.choice(end) if number % 2 else draw.randrange(len(whole)) for number in range(count)]


@pytest.mark.parametrize("name", ["evaluate", "sample", "export", "resume"])
def test_a_flipped_bit_is_refused_in_one_line_or_harmless(name, use, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "damaged", symlinks=True)
    last = run / "checkpoints/last.ckpt"
    (run / "checkpoints/previous.ckpt").unlink()
    whole, draw = last.read_bytes(), random.Random(name)
    expected = use[name](last, tmp_path / "whole")
    assert expected.code == 0, expected.err
    counts = Counter()
    for number, place in enumerate(places(whole, FLIPS, draw)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        last.write_bytes(flipped)
        ended = use[name](last, tmp_path / str(number))
        if ended.code == 0:
            assert ended.result == expected.result, f"byte {place}"
            counts["harmless"] += 1
        else:
            assert ended.code == 1
            assert ended.err.count("\n") == 1, ended.err
            assert str(last) in ended.err or str(tmp_path / str(number)) in ended.err, ended.err
            counts["refused"] += 1
        shutil.rmtree(tmp_path / str(number), ignore_errors=True)
    print(name, dict(counts))
    assert counts.total() == FLIPS
    assert counts["refused"] >= 0.8 * FLIPS


def test_a_damaged_last_checkpoint_is_resumed_from_the_one_before_it(trained, command, tmp_path):
    """The run then ends with the weights of the run that was not damaged."""
    draw = random.Random(0)
    expected = shutil.copytree(trained, tmp_path / "whole", symlinks=True)
    assert command(f"resume={expected}", "trainer.max_steps=8", folder=expected).code == 0
    for number in range(RESUMES):
        run = shutil.copytree(trained, tmp_path / "damaged", symlinks=True)
        last, previous = run / "checkpoints/last.ckpt", run / "checkpoints/previous.ckpt"
        damaged = bytearray(last.read_bytes())
        place = draw.randrange(len(damaged) - 100)  # before the checksum
        damaged[place] ^= 1 << draw.randrange(8)
        last.write_bytes(damaged[:place] if number % 2 else damaged)
        with pytest.warns(UserWarning, match=f"{last} is damaged: resuming from {previous}"):
            assert command(f"resume={run}", "trainer.max_steps=8", folder=run).code == 0
        assert weights(run) == weights(expected)
        shutil.rmtree(run)
