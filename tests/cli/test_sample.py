"""``python sample.py``: what it draws does not depend on how, goes on where it was, and is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torch import Tensor

from nelbo.cli.sample import describe
from nelbo.compose.build import build_module
from nelbo.compose.trained import TrainedModel
from nelbo.diffusion.samplers import DDIM
from nelbo.diffusion.spacings import Even, Karras, Spacing
from nelbo.evaluation.generation import SampleGenerator
from nelbo.interop.formats import Weights

FAST = ("sampler.steps=3", "n=5")


@pytest.fixture
def checkpoint(finished_run, tmp_path):
    copy = tmp_path / "model.ckpt"
    copy.write_bytes((finished_run.folder / "checkpoints/last.ckpt").read_bytes())
    return copy


@pytest.fixture
def draw(command, checkpoint, tmp_path):
    """Runs ``python sample.py checkpoint=... <arguments>`` in this process, in a new folder each time."""

    def run(*arguments, folder=None):
        folder = folder or tmp_path / f"samples{len(list(tmp_path.glob('samples*')))}"
        given = any(argument.startswith("checkpoint=") for argument in arguments)
        mine = () if given else (f"checkpoint={checkpoint}",)
        return command(*mine, *FAST, *arguments, name="sample", folder=folder)

    return run


def images_of(ended) -> np.ndarray:
    assert ended.code == 0, ended.err
    files = sorted((ended.folder / "images").glob("*.png"))
    return np.stack([np.array(Image.open(file)) for file in files])


def samples_of(ended) -> np.ndarray:
    assert ended.code == 0, ended.err
    with np.load(ended.folder / "samples.npz") as file:
        return file["samples"]


@pytest.mark.parametrize(
    "sampler",
    [
        "ancestral",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddim", "heun", "dpm_solver_pp")),
    ],
)
def test_a_sample_depends_on_the_seed_and_its_number_alone(sampler, draw):
    chosen = f"sampler={sampler}"
    whole = images_of(draw(chosen))
    assert whole.shape == (5, 8, 8)
    pieces = images_of(draw(chosen, "batch_size=2"))
    assert np.abs(whole.astype(int) - pieces).max() <= 1  # sums of floats in another order
    fewer = images_of(draw(chosen, "n=2"))
    assert np.abs(fewer.astype(int) - whole[:2]).max() <= 1
    assert (images_of(draw(chosen, "seed=1")) != whole).any()


@pytest.mark.slow
def test_single_images_and_one_file_hold_the_same(draw):
    single, one = images_of(draw()), draw("format=npz")
    levels = samples_of(one)[:, 0]
    assert (levels.dtype, levels.max() <= 16) == (np.uint8, True)
    assert np.array_equal(np.round(255 / 16 * levels.astype(float)), single)
    left = {path.name for path in one.folder.iterdir()} - {".hydra", ".lock"}
    assert left == {"grid.png", "sampling.json", "samples.npz"}


@pytest.mark.slow
def test_a_finished_file_is_not_drawn_again_and_grows(draw, tmp_path, monkeypatch):
    whole = samples_of(draw("format=npz", "n=7"))
    folder = tmp_path / "grows"
    drawn = []
    before = SampleGenerator.__call__

    def counts(self, numbers, *watch):
        drawn.extend(numbers)
        return before(self, numbers, *watch)

    monkeypatch.setattr(SampleGenerator, "__call__", counts)
    for n, new in ((4, [0, 1, 2, 3]), (4, []), (7, [4, 5, 6]), (3, [])):
        drawn.clear()
        ended = draw("format=npz", f"n={n}", folder=folder)
        assert (ended.code, drawn) == (0, new), ended.err
    assert (samples_of(ended) == whole).all()
    left = {path.name for path in folder.iterdir()} - {".hydra", ".lock"}
    assert left == {"grid.png", "sampling.json", "samples.npz"}


def test_a_model_that_has_diverged_draws_nothing(checkpoint, draw):
    content = torch.load(checkpoint, weights_only=True)
    for tensor in content["state_dict"].values():
        tensor.fill_(torch.nan)
    torch.save(content, checkpoint)
    ended = draw()
    is_refused(ended, "sample 0 is not finite: the model has diverged")
    assert not list(ended.folder.glob("images/*"))


@pytest.mark.slow
def test_without_files_there_is_still_the_grid(draw):
    ended = draw("format=none")
    assert ended.code == 0
    assert not (ended.folder / "images").exists()
    assert (ended.folder / "grid.png").is_file()
    assert np.array_equal(np.array(Image.open(ended.folder / "grid.png")),
                          np.array(Image.open(draw().folder / "grid.png")))  # fmt: skip


@pytest.mark.parametrize(("trajectory", "file"), [("gif", "trajectory.gif"), ("strip", "trajectory.png")])
def test_trajectory_is_written_as_gif_and_strip(trajectory, file, draw):
    ended = draw(f"trajectory={trajectory}")
    with Image.open(ended.folder / file) as picture:
        if trajectory == "gif":
            assert picture.n_frames == 4
        else:  # five rows of four images
            assert picture.size == (4 * 36 + 4, 5 * 36 + 4)


@pytest.mark.slow
@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_interrupted_sampling_resumes(image_format, draw, tmp_path, monkeypatch):
    options, drawn = (f"format={image_format}", "batch_size=1"), []
    original = SampleGenerator.__call__

    def dies(self, numbers, *watch):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.extend(numbers)
        return original(self, numbers, *watch)

    folder = tmp_path / "samples_again"
    with monkeypatch.context() as patch:
        patch.setattr(SampleGenerator, "__call__", dies)
        ended = draw(*options, folder=folder)
    assert ended.code == 130
    assert ended.err == (
        f"finished samples are kept; resume with the same command and hydra.run.dir={folder}\ninterrupted\n"
    )
    assert drawn == [0, 1, 2]
    seen = []

    def counts(self, numbers, *watch):
        seen.extend(numbers)
        return original(self, numbers, *watch)

    with monkeypatch.context() as patch:
        patch.setattr(SampleGenerator, "__call__", counts)
        again = draw(*options, folder=folder)
    assert seen == [3, 4]
    read = images_of if image_format == "png" else samples_of
    assert np.array_equal(read(again), read(draw(*options)))


@pytest.mark.slow
@pytest.mark.parametrize("has_list", [True, False])
def test_damaged_samples_are_drawn_again(has_list, draw):
    ended = draw("n=5")
    whole = images_of(ended)
    images, checksums = ended.folder / "images", ended.folder / "SHA256SUMS"
    assert len(checksums.read_text().splitlines()) == 5
    (images / "000001.png").write_bytes(b"")
    (images / "000003.png").write_bytes((images / "000003.png").read_bytes()[:-20])
    if has_list:
        (images / "000004.png").write_bytes((images / "000000.png").read_bytes())
    else:
        checksums.unlink()
    again = draw("n=5", folder=ended.folder)
    assert again.code == 0, again.err
    assert np.abs(images_of(again).astype(int) - whole).max() <= 1
    assert (images / "000001.png").stat().st_size > 0


def test_sample_folder_describes_its_samples(draw):
    metadata = json.loads((draw("sampler=heun").folder / "sampling.json").read_text())
    assert metadata["sampler"]["_target_"].endswith("Heun")
    assert (metadata["sampler"]["clip"], metadata["levels"], metadata["format"]) == ([-1.0, 1.0], 17, "png")
    assert metadata["timesteps"] == [333, 667, 1000]


def test_sample_folder_describes_levels_and_learned_weights(compose):
    config = compose(
        "schedule=learned_ends",
        "objective=vlb",
        "variance=fixed_large",
        "model=mlp",
        "model.width=4",
        "model.depth=1",
    )
    spec = instantiate(config.data).spec
    module = build_module(config, spec)

    def described(spacing: Spacing, ends: dict[str, Tensor]) -> dict[str, object]:
        weights = Weights(
            network=module.denoiser.network.state_dict(),
            schedule=ends,
            config={},
            kind="raw",
            step=0,
        )
        model = TrainedModel(module, spec, config, weights, Path("last.ckpt"))
        chain = spacing.chain(module.bound.chain.schedule, 16)
        generator = SampleGenerator(spec.shape, DDIM(), module.denoiser, chain, None, 0, torch.device("cpu"))
        return describe(compose(command="sample"), model, generator, "png")

    ends = module.bound.chain.schedule.state_dict()
    even = described(Even(), ends)
    assert even["timesteps"] == Even().positions(module.bound.chain.schedule, 16).tolist()
    assert described(Karras(), ends) != even
    assert described(Even(), {name: value + 1.0 for name, value in ends.items()}) != even
    assert described(Even(), dict(ends)) == even
    config.c_noise = {"_target_": "another"}
    assert described(Even(), ends) != even


@pytest.fixture(scope="module")
def conditional_run(tmp_path_factory, tiny, run_in_process):
    folder = tmp_path_factory.mktemp("conditional")
    options = ("logger=none", "conditional=true", "cond_dropout=0.5")
    assert run_in_process("train", *tiny, *options, folder=folder) == 0
    return folder / "checkpoints/last.ckpt"


@pytest.mark.slow
def test_labels_cycle_or_are_chosen_and_guidance_has_effect(draw, conditional_run):
    of = f"checkpoint={conditional_run}"
    ended = draw(of, "format=npz", "n=12")
    with np.load(ended.folder / "samples.npz") as file:
        assert file["label"].tolist() == [*range(10), 0, 1]
    third = samples_of(draw(of, "format=npz", "n=4", "cond=3"))
    assert np.array_equal(third[3], samples_of(ended)[3])
    same = samples_of(draw(of, "format=npz", "n=4", "cond=3", "guidance=1"))
    assert np.abs(same.astype(int) - third).max() <= 1
    assert (samples_of(draw(of, "format=npz", "n=4", "cond=3", "guidance=4")) != third).any()


@pytest.mark.slow
def test_a_list_of_classes_is_repeated_and_png_files_name_their_class(draw, conditional_run):
    ended = draw(f"checkpoint={conditional_run}", "n=4", "cond=[7,3,0]", "grid=0")
    assert ended.code == 0, ended.err
    of_file = []
    for path in sorted((ended.folder / "images").iterdir()):
        with Image.open(path) as image:
            of_file.append(image.text["class"])  # pyright: ignore[reportAttributeAccessIssue]
    assert of_file == ["7", "3", "0", "7"]
    assert json.loads((ended.folder / "sampling.json").read_text())["cond"] == [7, 3, 0]


MISTAKES = {
    "sampler.steps=1001": "steps=1001: the schedule has only 1000 timesteps",
    "n=0": "n=0: expected an integer >= 1",
    "batch_size=0": "batch_size=0: expected an integer >= 1",
    "format=jpg": "error: format=jpg: expected one of auto, png, npz, none",
    "trajectory=film": "trajectory=film: expected one of none, gif, strip",
    "trajectory=gif grid=0": "trajectory=gif shows the samples of the grid, and grid=0: use grid=64",
    "cond=3": "cond=3, but the model was trained without conditions",
    "guidance=2": "guidance=2, but the model was trained without conditions",
    "sampler.clip=[1,-1]": "expected [low, high] with low < high",
    "checkpoint=/nonexistent.ckpt": "there is no checkpoint file /nonexistent.ckpt",
    "format=none devices=2": "format=none needs devices=1",
    "sampler=dimm": "there is no sampler=dimm (did you mean ddim?); there are: ancestral, ",
}


def is_refused(ended, expected: str) -> None:
    assert ended.code == 1
    assert expected in ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, "more than one line"
    assert not (ended.folder / "images").exists()


@pytest.mark.parametrize("arguments", MISTAKES)
def test_invalid_sample_options_are_refused_before_drawing(arguments, draw):
    is_refused(draw(*arguments.split()), MISTAKES[arguments])


@pytest.mark.slow
def test_unknown_class_and_untrained_guidance_are_refused(draw, conditional_run, command, tiny, tmp_path):
    is_refused(
        draw(f"checkpoint={conditional_run}", "cond=10"),
        "cond=10: the model knows the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    )
    command(*tiny, "logger=none", "conditional=true", folder=tmp_path / "plain")
    plain = f"checkpoint={tmp_path / 'plain/checkpoints/last.ckpt'}"
    is_refused(draw(plain, "guidance=2"), "the model was trained without cond_dropout")


@pytest.mark.slow
def test_folder_with_other_samples_is_refused(draw):
    first = draw()
    before = images_of(first)
    for change in ("seed=1", "weights=raw", "sampler=heun"):
        again = draw(change, folder=first.folder)
        assert again.code == 1
        assert "holds other samples" in again.err
        assert again.err.count("\n") == 1
    assert np.array_equal(images_of(first), before)
    assert draw("n=7", folder=first.folder).code == 0  # more of the same is no other
    assert len(images_of(first)) == 7


@pytest.mark.slow
def test_a_damaged_samples_file_is_named_in_one_line(draw):
    first = draw("format=npz")
    assert first.code == 0, first.err
    file = first.folder / "samples.npz"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (b"", whole[:-30], bytes(flipped)):
        file.write_bytes(damaged)
        again = draw("format=npz", "n=6", folder=first.folder)
        assert again.code == 1
        assert f"{file} is damaged: remove it to draw its samples again" in again.err
        assert again.err.count("\n") == 1
