"""``nelbo compress`` and ``decompress``: what is decoded is what was compressed, or one line and no file."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo import array_file
from nelbo.__main__ import main
from nelbo.compose import codec as compose_codec
from nelbo.compose import shorter_chain
from nelbo.data.digits import Digits

pytest.importorskip("constriction", exc_type=ImportError)

from nelbo.evaluation.codec import file

FULL = Path("/dev/full")  # every write to it fails as on a full disk
CHAIN = ("--steps", "4", "--spacing", "even", "--clip")


@pytest.fixture
def nelbo(capfd):
    """Runs ``nelbo <arguments>`` in this process: exit code, stdout, stderr."""

    def run(*arguments) -> SimpleNamespace:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture(scope="module")
def checkpoint(finished_run) -> Path:
    return finished_run.folder / "checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def coded(checkpoint, tmp_path_factory) -> Path:
    """Six digits of the test split."""
    path = tmp_path_factory.mktemp("coded") / "digits.nelbo"
    options = ("--split", "test", "--max-examples", "6", *CHAIN, "-o", str(path))
    assert main(["compress", "--checkpoint", str(checkpoint), *options]) == 0
    return path


def digits(n=6) -> np.ndarray:
    data = Digits()
    data.subset("test", n)
    return data.split("test").fetch(torch.arange(n), 0).x0.numpy()


def is_refused(ended, expected, *outputs):
    assert ended.code == 1
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, ended.err
    assert expected in ended.err
    for output in outputs:
        assert not list(output.parent.glob(f"{output.name}*")), "something was written"


def with_header(path: Path, into: Path, **changes) -> Path:
    """A file whose header has other values, with a checksum that fits."""
    text, words = file.inflate(path.read_bytes()[len(file.MAGIC) : -file.DIGEST_BYTES])
    body = file.MAGIC + file.deflate(json.dumps(json.loads(text) | changes).encode()) + words
    into.write_bytes(body + hashlib.sha256(body).digest()[: file.DIGEST_BYTES])
    return into


def test_array_that_is_decoded_is_the_split(nelbo, coded, checkpoint, tmp_path):
    ended = nelbo("decompress", coded, "--checkpoint", checkpoint, "-o", tmp_path / "x.npy")
    assert ended.code == 0, ended.err
    decoded = np.load(tmp_path / "x.npy")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, digits())


def test_folder_of_images_that_is_decoded_can_be_compressed_again(nelbo, coded, checkpoint, tmp_path):
    assert nelbo("decompress", coded, "--checkpoint", checkpoint, "-o", tmp_path / "png").code == 0
    assert [path.name for path in sorted((tmp_path / "png").iterdir())] == [f"{i:06d}.png" for i in range(6)]
    assert len(list(tmp_path.iterdir())) == 1
    again = tmp_path / "again.nelbo"
    ended = nelbo("compress", tmp_path / "png", "--checkpoint", checkpoint, *CHAIN, "-o", again)
    assert ended.code == 0, ended.err
    assert again.read_bytes() == coded.read_bytes()


@pytest.mark.parametrize("name", ["x.npy", "x.npz/images"])
def test_array_and_any_batch_size_round_trip(nelbo, checkpoint, tmp_path, name):
    np.save(tmp_path / "x.npy", digits())
    np.savez(tmp_path / "x.npz", images=digits())
    options = (*CHAIN, "--batch-size", 4, "--threads", 2)
    ended = nelbo(
        "compress", tmp_path / name, "--checkpoint", checkpoint, *options, "-o", tmp_path / "x.nelbo"
    )
    assert ended.code == 0, ended.err
    assert "bits/dim" in ended.out
    assert (
        nelbo("decompress", tmp_path / "x.nelbo", "--checkpoint", checkpoint, "-o", tmp_path / "y.npy").code
        == 0
    )
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), digits())


@pytest.mark.slow
def test_classes_of_a_conditional_model_are_in_the_file(nelbo, run_in_process, tiny, tmp_path):
    assert run_in_process("train", *tiny, "logger=none", "conditional=true", folder=tmp_path / "run") == 0
    checkpoint, output = tmp_path / "run/checkpoints/last.ckpt", tmp_path / "x.nelbo"
    png = tmp_path / "x.png"
    Image.new("L", (8, 8)).save(png)
    is_refused(
        nelbo("compress", png, "--checkpoint", checkpoint, *CHAIN, "-o", output), "--cond=CLASS", output
    )
    for images in (("--split", "test", "--max-examples", 6), (png, "--cond", 3)):
        assert nelbo("compress", *images, "--checkpoint", checkpoint, *CHAIN, "-o", output).code == 0
        assert nelbo("decompress", output, "--checkpoint", checkpoint, "-o", tmp_path / "x.npy").code == 0
        expected = digits() if "--split" in images else np.zeros((1, 1, 8, 8))
        np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)
    assert file.read(output)[0].label == [3]


@pytest.mark.slow
def test_continuous_data_is_rounded_to_the_bin_width(nelbo, run_in_process, tiny, tmp_path):
    options = [option for option in tiny if not option.startswith("callbacks.samples")]
    assert run_in_process("train", *options, "logger=none", "data=gaussian", folder=tmp_path / "run") == 0
    checkpoint, output = tmp_path / "run/checkpoints/last.ckpt", tmp_path / "x.nelbo"
    x = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    common = (tmp_path / "x.npy", "--checkpoint", checkpoint, "--steps", 4, "--spacing", "even", "-o", output)
    is_refused(nelbo("compress", *common), "continuous data has no code of finite length", output)
    assert nelbo("compress", *common, "--bin-width", 0.125).code == 0
    assert nelbo("decompress", output, "--checkpoint", checkpoint, "-o", tmp_path / "y.npy").code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.rint(x / 0.125) * 0.125)
    folder = nelbo("decompress", output, "--checkpoint", checkpoint, "-o", tmp_path / "png")
    is_refused(folder, "does not fit into PNG files: use FILE.npy", tmp_path / "png")


def test_header_of_a_chain_of_50_steps_has_less_than_200_bytes(tmp_path):
    rng = np.random.default_rng(0)
    header = file.Header(
        model={
            name: rng.bytes(4).hex()
            for name in ("weights", "denoiser", "variance", "decoder", "levels", "data")
        },
        weights="ema",
        clip=False,
        software={"torch": "2.10.0", "constriction": "0.5.1", "processor": "aarch64, DEFAULT"},
        count=180,
        bin_width=None,
        label=None,
        gaps=[2, 1, 6, 6, 4, *range(5, 45), 44, 49, 63, 106, 77],
        batch_size=32,
        threads=16,
        initial_words=30,
        content=rng.bytes(16).hex(),
    )
    words = np.arange(5, dtype=np.uint32)
    assert file.write(tmp_path / "x", header, words) - words.nbytes < 200
    read, found = file.read(tmp_path / "x")
    assert read == header
    assert read.timesteps[-1] == sum(header.gaps)
    np.testing.assert_array_equal(found, words)


@pytest.mark.parametrize("text", [b"{" * 100, b"\x00" * (file.MAX_HEADER_BYTES + 1)])
def test_header_of_another_kind_or_too_long_is_refused(tmp_path, text):
    body = file.MAGIC + file.deflate(text)
    (tmp_path / "x").write_bytes(body + hashlib.sha256(body).digest()[: file.DIGEST_BYTES])
    with pytest.raises(file.DamagedFileError, match="x is damaged"):
        file.read(tmp_path / "x")


def test_decoder_uses_the_threads_of_the_encoder(nelbo, coded, checkpoint, tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    with_header(coded, tmp_path / "a.nelbo", threads=7)
    nelbo("decompress", tmp_path / "a.nelbo", "--checkpoint", checkpoint, "-o", tmp_path / "x.npy")
    assert counts[0] == 7


@pytest.mark.parametrize("place", [0, 6, 7, 9, 20, 0.3, 0.6, 0.9, -33, -1])
def test_altered_byte_is_refused(nelbo, coded, checkpoint, tmp_path, place):
    content = bytearray(coded.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 0x10
    (tmp_path / "a.nelbo").write_bytes(content)
    ended = nelbo("decompress", tmp_path / "a.nelbo", "--checkpoint", checkpoint, "-o", tmp_path / "x.npy")
    is_refused(ended, f"{tmp_path / 'a.nelbo'} is ", tmp_path / "x.npy")


@pytest.mark.parametrize("size", [0, 5, 12, 40, 300, -1])
def test_truncated_file_is_refused(nelbo, coded, checkpoint, tmp_path, size):
    (tmp_path / "a.nelbo").write_bytes(coded.read_bytes()[:size])
    ended = nelbo("decompress", tmp_path / "a.nelbo", "--checkpoint", checkpoint, "-o", tmp_path / "x")
    is_refused(ended, f"{tmp_path / 'a.nelbo'} is ", tmp_path / "x")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"weights": "raw"}, "was compressed with another model (different weights)"),
        ({"clip": False}, "not of this model"),
        ({"gaps": [1, 2, 3]}, "was compressed with another model (different levels)"),
        ({"gaps": [0, 3]}, "a chain needs increasing timesteps in 1.."),
        ({"gaps": [5, 10**6]}, "a chain needs increasing timesteps in 1.."),
        ({"gaps": [10**30]}, "is damaged (gaps.0: "),
        ({"gaps": [1, -1]}, "is damaged (gaps.1: "),
        ({"gaps": []}, "is damaged (gaps: "),
        ({"software": {"torch": "1.0"}}, "was compressed with other software (torch: 1.0, not "),
        ({"threads": 10**6}, "is damaged (threads: "),
        ({"batch_size": 0}, "is damaged (batch_size: "),
        ({"count": "6"}, "is damaged (count: "),
        ({"count": 5}, "not of this model"),
        ({"count": 10**12}, "not of this model"),
        ({"count": 10**15}, "is damaged (count: "),
        ({"content": "0"}, "are not those that were compressed"),
        ({"bin_width": 0.1}, "--bin-width=0.1 is for continuous data"),
        ({"label": [1, 2]}, "it has 2 classes for 6"),
        ({"label": [10] * 6}, "has classes that the model does not have"),
        ({"label": [3] * 6}, "this network is unconditional"),
        ({"initial_words": 4}, "not of this model"),
        ({"initial_words": 10**15}, "not of this model"),
    ],
)
def test_header_that_does_not_fit_is_refused(nelbo, coded, checkpoint, tmp_path, changes, expected):
    with_header(coded, tmp_path / "a.nelbo", **changes)
    ended = nelbo("decompress", tmp_path / "a.nelbo", "--checkpoint", checkpoint, "-o", tmp_path / "x.npy")
    is_refused(ended, expected, tmp_path / "x.npy")


def test_costs_of_steps_are_measured_once_and_need_the_data(nelbo, checkpoint, tmp_path, monkeypatch):
    own = tmp_path / "last.ckpt"
    own.write_bytes(checkpoint.read_bytes())
    np.save(tmp_path / "x.npy", digits())
    command = ("compress", tmp_path / "x.npy", "--checkpoint", own, "--steps", 3, "-o")
    assert nelbo(*command, tmp_path / "a.nelbo").code == 0
    measured = list(tmp_path.glob("last.ema.*.step_costs.npz"))
    assert array_file.load(measured[0])[1]["examples"] == "8"
    monkeypatch.setattr(shorter_chain, "measure_step_costs", None)  # which cannot be called
    assert nelbo(*command, tmp_path / "b.nelbo").code == 0
    assert (tmp_path / "b.nelbo").read_bytes() == (tmp_path / "a.nelbo").read_bytes()

    def missing(model):
        raise FileNotFoundError("there is no folder data/mine")

    monkeypatch.setattr(compose_codec, "read_data", missing)
    is_refused(nelbo(*command, tmp_path / "c.nelbo"), "data/mine; use --spacing=even", tmp_path / "c.nelbo")
    assert nelbo(*command, tmp_path / "c.nelbo", "--spacing", "even").code == 0


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "images/a.png", "last.ckpt"])
def test_compress_does_not_replace_an_input(nelbo, checkpoint, tmp_path, name):
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images/a.png")
    np.save(tmp_path / "x.npy", digits())
    np.savez(tmp_path / "x.npz", images=digits())
    (tmp_path / "last.ckpt").write_bytes(checkpoint.read_bytes())
    images = [tmp_path / "images", tmp_path / "x.npy", tmp_path / "x.npz/images"]
    before = (tmp_path / name).read_bytes()
    (tmp_path / "link").symlink_to(name)
    for output in (name, "link"):
        ended = nelbo(
            "compress", *images, "--checkpoint", tmp_path / "last.ckpt", *CHAIN, "-o", tmp_path / output
        )
        is_refused(ended, "it is an input, which would be lost")
    assert (tmp_path / name).read_bytes() == before


def test_compress_does_not_replace_the_checkpoint_of_a_run(nelbo, checkpoint, tmp_path):
    np.save(tmp_path / "x.npy", digits())
    last = tmp_path / "run/checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(checkpoint.read_bytes())
    ended = nelbo("compress", tmp_path / "x.npy", "--checkpoint", tmp_path / "run", *CHAIN, "-o", last)
    is_refused(ended, "it is an input, which would be lost")
    assert last.read_bytes() == checkpoint.read_bytes()


def test_decompress_does_not_replace_its_file(nelbo, coded, checkpoint, tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(coded.read_bytes())
    ended = nelbo("decompress", path, "--checkpoint", checkpoint, "-o", path)
    is_refused(ended, "it is an input, which would be lost")
    assert path.read_bytes() == coded.read_bytes()


@pytest.mark.parametrize("name", ["x.npz", "x.png"])
def test_decompress_makes_no_folder_that_is_named_like_a_file(nelbo, coded, checkpoint, tmp_path, name):
    ended = nelbo("decompress", coded, "--checkpoint", checkpoint, "-o", tmp_path / name)
    is_refused(ended, "expected FILE.npy, or the name of a folder", tmp_path / name)


def test_output_folder_that_is_not_empty_is_refused(nelbo, coded, checkpoint, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/mine.txt").write_text("")
    ended = nelbo("decompress", coded, "--checkpoint", checkpoint, "-o", tmp_path / "x")
    is_refused(ended, "exists already")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_full_disk_leaves_nothing(nelbo, coded, checkpoint, tmp_path, monkeypatch, command):
    output = tmp_path / "x.npy"
    monkeypatch.setattr(Path, "touch", lambda path, *arguments, **options: path.symlink_to(FULL))
    images = (coded,) if command == "decompress" else ("--split", "test", "--max-examples", 1, *CHAIN)
    ended = nelbo(command, *images, "--checkpoint", checkpoint, "-o", output)
    is_refused(ended, f"cannot write {output}", output)


def test_full_disk_leaves_no_folder(nelbo, coded, checkpoint, tmp_path, monkeypatch):
    def save(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    ended = nelbo("decompress", coded, "--checkpoint", checkpoint, "-o", tmp_path / "x")
    is_refused(ended, f"cannot write {tmp_path / 'x'}", tmp_path / "x")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "which images? Name files or folders, or --split test"),
        (("x.png", "--split", "test"), "which images?"),
        (("x.png", "--max-examples", "3"), "--max-examples is the size of a subset of a split"),
        (("--split", "test", "--batch-size", "0"), "--batch-size=0: expected an integer from 1 to 1024"),
        (("--split", "test", "--bin-width", "-1"), "--bin-width=-1.0: expected a positive number"),
        (("--split", "test", "--bin-width", "1", *CHAIN), "--bin-width=1 is for continuous data"),
        (("--split", "test", "--cond", "3"), "--cond=3: the model was trained without classes"),
        (("--split", "test", "--spacing", "even", "--steps", "0"), "steps=0"),
        (("--split", "test", "--spacing", "evn"), "spacing='evn': expected one of "),
        (("missing.png",), "missing.png"),
        (("missing.png", "-o", "no/such/x.nelbo"), "there is no folder no/such"),
        (("{folder}",), "there are no images in this folder"),
        (("missing.npy",), "IMAGES=missing.npy: there is no file missing.npy\n"),
        (("--split", "test", "-o", "{folder}"), "it is a folder, and a file is written"),
    ],
)
def test_mistaken_arguments_are_one_line(nelbo, checkpoint, tmp_path, arguments, expected):
    (tmp_path / "empty").mkdir()
    arguments = [argument.format(folder=tmp_path / "empty") for argument in arguments]
    output = tmp_path / "x.nelbo"
    is_refused(nelbo("compress", "-o", output, "--checkpoint", checkpoint, *arguments), expected, output)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (9, 8)), "has shape (1, 8, 9), and the model needs (1, 8, 8)"),
        (Image.new("RGB", (8, 8)), "has shape (3, 8, 8), and the model needs (1, 8, 8)"),
        (Image.new("L", (8, 8), 5), "has pixels that are none of the 17 levels of the model"),
        (Image.new("RGBA", (8, 8)), "its pixels are RGBA"),
        ([Image.new("L", (8, 8)), Image.new("L", (8, 8), 255)], "it has several images"),
        (np.zeros((3, 1, 8, 9)), "images have shape (3, 1, 8, 9)"),
        (np.full((3, 1, 8, 8), 17), "values of 17 to 17"),
        (np.full((3, 1, 8, 8), 0.3), "values between the 17 levels"),
        (np.full((3, 1, 8, 8), "a"), "is not a type of images"),
    ],
)
def test_images_of_another_shape_or_range_are_refused(nelbo, checkpoint, tmp_path, image, expected):
    path = tmp_path / ("a.npy" if isinstance(image, np.ndarray) else "a.png")
    if isinstance(image, list):
        image[0].save(path, save_all=True, append_images=image[1:])
    else:
        np.save(path, image) if isinstance(image, np.ndarray) else image.save(path)
    output = tmp_path / "x.nelbo"
    ended = nelbo("compress", path, "--checkpoint", checkpoint, *CHAIN, "-o", output)
    is_refused(ended, expected, output)
    assert str(path) in ended.err
