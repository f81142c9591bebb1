"""Checkpoint files: weights with our names, or an error of one line."""

import os
import pickle
import warnings
import zipfile

import pytest
import torch

from nelbo.interop.formats import ImprovedDiffusionFormat, NelboFormat
from nelbo.interop.improved_diffusion.flags import Flags
from nelbo.interop.improved_diffusion.model import unet

TIMESTEP = "nelbo.diffusion.noise_conditioning.TimestepConditioning"
FORMATS = pytest.mark.parametrize("checkpoint_format", [NelboFormat(), ImprovedDiffusionFormat()])


def small_network(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    flags = Flags(image_size=8, num_channels=32, num_res_blocks=1, channel_mult="1,2")
    return {name: torch.randn_like(tensor) for name, tensor in unet(flags).state_dict().items()}


def ours(**changes: object) -> dict[str, object]:
    """The relevant part of a checkpoint with averaging."""

    def state(seed: int) -> dict[str, torch.Tensor]:
        return {f"denoiser.network.{name}": tensor for name, tensor in small_network(seed).items()}

    return {
        "pytorch-lightning_version": "2.6.0",
        "global_step": 7,
        "state_dict": state(0),
        "current_model_state": state(1),
        "nelbo": {"config": {"seed": 3}, "timesteps": {}},
    } | changes


def without(content: dict, name: str) -> dict:
    return {key: value for key, value in content.items() if key != name}


def same(read: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return read.keys() == expected.keys() and all(
        torch.equal(read[name], expected[name]) for name in expected
    )


def refusal(checkpoint_format, path, weights="ema") -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning would be a second line
        with pytest.raises(ValueError, match=r".") as error:
            checkpoint_format.read(path, weights)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.fixture
def saved(tmp_path):
    def save(content, name="model.ckpt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


# ------------------------------------------------------------------ what is read


@pytest.mark.parametrize(("weights", "seed"), [("ema", 0), ("raw", 1)])
def test_a_checkpoint_of_ours(weights, seed, saved):
    read = NelboFormat().read(saved(ours()), weights)
    assert same(read.network, small_network(seed))
    assert (read.kind, read.config, read.step, read.parts) == (weights, {"seed": 3}, 7, {})


def test_a_run_without_averaging_has_raw_weights_alone(saved):
    path = saved(without(ours(), "current_model_state"))
    read = NelboFormat().read(path, "raw")
    assert same(read.network, small_network(0))
    assert read.kind == "raw"
    assert "has no averaged weights (callbacks.ema=null): use weights=raw" in refusal(NelboFormat(), path)


def test_a_checkpoint_of_training_is_read(tiny_run):
    run = tiny_run()
    run.fit()
    path = run.folder / "checkpoints/last.ckpt"
    ema, raw = NelboFormat().read(path, "ema"), NelboFormat().read(path, "raw")
    assert ema.network.keys() == raw.network.keys() == run.module.denoiser.network.state_dict().keys()
    assert same(ema.network, run.module.denoiser.network.state_dict())  # put in place when training ended
    assert not same(ema.network, raw.network)
    assert ema.config == run.module.config
    assert ema.step == 6


@pytest.mark.parametrize(
    ("name", "weights", "step"),
    [
        ("ema_0.9999_020000.pt", "ema", 20000),
        ("model020000.pt", "raw", 20000),
        ("cifar10_uncond_50M_500K.pt", "ema", None),
        ("cifar10_uncond_50M_500K.pt", "raw", None),
        ("model_of_mine.pt", "ema", None),
    ],
)
def test_a_network_of_improved_diffusion(name, weights, step, saved, to_their_names):
    read = ImprovedDiffusionFormat().read(saved(to_their_names(small_network()), name), weights)
    assert same(read.network, small_network())
    assert (read.kind, read.config, read.step) == (weights, None, step)
    assert read.parts == {"c_noise": {"_target_": TIMESTEP, "shift": -1.0}}  # scale 1000 / T


@pytest.mark.parametrize(
    ("name", "weights", "right"), [("ema_0.9999_000010.pt", "raw", "ema"), ("model000010.pt", "ema", "raw")]
)
def test_the_name_of_a_file_determines_the_kind_of_weights(name, weights, right, saved, to_their_names):
    path = saved(to_their_names(small_network()), name)
    assert f"has the other kind: use weights={right}" in refusal(ImprovedDiffusionFormat(), path, weights)


@FORMATS
def test_unknown_weights(checkpoint_format, tmp_path):
    with pytest.raises(ValueError, match="weights=mean: expected one of ema, raw"):
        checkpoint_format.read(tmp_path / "none", "mean")


# ------------------------------------------------------------------ files that are no checkpoint


@FORMATS
def test_a_missing_file_raises(checkpoint_format, tmp_path):
    assert "there is no checkpoint file" in refusal(checkpoint_format, tmp_path / "none.ckpt")
    assert f"{tmp_path} is not a regular file" in refusal(checkpoint_format, tmp_path)


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "hello")


def write_truncated(path):
    torch.save(ours(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    "truncated": write_truncated,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("to whom it may concern\n"),
    "json": lambda path: path.write_text('{"state_dict": 1}\n'),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "zip of something else": write_zip,
}


@FORMATS
@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_not_a_checkpoint_raises(kind, checkpoint_format, tmp_path):
    path = tmp_path / "model.ckpt"
    BROKEN[kind](path)
    line = refusal(checkpoint_format, path)
    assert (
        "cannot be read as a checkpoint: is it whole?" in line or "is not a checkpoint, or one with" in line
    )


class Code:
    """Unpickling it makes a folder."""

    def __init__(self, folder) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@FORMATS
@pytest.mark.parametrize("by", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(by, checkpoint_format, tmp_path):
    content = ours(surprise=Code(tmp_path / "it_ran"))
    path = tmp_path / "model.ckpt"
    if by == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content["surprise"]))
    assert "one with code in it, and is not loaded" in refusal(checkpoint_format, path)
    assert not (tmp_path / "it_ran").exists()
    with path.open("rb") as file:  # it would have, had it been trusted
        torch.load(file, weights_only=False) if by == "torch" else pickle.load(file)
    assert (tmp_path / "it_ran").exists()


# ------------------------------------------------------------------ checkpoints of something else

OTHERS = {
    "a dictionary of nothing": {},
    "a dictionary of epoch, model, optimizer, and 1 more": dict.fromkeys(
        ("model", "optimizer", "epoch", "scaler"), 0
    ),
    "a list": [torch.zeros(1)],
    "a Tensor": torch.zeros(1),
    "the state of an optimizer": {"state": {}, "param_groups": []},
    "a Lightning checkpoint of another project": {"pytorch-lightning_version": "2.6.0", "state_dict": {}},
    "a dictionary of conv.weight": {"conv.weight": torch.zeros(1)},
}


@FORMATS
@pytest.mark.parametrize("what", OTHERS)
def test_a_file_of_something_else_is_described(what, checkpoint_format, saved):
    line = refusal(checkpoint_format, saved(OTHERS[what]))
    assert " is not a " in line
    assert line.endswith(f"; it looks like {what}")


def test_each_format_names_the_other(saved, to_their_names):
    theirs = saved(to_their_names(small_network()), "theirs.pt")
    assert refusal(NelboFormat(), theirs).endswith(
        "is not a checkpoint of nelbo; it looks like a network of improved-diffusion: "
        "use format=improved_diffusion"
    )
    assert refusal(ImprovedDiffusionFormat(), saved(ours())).endswith(
        "is not a network of improved-diffusion or guided-diffusion; "
        "it looks like a checkpoint of nelbo: use format=nelbo"
    )


@pytest.mark.parametrize(("weights", "seed"), [("ema", 0), ("raw", 1)])
def test_the_parameters_of_a_loss_are_left_out(weights, seed, saved):
    content = ours()
    for state in ("state_dict", "current_model_state"):
        content[state] = {**content[state], "loss.weights": torch.ones(1)}
    read = NelboFormat().read(saved(content), weights)
    assert same(read.network, small_network(seed))
    assert not read.schedule


# ------------------------------------------------------------------ too little, and too much


@pytest.mark.parametrize(
    "content",
    [
        without(ours(), "state_dict"),
        ours(state_dict={}),
        ours(state_dict=[1]),
        ours(state_dict={"denoiser.network.stem.weight": 1}),
        ours(nelbo=None),
        ours(nelbo={"timesteps": {}}),
    ],
)
def test_a_checkpoint_of_ours_that_lacks_something(content, saved):
    assert "it lacks weights or configuration" in refusal(NelboFormat(), saved(content))


@pytest.mark.parametrize("name", ["scale", "denoiser.scale", "_orig_mod.denoiser.network.stem.weight"])
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_weights_outside_of_the_network_raise(weights, name, saved):
    content = ours()
    for state in ("state_dict", "current_model_state"):
        content[state] = {**content[state], name: torch.zeros(1)}
    line = refusal(NelboFormat(), saved(content), weights)
    assert f"has weights that are not of the network: {name}" in line


def test_missing_and_unexpected_weights_of_improved_diffusion_are_named(saved, to_their_names):
    theirs = to_their_names(small_network())
    line = refusal(ImprovedDiffusionFormat(), saved(without(theirs, "out.2.bias")))
    assert "model.ckpt: not the weights of a U-Net of improved-diffusion or guided-diffusion: " in line
    assert "missing out.2.bias; " in line
    line = refusal(ImprovedDiffusionFormat(), saved(theirs | {"ema.decay": torch.zeros(1)}))
    assert "unexpected ema.decay" in line
    line = refusal(ImprovedDiffusionFormat(), saved(theirs | {"step": 3}))
    assert line.endswith("has more in it than weights: step")


# ------------------------------------------------------------------ weights inside of something else


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_network_that_was_saved_in_a_wrapper_is_read(prefix, saved, to_their_names):
    wrapped = {prefix + name: tensor for name, tensor in to_their_names(small_network()).items()}
    assert same(ImprovedDiffusionFormat().read(saved(wrapped), "ema").network, small_network())


@pytest.mark.parametrize(
    ("place", "prefix"),
    [
        (("state_dict",), ""),
        (("model",), "module."),
        (("ema",), ""),
        (("state_dict",), "model.diffusion_model."),
        (("checkpoint", "model_ema"), "shadow."),
    ],
)
def test_the_code_in_the_message_extracts_weights_from_a_checkpoint(
    place, prefix, saved, to_their_names, tmp_path, monkeypatch
):
    """Run the code in the message."""
    content = {prefix + name: tensor for name, tensor in to_their_names(small_network()).items()}
    if prefix == "model.diffusion_model.":
        content["first_stage_model.encoder.weight"] = torch.zeros(1)
    for name in reversed(place):
        content = {name: content, "epoch": 3}
    path = saved({"pytorch-lightning_version": "2.6.0"} | content)
    line = refusal(ImprovedDiffusionFormat(), path)
    assert f"it contains the network as content{''.join(f'[{name!r}]' for name in place)}" in line
    monkeypatch.chdir(tmp_path)
    exec(line.partition("read that file, ")[2], {"torch": torch, "PATH": path})
    assert same(ImprovedDiffusionFormat().read(tmp_path / "weights.pt", "ema").network, small_network())


def test_timesteps_that_are_not_rescaled(saved, to_their_names):
    path = saved(to_their_names(small_network()))
    read = ImprovedDiffusionFormat(rescale_timesteps=False).read(path, "raw")
    assert read.parts == {"c_noise": {"_target_": TIMESTEP, "shift": -1.0, "scale": 1.0}}
