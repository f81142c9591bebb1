"""The models that OpenAI released with improved-diffusion, at full size, and the experiments that train them.

Nothing is computed and no weight takes memory: the networks are on PyTorch's meta device.
"""

import pytest
import torch
from hydra.utils import instantiate

from nelbo.diffusion.schedules import CosineSchedule
from nelbo.interop import from_improved_diffusion
from nelbo.interop.improved_diffusion.flags import SCHEDULES, Flags
from nelbo.interop.improved_diffusion.model import reverse_variance, unet

CIFAR10 = {
    "image_size": 32,
    "num_channels": 128,
    "num_res_blocks": 3,
    "learn_sigma": True,
    "dropout": 0.3,
    "diffusion_steps": 4000,
    "noise_schedule": "cosine",
}
IMAGENET64 = CIFAR10 | {"image_size": 64, "dropout": 0.0}
# file, flags, millions of parameters, which the name rounds
RELEASED = {
    "cifar10_uncond_50M_500K": (CIFAR10, 52.5),
    "cifar10_uncond_vlb_50M_500K": (CIFAR10 | {"use_kl": True}, 52.5),
    "imagenet64_uncond_100M_1500K": (IMAGENET64, 121.1),
    "imagenet64_uncond_vlb_100M_1500K": (IMAGENET64 | {"use_kl": True}, 121.1),
    "imagenet64_cond_270M_250K": (
        IMAGENET64
        | {
            "num_channels": 192,
            "class_cond": True,
            "rescale_learned_sigmas": False,
            "rescale_timesteps": False,
        },
        273.0,
    ),
    "lsun_uncond_100M_1200K_bs128": (
        {
            "image_size": 256,
            "num_channels": 128,
            "num_res_blocks": 2,
            "num_heads": 1,
            "learn_sigma": True,
            "use_scale_shift_norm": False,
            "attention_resolutions": "16",
            "diffusion_steps": 1000,
            "noise_schedule": "linear",
            "rescale_learned_sigmas": False,
            "rescale_timesteps": False,
        },
        113.7,
    ),
}


def shapes(state_dict):
    return {name: tuple(tensor.shape) for name, tensor in state_dict.items()}


def on_meta(build):
    with torch.device("meta"):
        return build()


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_model_is_read(name, to_their_names):
    flags, millions = RELEASED[name]
    ours = on_meta(lambda: unet(Flags(**flags))).state_dict()
    model = from_improved_diffusion(to_their_names(ours), **flags)
    assert shapes(model.denoiser.network.state_dict()) == shapes(ours)
    assert sum(tensor.numel() for tensor in ours.values()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    "flags",
    [
        CIFAR10,
        IMAGENET64 | {"class_cond": True},
        {"image_size": 256, "num_heads": 1, "use_scale_shift_norm": False, "attention_resolutions": "16"},
    ],
    ids=["cifar10", "imagenet64", "lsun"],
)
def test_every_weight_goes_back_to_where_it_came_from(flags, to_their_names):
    flags = flags | {"num_channels": 32}
    torch.manual_seed(0)
    ours = {name: torch.randn_like(tensor) for name, tensor in unet(Flags(**flags)).state_dict().items()}
    model = from_improved_diffusion(to_their_names(ours), **flags)
    read = model.denoiser.network.state_dict()
    assert read.keys() == ours.keys()
    assert all(torch.equal(read[name], ours[name]) for name in ours)


# ------------------------------------------------------------------ the experiments

EXPERIMENTS = {
    "iddpm_cifar10_hybrid": CIFAR10,
    "iddpm_cifar10_vlb": CIFAR10,
    "iddpm_imagenet64": IMAGENET64,
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_trains_the_network_that_was_released(experiment, compose):
    flags, config = Flags(**EXPERIMENTS[experiment]), compose(f"experiment={experiment}")
    size = config.data.get("size", 32)
    of_experiment = on_meta(
        lambda: instantiate(config.model, shape=(3, size, size), out_channels=6, num_classes=None)
    )
    of_flags = on_meta(lambda: unet(flags))
    assert shapes(of_experiment.state_dict()) == shapes(of_flags.state_dict())
    # shapes do not show the rest: dropout, heads, where the noise level goes in
    assert str(of_experiment) == str(of_flags)
    for mine, released in zip(of_experiment.modules(), of_flags.modules(), strict=True):
        for name in ("num_heads", "use_scale_shift_norm", "p"):
            assert getattr(mine, name, None) == getattr(released, name, None)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_has_the_released_chain_and_variance(experiment, compose):
    flags, config = Flags(**EXPERIMENTS[experiment]), compose(f"experiment={experiment}")
    schedule = instantiate(config.schedule, half_bin=1 / 255)
    assert isinstance(schedule, CosineSchedule)
    expected = SCHEDULES[flags.noise_schedule](flags.diffusion_steps, logsnr_max="paper")
    assert torch.equal(schedule.table(), expected.table())
    variance = instantiate(config.variance)
    assert vars(variance) == vars(reverse_variance(flags))
    assert type(variance) is type(reverse_variance(flags))
    assert config.parameterization._target_.endswith("Eps")
