"""Models from flags and weights of improved-diffusion. Their bound is tested in ``test_golden.py``."""

import math

import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.decoders import DiscretizedGaussian
from nelbo.diffusion.parameterizations import X0, Eps
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange
from nelbo.interop import from_improved_diffusion
from nelbo.interop.improved_diffusion.flags import Flags, read_flags
from nelbo.interop.improved_diffusion.model import unet

LINEAR, COSINE = "linear_fixed_large", "cosine_learned_range"


@pytest.fixture(scope="module")
def small(to_their_names):
    """A small network's weights under their names, and its flags."""

    def build(**changes):
        flags = {"image_size": 32, "num_channels": 32, "num_res_blocks": 1, "learn_sigma": True} | changes
        torch.manual_seed(0)
        network = unet(Flags(**flags))
        for parameter in network.parameters():  # away from the start, where whole layers are 0
            parameter.data += 0.02 * torch.randn_like(parameter)
        return to_their_names(network.state_dict()), flags

    return build


# ------------------------------------------------------------------ the parts of the model


def test_parts_with_default_flags(small):
    weights, flags = small(learn_sigma=False)
    model = from_improved_diffusion(weights, **flags)
    assert not model.denoiser.training
    assert type(model.denoiser.parameterization) is Eps
    assert type(model.denoiser.variance) is FixedLarge
    assert model.denoiser.variance.first_step == "beta_tilde"
    assert (model.denoiser.c_noise.shift, model.denoiser.c_noise.scale) == (-1.0, 1.0)
    assert torch.equal(model.chain.t(), torch.arange(1, 1001))
    assert torch.equal(model.chain.schedule.table(), LinearSchedule(1000, logsnr_max="paper").table())
    assert model.num_classes is None


def test_parts_with_other_flags(small):
    weights, flags = small(learn_sigma=False)
    model = from_improved_diffusion(
        weights,
        **flags,
        sigma_small=True,
        predict_xstart=True,
        noise_schedule="cosine",
        diffusion_steps=4000,
        timestep_respacing="10,10",
    )
    assert type(model.denoiser.parameterization) is X0
    assert type(model.denoiser.variance) is FixedSmall
    assert model.denoiser.variance.first_step == "beta_tilde"
    assert model.denoiser.c_noise.scale == 0.25
    assert model.chain.num_steps == 20
    assert torch.equal(model.chain.schedule.table(), CosineSchedule(4000, logsnr_max="paper").table())


def test_sigma_small_has_no_effect_on_a_learned_variance(small):
    weights, flags = small()
    model = from_improved_diffusion(weights, **flags, sigma_small=True)
    assert type(model.denoiser.variance) is LearnedRange
    assert model.denoiser.variance.first_step == "beta_tilde"


def test_without_rescale_timesteps_the_network_receives_0_based_timesteps(small):
    weights, flags = small()
    model = from_improved_diffusion(weights, **flags, diffusion_steps=4000, rescale_timesteps=False)
    received = []
    model.denoiser.network.register_forward_pre_hook(lambda _, inputs: received.append(inputs[1]))
    model.denoiser(torch.zeros(2, 3, 32, 32), model.chain.level(torch.tensor([1, 4000])))
    assert torch.equal(received[0], torch.tensor([0.0, 3999.0]))


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_a_class_conditional_model_has_as_many_classes_as_its_weights(num_classes, small):
    weights, flags = small(class_cond=True)
    weights = weights | {"label_emb.weight": torch.randn(num_classes, 128)}
    model = from_improved_diffusion(weights, **flags)
    assert model.num_classes == num_classes
    xt, level = torch.zeros(2, 3, 32, 32), model.chain.level(torch.tensor([500, 500]))
    of_two_classes = model.denoiser(xt, level, torch.tensor([0, num_classes - 1])).eps_hat
    assert not torch.equal(of_two_classes[0], of_two_classes[1])
    with pytest.raises(ValueError, match="class-conditional: it needs cond"):
        model.denoiser(xt, level)


def test_flags_of_training_have_no_effect(small):
    weights, flags = small()
    training = {"dropout": 0.3, "use_kl": True, "use_checkpoint": True, "rescale_learned_sigmas": False}
    xt = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    outputs = []
    for extra in ({}, training):
        model = from_improved_diffusion(weights, **flags, **extra)
        outputs.append(model.denoiser(xt, model.chain.level(torch.tensor([500]))).eps_hat)
    assert torch.equal(*outputs)


def test_half_precision_weights_are_read_as_float32(small):
    weights, flags = small()
    model = from_improved_diffusion({name: tensor.half() for name, tensor in weights.items()}, **flags)
    assert {parameter.dtype for parameter in model.denoiser.parameters()} == {torch.float32}


def test_numbers_are_a_string_or_a_sequence():
    text = Flags(image_size=32, channel_mult="1,2,2", attention_resolutions="16,8", timestep_respacing="5,10")
    numbers = Flags(32, channel_mult=(1, 2, 2), attention_resolutions=[16, 8], timestep_respacing=[5, 10])
    assert text.multiples == numbers.multiples == [1, 2, 2]
    assert text.attention_sides == numbers.attention_sides == [16, 8]
    assert torch.equal(text.timesteps, numbers.timesteps)


@pytest.mark.parametrize(
    ("resolutions", "sides"),
    [("16,8", [16, 8]), ("8,16", [16, 8]), ("12", [16]), ("7", [8]), ("64", []), ((), [])],
)
def test_attention_is_where_the_image_was_halved_as_often_as_that_project_counts(resolutions, sides):
    """It divides the size of the image by the resolution, rounding down; no match is no attention."""
    flags = Flags(image_size=32, num_channels=32, attention_resolutions=resolutions)
    assert flags.attention_sides == sides
    with torch.device("meta"):
        names = unet(flags).state_dict()
    assert ("down.1.blocks.0.attention.qkv.weight" in names) == (16 in sides)
    assert "middle.0.attention.qkv.weight" in names


# ------------------------------------------------------------------ mistakes in the flags

MISTAKES = {
    "unknown flag num_chanels (did you mean num_channels?): expected one of ": {"num_chanels": 64},
    "unknown flag lr: expected one of image_size, ": {"lr": 1e-4},
    "noise_schedule=sigmoid: expected one of linear, cosine": {"noise_schedule": "sigmoid"},
    "noise_schedule=None: expected one of": {"noise_schedule": None},
    "num_heads_upsample=2: encoder and decoder must have equally many heads": {"num_heads_upsample": 2},
    "use -1, or num_heads=1": {"num_heads": 1, "num_heads_upsample": 4},
    "num_heads=0 must be at least 1": {"num_heads": 0},
    "num_heads=5 does not divide the 32 channels": {"num_heads": 5, "attention_resolutions": "32"},
    "image_size='32': expected a whole number": {"image_size": "32"},
    "num_res_blocks=True: expected a whole number": {"num_res_blocks": True},
    "learn_sigma='True': expected True or False": {"learn_sigma": "True"},
    "dropout=1.5: expected a number in [0, 1)": {"dropout": 1.5},
    "dropout='0.3': expected a number": {"dropout": "0.3"},
    "for another size, add channel_mult": {"image_size": 128},
    "num_channels=48: must be a multiple of 32": {"num_channels": 48},
    "channel_mult='1;2': expected whole numbers, such as": {"channel_mult": "1;2"},
    "channel_mult=[1, 1.5]: expected whole numbers": {"channel_mult": [1, 1.5]},
    "channel_mult=(): expected multiples of at least 1": {"channel_mult": ()},
    "channel_mult=1,0: expected multiples of at least 1": {"channel_mult": "1,0"},
    "data of 32x32 cannot be halved 6 times": {"channel_mult": [1] * 7},
    "attention_resolutions='': expected whole numbers": {"attention_resolutions": ""},
    "attention_resolutions=16: expected whole numbers": {"attention_resolutions": 16},
    "attention_resolutions=0: every side must be at least 1": {"attention_resolutions": "0"},
    "diffusion_steps=0 must be at least 1": {"diffusion_steps": 0},
    "a beta must be below 1: use more than 20 steps": {"diffusion_steps": 20},
    "a section of 1000 timesteps cannot keep 2000": {"timestep_respacing": "2000"},
    "a section of 333 timesteps cannot keep 334": {"timestep_respacing": "10,10,334"},
    "a section of 500 timesteps cannot keep -1": {"timestep_respacing": "-1,10"},
    "timestep_respacing keeps no timestep": {"timestep_respacing": "0"},
    "timestep_respacing='many': expected whole numbers": {"timestep_respacing": "many"},
    "timestep_respacing=250: expected whole numbers": {"timestep_respacing": 250},
    "ddim600: no whole stride leaves 600 of 1000": {"timestep_respacing": "ddim600"},
    "ddim0: no whole stride leaves 0 of 1000": {"timestep_respacing": "ddim0"},
    "ddim1: no whole stride leaves 1 of 1000": {"timestep_respacing": "ddim1"},
    "timestep_respacing=['']: expected whole numbers": {"timestep_respacing": "ddim"},
}


@pytest.mark.parametrize("expected", MISTAKES)
def test_a_mistake_in_the_flags_is_one_line(expected, small):
    weights, flags = small()
    with pytest.raises(ValueError, match=r".") as error:
        from_improved_diffusion(weights, **flags | MISTAKES[expected])
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------ weights that are not those of the flags

WRONG = {
    "learn_sigma=True, not False": {"learn_sigma": False},
    "num_channels=32, not 64": {"num_channels": 64},
    "num_res_blocks=1, not 3": {"num_res_blocks": 3},
    "class_cond=False, not True": {"class_cond": True},
    "use_scale_shift_norm=True, not False": {"use_scale_shift_norm": False},
    "in_channels=3, not 1": {"in_channels": 1},
    "image_size=32, not 64": {"image_size": 64},
    "channel_mult=[1, 2, 2, 2], not [1, 2, 2]": {"channel_mult": "1,2,2"},
    "attention_resolutions=[16, 8], not [16]": {"attention_resolutions": "16"},
    "num_res_blocks=1, not 2; learn_sigma=True, not False": {"num_res_blocks": 2, "learn_sigma": False},
}


@pytest.mark.parametrize("expected", WRONG)
def test_the_flag_that_the_weights_contradict_is_named_and_no_other(expected, small):
    weights, flags = small()
    with pytest.raises(ValueError, match="the weights do not fit the flags") as error:
        from_improved_diffusion(weights, **flags | WRONG[expected])
    assert f": they have {expected} (" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_first_weights_that_differ_are_named(small):
    weights, flags = small()
    with pytest.raises(ValueError, match="fit the flags") as error:
        from_improved_diffusion(weights, **flags | {"learn_sigma": False})
    assert "(of another shape: out.2.bias [6] for [3], out.2.weight [6, 32, 3, 3] for [3, " in str(
        error.value
    )
    with pytest.raises(ValueError, match="fit the flags") as error:
        from_improved_diffusion(weights, **flags | {"num_res_blocks": 2})
    assert "(missing: down.0.blocks.1." in str(error.value)
    with pytest.raises(ValueError, match="fit the flags") as error:
        from_improved_diffusion(weights, **flags | {"attention_resolutions": "16"})
    assert "(unexpected: down.2.blocks.0.attention.norm.bias, " in str(error.value)


@pytest.mark.parametrize("shape", [(7,), ()])
def test_a_difference_without_a_wrong_flag_is_reported(shape, small):
    weights, flags = small()
    changed = weights | {"time_embed.0.bias": torch.zeros(shape)}
    with pytest.raises(ValueError, match=r"no flag explains how they differ .* embedding\.linear1\.bias"):
        from_improved_diffusion(changed, **flags)


def test_weights_without_any_shape_are_refused_in_one_line(small):
    weights, flags = small()
    with pytest.raises(ValueError, match="the weights do not fit the flags"):
        from_improved_diffusion({name: torch.zeros(()) for name in weights}, **flags)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_weights_of_an_incomplete_network_raise(change, small):
    weights, flags = small()
    if change == "missing":
        weights = {name: tensor for name, tensor in weights.items() if name != "out.0.bias"}
    else:
        weights = weights | {"out.0.gain": torch.zeros(1)}
    with pytest.raises(ValueError, match=f"not the weights of a U-Net of .*{change} out.0"):
        from_improved_diffusion(weights, **flags)


# ------------------------------------------------------------------ L_0, exact and as they compute it


def first_terms(model, golden, noise):
    """L_0 of every image in bits/dim, exact and by the tanh approximation."""
    x0 = golden.arrays["x0"]
    step = model.chain.step(torch.ones(len(x0), dtype=torch.int64))
    with torch.no_grad():
        prediction = model.denoiser(diffuse(x0, noise, step.t), step.t)
    bounds = [
        VariationalBound(model.chain, DiscretizedGaussian(golden.levels, cdf)) for cdf in ("exact", "tanh")
    ]
    return [bound.term(step, x0, prediction) / math.log(2) / x0[0].numel() for bound in bounds]


@pytest.mark.parametrize(("name", "tolerance"), [(LINEAR, 0.012), (COSINE, 0.0013)])
def test_the_tanh_approximation_is_close_for_a_reasonable_network(
    name, tolerance, improved_diffusion_golden, record_property
):
    golden = improved_diffusion_golden(name)
    model = from_improved_diffusion(golden.weights, **golden.flags)
    exact, tanh = first_terms(model, golden, golden.arrays["noise"][0])
    relative = (tanh - exact) / exact
    record_property("L_0 exact, bits/dim", exact.tolist())
    record_property("L_0 tanh, bits/dim", tanh.tolist())
    print(f"\nL_0 of {name}, bits/dim: exact {exact}, tanh {tanh}, relative difference {relative}")
    torch.testing.assert_close(tanh, golden.arrays["bpd_clip0.vb"][:, 0].to(tanh.dtype), rtol=1e-5, atol=0.0)
    assert (relative > 0).all()
    assert (relative < tolerance).all()


def test_the_tanh_approximation_is_not_a_bound_for_a_bad_network(improved_diffusion_golden):
    """A network that predicts the data and is untrained: its last layer is 0, so that it predicts grey."""
    golden = improved_diffusion_golden(COSINE)
    untrained = golden.weights | {
        name: torch.zeros_like(golden.weights[name]) for name in ("out.2.weight", "out.2.bias")
    }
    model = from_improved_diffusion(untrained, **golden.flags | {"predict_xstart": True})
    exact, tanh = first_terms(model, golden, golden.arrays["noise"][0])
    print(f"\nL_0 of an untrained network, bits/dim: exact {exact}, tanh {tanh}")
    # the density is known: the mean is 0 and the variance midway; a bin is not narrow compared with sigma
    x0 = golden.arrays["x0"]
    step = model.chain.step(torch.ones(1, dtype=torch.int64))
    variance = (0.5 * (step.log_beta + step.log_beta_tilde_next)).exp()
    density = 0.5 * (x0.square().mean(dim=(1, 2, 3)) / variance + (2 * math.pi * variance).log())
    bin_width = 2 / (golden.levels - 1)
    torch.testing.assert_close(
        exact.double(), (density.double() - math.log(bin_width)) / math.log(2), rtol=1e-2, atol=0.0
    )
    assert (exact > 440).all()
    assert (tanh < -math.log2(1e-12)).all()  # no probability is less, so no figure is more


def test_unknown_flags_suggest_nothing_where_nothing_is_near():
    with pytest.raises(ValueError, match="unknown flag zzz: expected one of") as error:
        read_flags({"zzz": 1}, Flags)
    assert "did you mean" not in str(error.value)
