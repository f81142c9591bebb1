"""Checkpoints of guided-diffusion: outputs equal those of that project, and wrong flags are named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nelbo.compose.trained import load_model
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.diffusion.variances import LearnedRange
from nelbo.interop import from_guided_diffusion, from_improved_diffusion
from nelbo.interop.formats import GuidedDiffusionFormat
from nelbo.interop.improved_diffusion.flags import GuidedFlags
from nelbo.interop.improved_diffusion.model import unet
from nelbo.models import UNet

GOLDEN = Path(__file__).parents[1] / "golden" / "guided_class_conditional"
NAMED = {
    "num_heads": 4,
    "use_new_attention_order": False,
    "noise_schedule": "linear",
    "diffusion_steps": 1000,
}


@pytest.fixture(scope="module")
def golden():
    flags = json.loads(GOLDEN.with_suffix(".json").read_text())
    with np.load(GOLDEN.with_suffix(".npz")) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file}
    weights = {
        name.removeprefix("net."): tensor for name, tensor in arrays.items() if name.startswith("net.")
    }
    return arrays, weights, {name: value for name, value in flags.items() if name != "num_classes"}


def output(model, arrays) -> torch.Tensor:
    with torch.no_grad():
        return model.denoiser.network(arrays["x"], arrays["t"], arrays["y"])


def difference(model, arrays) -> float:
    expected = arrays["net_output"]
    return float((output(model, arrays) - expected).abs().max() / expected.abs().max())


def test_the_golden_network_has_the_same_output(golden):
    arrays, weights, flags = golden
    model = from_guided_diffusion(weights, **flags)
    assert difference(model, arrays) < 1e-5
    assert model.num_classes == 10
    assert (model.denoiser.c_noise.shift, model.denoiser.c_noise.scale) == (-1.0, 1.0)
    assert type(model.denoiser.variance) is LearnedRange
    assert torch.equal(model.chain.schedule.table(), LinearSchedule(1000, logsnr_max="paper").table())


def test_heads_are_the_same_by_number_and_by_channels(golden):
    arrays, weights, flags = golden
    heads = flags | {"num_heads": 4, "num_head_channels": -1}
    assert difference(from_guided_diffusion(weights, **heads), arrays) < 1e-5


@pytest.mark.parametrize(
    "wrong", [{"num_head_channels": 64}, {"use_new_attention_order": False}], ids=lambda wrong: min(wrong)
)
def test_heads_and_attention_order_matter(wrong, golden):
    """The weights load with a wrong value, which gives another network."""
    arrays, weights, flags = golden
    assert difference(from_guided_diffusion(weights, **flags | wrong), arrays) > 0.02


@pytest.mark.parametrize(
    "name", ["num_head_channels", "use_new_attention_order", "noise_schedule", "diffusion_steps"]
)
def test_a_flag_that_the_weights_do_not_determine_is_required(name, golden):
    _, weights, flags = golden
    with pytest.raises(ValueError, match=f"the weights do not determine .*{name}.*: add the values"):
        from_guided_diffusion(weights, **{flag: value for flag, value in flags.items() if flag != name})


WRONG = {
    "resblock_updown=True, not False": {"resblock_updown": False},
    "learn_sigma=True, not False": {"learn_sigma": False},
    "class_cond=True, not False": {"class_cond": False},
    "num_channels=32, not 64": {"num_channels": 64},
    "channel_mult=[1, 2], not [1, 1]": {"channel_mult": "1,1"},
    "attention_resolutions=[8], not [16]": {"attention_resolutions": "16"},
}


@pytest.mark.parametrize("expected", WRONG)
def test_a_flag_that_the_weights_contradict_is_named(expected, golden):
    _, weights, flags = golden
    with pytest.raises(ValueError, match="do not fit the flags") as error:
        from_guided_diffusion(weights, **flags | WRONG[expected])
    assert f": they have {expected} (" in str(error.value)


MISTAKES = {
    "num_head_channels=24 does not divide the 64 channels": {"num_head_channels": 24},
    "num_head_channels=0 does not divide": {"num_head_channels": 0},
    "networks for 64, 128, 256, 512; for another size, add channel_mult": {"channel_mult": ""},
    "channel_mult='1;2': expected numbers": {"channel_mult": "1;2"},
    "channel_mult=1,0.7: times num_channels=32, every level must be a multiple": {"channel_mult": "1,0.7"},
    "unknown flag num_head_chanels (did you mean num_head_channels?)": {"num_head_chanels": 64},
}


@pytest.mark.parametrize("expected", MISTAKES)
def test_a_mistake_in_the_flags_is_one_line(expected, golden):
    _, weights, flags = golden
    with pytest.raises(ValueError, match=r".") as error:
        from_guided_diffusion(weights, **flags | MISTAKES[expected])
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_improved_diffusion_refers_to_guided_diffusion_for_its_flags(golden):
    _, weights, flags = golden
    with pytest.raises(ValueError, match=r"is a flag of guided-diffusion: .* from_guided_diffusion"):
        from_improved_diffusion(weights, **flags)
    plain = {name: flags[name] for name in ("image_size", "num_channels", "channel_mult", "class_cond")}
    with pytest.raises(ValueError, match="do not fit the flags"):  # without them: its blocks are others
        from_improved_diffusion(weights, **plain, learn_sigma=True, num_res_blocks=1)


# ------------------------------------------------------------------ the released models, at full size

IMAGENET = {"class_cond": True, "learn_sigma": True, "attention_resolutions": "32,16,8"}
UPDOWN = {"resblock_updown": True}
# flags as that project's README has them, and millions of parameters as the paper has them rounded
RELEASED = {
    "64x64_diffusion": (
        IMAGENET | UPDOWN
        | {"image_size": 64, "num_channels": 192, "num_res_blocks": 3, "num_head_channels": 64,
           "use_new_attention_order": True, "noise_schedule": "cosine"},
        296,
    ),
    "128x128_diffusion": (
        IMAGENET | UPDOWN | {"image_size": 128, "num_channels": 256, "num_heads": 4},
        422,
    ),
    "256x256_diffusion": (
        IMAGENET | UPDOWN | {"image_size": 256, "num_channels": 256, "num_head_channels": 64},
        554,
    ),
    "512x512_diffusion": (
        IMAGENET | UPDOWN | {"image_size": 512, "num_channels": 256, "num_head_channels": 64},
        559,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_networks_have_their_number_of_parameters(name):
    flags, millions = RELEASED[name]
    with torch.device("meta"):
        network = unet(GuidedFlags(**{"use_fp16": True, **flags}))
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f"\n{name}: {count / 1e6:.1f} million parameters")
    assert round(count / 1e6) == millions


def test_a_first_level_of_half_the_width_is_read(to_guided_names):
    """As in the networks of 512x512 images: the first convolution is narrower than the embedding."""
    flags = NAMED | {"image_size": 32, "num_channels": 64, "channel_mult": "0.5,1,1.5", "num_res_blocks": 2}
    torch.manual_seed(0)
    network = unet(GuidedFlags(**flags))
    assert [level.blocks[0].residual.conv2.out_channels for level in network.down] == [32, 64, 96]
    assert (network.stem.out_channels, network.embedding.dim) == (32, 64)
    ours = network.state_dict()
    read = from_guided_diffusion(to_guided_names(ours), **flags).denoiser.network.state_dict()
    assert read.keys() == ours.keys()
    assert all(torch.equal(read[name], ours[name]) for name in ours)


@pytest.mark.parametrize("side", [8, 16])
def test_resampling_in_residual_blocks_halves_and_doubles(side):
    network = UNet(
        (3, side, side), 3, channels=32, channel_mult=[1, 2, 2], num_res_blocks=1, attention_resolutions=[],
        num_heads=1, dropout=0.0, use_scale_shift_norm=False, num_head_channels=32, resblock_updown=True,
    )  # fmt: skip
    sides = []
    for level in network.down:
        level.register_forward_hook(lambda _, __, maps: sides.append(maps[-1].shape[-1]))
    assert network(torch.zeros(1, 3, side, side), torch.ones(1)).shape == (1, 3, side, side)
    assert sides == [side // 2, side // 4, side // 4]
    assert network.middle[0].attention.num_heads == 2


# ------------------------------------------------------------------ format=guided_diffusion


@pytest.fixture
def saved(tmp_path, golden):
    def save(content, name="model.pt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def test_the_format_reads_the_golden_network(golden, saved):
    arrays, weights, flags = golden
    read = GuidedDiffusionFormat(flags).read(saved(weights, "ema_0.9999_000500.pt"), "ema")
    assert (read.kind, read.step, read.config) == ("ema", 500, None)
    c_noise = read.parts["c_noise"]
    assert (c_noise["shift"], c_noise["scale"]) == (-1.0, 1.0)
    options = {name: value for name, value in read.parts["model"].items() if name != "_target_"}
    network = UNet((3, 16, 16), 6, 10, **options).eval()
    network.load_state_dict(read.network)
    expected = arrays["net_output"]
    with torch.no_grad():
        ours = network(arrays["x"], arrays["t"], arrays["y"])
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    assert read.parts["conditional"] is True
    assert read.parts["schedule"] == {
        "_target_": "nelbo.diffusion.schedules.linear.LinearSchedule",
        "num_steps": 1000,
        "logsnr_max": "paper",
    }


def test_the_format_requires_the_flags_that_the_weights_do_not_determine(golden, saved):
    _, weights, flags = golden
    path = saved(weights)
    with pytest.raises(
        ValueError, match=r"model\.pt: the weights do not determine num_heads or num_head_channels"
    ):
        GuidedDiffusionFormat(flags | {"num_head_channels": None}).read(path, "ema")


def test_the_model_of_a_file_is_the_model_of_its_flags(golden, to_guided_names, tmp_path):
    """Through the configuration, as evaluate.py and sample.py read it."""
    flags = {
        "image_size": 32, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,2",
        "num_head_channels": 16, "use_new_attention_order": True, "attention_resolutions": "16",
        "learn_sigma": True, "class_cond": True,
        "noise_schedule": "cosine", "diffusion_steps": 200,
    }  # fmt: skip
    torch.manual_seed(0)
    network = unet(GuidedFlags(**flags), num_classes=10)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    weights = to_guided_names(network.state_dict())
    torch.save(weights, tmp_path / "model.pt")
    expected = from_guided_diffusion(weights, **flags)
    options = [
        f"checkpoint_format.flags.{name}={json.dumps(value) if isinstance(value, str) else value}"
        for name, value in flags.items()
    ]
    model = load_model(
        tmp_path / "model.pt",
        "format@checkpoint_format=guided_diffusion",
        "trained_as=ddpm_cifar10",
        *options,
    )
    schedule = model.module.bound.chain.schedule
    assert isinstance(schedule, CosineSchedule)
    assert torch.equal(schedule.table(), expected.chain.schedule.table())
    level = expected.chain.level(torch.tensor([1, 200]))
    x, cond = torch.randn(2, 3, 32, 32), torch.tensor([0, 9])
    with torch.no_grad():
        ours, theirs = (each(x, level, cond) for each in (model.module.denoiser, expected.denoiser))
    assert torch.equal(ours.eps_hat, theirs.eps_hat)
    assert torch.equal(ours.var_output, theirs.var_output)
