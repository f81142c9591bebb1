"""Import of networks of all block types, schedulers, variants, shards and averages."""

import json
import shutil

import pytest
import torch

from nelbo.compose.trained import load_model
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.decoders import DiscretizedGaussian
from nelbo.diffusion.process import posterior_coefficients
from nelbo.diffusion.samplers import DDIM, Ancestral, DPMSolverPP, Heun
from nelbo.diffusion.spacings import UniformLogSNR
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange
from nelbo.evaluation.estimators.importance import steps_by_logsnr
from nelbo.interop import from_diffusers, to_diffusers
from nelbo.interop.diffusers.unet import DiffusersUNet
from nelbo.interop.diffusers.wrapped import WrappedUNet
from nelbo.interop.formats import DiffusersFormat

diffusers = pytest.importorskip("diffusers")

SMALL = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [32, 64],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
}
# networks that our U-Net does not support
OTHERS = {
    "scale_shift at its default": {"resnet_time_scale_shift": "scale_shift"},
    "resnet blocks that resample": {
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
    },
    "resampling of type resnet": {"downsample_type": "resnet", "upsample_type": "resnet"},
    "skip blocks": {
        "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D"],
        "up_block_types": ["AttnSkipUpBlock2D", "SkipUpBlock2D"],
        "in_channels": 3,
        "out_channels": 3,
    },
    "blocks that are not mirrored": {"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]},
    "no attention in the middle": {"add_attention": False},
    "no middle": {"mid_block_type": None},
    "widths that are no multiples": {"block_out_channels": [64, 96]},
    "another activation": {"act_fn": "gelu"},
    "heads that do not divide": {"attention_head_dim": 24},
    "another width of the time embedding": {"time_embedding_dim": 64},
    "groups of the attention": {"attn_norm_num_groups": 8, "norm_num_groups": 16},
    "a centred input": {"center_input_sample": True},
    "a trained table of timesteps": {"time_embedding_type": "learned", "num_train_timesteps": 1000},
    "classes": {"act_fn": "mish", "num_class_embeds": 5},
}


def fast(values, count):
    """The first few unchanged, the others as slow tests."""
    return [
        pytest.param(value, marks=[pytest.mark.slow] if index >= count else [])
        for index, value in enumerate(values)
    ]


def saved(folder, network=None, scheduler=None, **options):
    """A pipeline of diffusers with random weights, and its folder."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**SMALL | (network or {})).eval()
    for parameter in unet.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    pipeline = diffusers.DDPMPipeline(unet, scheduler or diffusers.DDPMScheduler())
    pipeline.save_pretrained(folder, **options)
    return pipeline


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def difference(model, unet) -> float:
    t = torch.tensor([1, 2, 500, 1000])
    x = torch.randn(4, unet.config["in_channels"], 8, 8, generator=torch.Generator().manual_seed(1))
    cond = None if model.num_classes is None else torch.arange(4) % model.num_classes
    c = ((t + model.denoiser.c_noise.shift) * model.denoiser.c_noise.scale).float()
    with torch.no_grad():
        ours, theirs = model.denoiser.network(x, c, cond), unet(x, t - 1, class_labels=cond).sample
    assert theirs.std() > 0.01
    return float((ours - theirs).abs().max() / theirs.abs().max())


# ------------------------------------------------------------------ networks


@pytest.mark.parametrize("name", fast(OTHERS, 4))
def test_unsupported_networks_use_that_of_diffusers(name, tmp_path):
    pipeline = saved(tmp_path / "model", OTHERS[name])
    model = from_diffusers(tmp_path / "model")
    assert type(model.denoiser.network) is WrappedUNet
    assert difference(model, pipeline.unet) == 0.0
    to_diffusers(tmp_path / "again", model.denoiser, model.chain.schedule, (8, 8))
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path / "again")
    assert difference(from_diffusers(tmp_path / "again"), pipeline.unet) == 0.0
    assert difference(model, again.unet.eval()) == 0.0


@pytest.mark.parametrize(
    "changes", [{"sample_size": None}, {"future_option": 1}], ids=lambda changes: min(changes)
)
def test_an_option_that_diffusers_ignores_does_not_matter(changes, tmp_path):
    pipeline = saved(tmp_path)
    change(tmp_path / "unet/config.json", **changes)
    model = from_diffusers(tmp_path)
    assert type(model.denoiser.network) is DiffusersUNet
    assert difference(model, pipeline.unet) < 1e-5


def test_without_diffusers_the_message_says_to_install_it(tmp_path, monkeypatch):
    saved(tmp_path, {"act_fn": "gelu"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"act_fn=gelu is not supported, .* pip install diffusers$"):
        from_diffusers(tmp_path)


def test_the_bound_of_a_wrapped_network_is_that_of_its_output(tmp_path):
    """Computed from the network's own output: L_t of eps is a weighted mean squared error."""
    pipeline = saved(tmp_path, {"act_fn": "gelu"}, diffusers.DDPMScheduler(variance_type="fixed_small"))
    model = from_diffusers(tmp_path)
    x0 = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    eps = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([300, 900])
    alpha_bar = pipeline.scheduler.alphas_cumprod.double()
    here, before = alpha_bar[t - 1], alpha_bar[t - 2]
    xt = pipeline.scheduler.add_noise(x0, eps, t - 1)
    with torch.no_grad():
        eps_hat = pipeline.unet(xt, t - 1).sample
        step = model.chain.step(t)
        term = VariationalBound(model.chain, DiscretizedGaussian(256)).term(
            step, x0, model.denoiser(xt, step.t)
        )
    weight = 0.5 * (before / (1 - before) - here / (1 - here)) * (1 - here) / here
    expected = weight * (eps - eps_hat).square().sum((1, 2, 3))
    torch.testing.assert_close(term.double(), expected, rtol=2e-3, atol=0.0)  # theirs is a product in float32


# ------------------------------------------------------------------ schedulers


@pytest.mark.parametrize(
    "name",
    fast(["DDIMScheduler", "HeunDiscreteScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler",
          "EulerDiscreteScheduler", "UniPCMultistepScheduler", "LMSDiscreteScheduler"], 2),
)  # fmt: skip
def test_the_chain_of_a_scheduler_is_that_of_training(name, tmp_path):
    scheduler = getattr(diffusers, name)(beta_start=0.001, beta_end=0.015, beta_schedule="scaled_linear")
    saved(tmp_path, scheduler=scheduler)
    change(tmp_path / "model_index.json", scheduler=["diffusers", name], _class_name="DDIMPipeline")
    model = from_diffusers(tmp_path)
    expected = scheduler.alphas_cumprod.double()
    alpha_bar = model.chain.level(torch.arange(1, 1001)).alpha_bar
    torch.testing.assert_close(alpha_bar, expected, rtol=1e-4, atol=1e-6)
    assert type(model.denoiser.variance) is FixedSmall


def test_a_network_of_two_outputs_has_a_learned_variance_whatever_its_scheduler(tmp_path):
    saved(tmp_path, {"out_channels": 2}, diffusers.DDIMScheduler())
    assert type(from_diffusers(tmp_path).denoiser.variance) is LearnedRange


def test_fixed_large_log_is_fixed_large(tmp_path):
    saved(tmp_path, scheduler=diffusers.DDPMScheduler(variance_type="fixed_large_log"))
    assert type(from_diffusers(tmp_path).denoiser.variance) is FixedLarge


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_bound_without_signal_at_the_end_is_finite(prediction, variance, tmp_path):
    scheduler = diffusers.DDPMScheduler(
        50, beta_start=0.002, beta_end=0.2, prediction_type=prediction, variance_type=variance,
        rescale_betas_zero_snr=True,
    )  # fmt: skip
    saved(tmp_path, scheduler=scheduler)
    model = from_diffusers(tmp_path)
    level = model.chain.level(torch.arange(1, 51))
    assert level.logsnr[-1] == -torch.inf
    torch.testing.assert_close(level.alpha_bar, scheduler.alphas_cumprod.double(), rtol=1e-3, atol=1e-6)
    x0 = torch.randint(256, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 127.5 - 1.0
    bound = VariationalBound(model.chain, DiscretizedGaussian(256))
    with torch.no_grad():
        terms = bound.terms(model.denoiser, x0, lambda i: torch.randn_like(x0))
    assert (terms.prior == 0).all()  # q(x_T | x_0) is the prior
    assert terms.total.isfinite().all()
    # the last term by hand: x0_hat is minus the output for v, the output for sample
    step = model.chain.step(torch.full((2,), 50))
    output = model.denoiser.network(torch.ones_like(x0), torch.full((2,), 49.0))
    sign = -1.0 if prediction == "v_prediction" else 1.0
    torch.testing.assert_close(model.denoiser(torch.ones_like(x0), step.t).x0_hat, sign * output)


def without_signal(folder):
    scheduler = diffusers.DDPMScheduler(50, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    saved(folder, scheduler=scheduler)
    return from_diffusers(folder)


@pytest.mark.parametrize(
    "sampler", fast([Ancestral(), DDIM(), Heun(), DPMSolverPP()], 1), ids=lambda each: type(each).__name__
)
def test_samples_from_no_signal_are_finite(sampler, tmp_path):
    model = without_signal(tmp_path)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        x0 = sampler.sample(
            model.denoiser,
            model.chain,
            torch.ones(2, 1, 8, 8),
            lambda _: torch.randn(2, 1, 8, 8, generator=noise),
        )
    assert x0.isfinite().all()


def test_the_last_posterior_without_signal_ignores_its_noise(tmp_path):
    step = without_signal(tmp_path).chain.step(torch.tensor([49, 50]))
    from_xt, from_x0 = posterior_coefficients(step)
    assert from_xt[0] > 0
    assert from_xt[1] == 0
    torch.testing.assert_close(from_x0[1], step.s.signal_scale[1])


def test_probabilities_of_steps_without_signal_at_the_end(tmp_path):
    p = steps_by_logsnr(without_signal(tmp_path).chain)
    assert (p > 0).all()
    assert p.sum().item() == pytest.approx(1.0)


def test_even_spacing_in_logsnr_needs_signal_at_the_end(tmp_path):
    with pytest.raises(ValueError, match=r"logsnr is -inf at T \(zero terminal SNR\): use spacing=even"):
        UniformLogSNR().timesteps(without_signal(tmp_path).chain.schedule, 10)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "fp16"},
        {"max_shard_size": "100KB"},
        {"safe_serialization": False},
        {"variant": "fp16", "max_shard_size": "100KB"},
    ],
    ids=str,
)
def test_weights_in_variants_and_shards(options, tmp_path):
    pipeline = saved(tmp_path, **options)
    assert not (tmp_path / "unet/diffusion_pytorch_model.safetensors").exists()
    if "max_shard_size" in options:
        assert len(list((tmp_path / "unet").glob("*-of-*"))) > 1
    assert difference(from_diffusers(tmp_path), pipeline.unet) < 1e-5


def test_shards_that_are_missing_or_elsewhere_are_refused(tmp_path):
    saved(tmp_path, max_shard_size="100KB")
    index = tmp_path / "unet/diffusion_pytorch_model.safetensors.index.json"
    shard = min((tmp_path / "unet").glob("*-00001-of-*"))
    moved = shard.rename(tmp_path / shard.name)
    with pytest.raises(ValueError, match="which is not in its folder"):
        from_diffusers(tmp_path)
    listed = json.loads(index.read_text())["weight_map"]
    outside = {name: f"../{shard.name}" if file == shard.name else file for name, file in listed.items()}
    change(index, weight_map=outside)
    with pytest.raises(ValueError, match="which is not in its folder"):
        from_diffusers(tmp_path)
    assert moved.is_file()


def test_several_variants_are_named(tmp_path):
    saved(tmp_path, variant="fp16")
    file = tmp_path / "unet/diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(file, file.with_name("diffusion_pytorch_model.bf16.safetensors"))
    with pytest.raises(ValueError, match=r"in 2 variants, .*bf16.*, .*fp16.*: keep one of them"):
        from_diffusers(tmp_path)


def test_averaged_weights_are_in_a_folder_of_their_own(tmp_path):
    """A checkpoint of the training script of diffusers has neither index nor scheduler."""
    pipeline = saved(tmp_path / "pipeline")
    pipeline.unet.save_pretrained(tmp_path / "checkpoint-500/unet")
    for parameter in pipeline.unet.parameters():
        parameter.data += 0.1
    pipeline.unet.save_pretrained(tmp_path / "checkpoint-500/unet_ema")
    change(tmp_path / "checkpoint-500/unet_ema/config.json", decay=0.999, optimization_step=500)
    ema, raw = (DiffusersFormat().read(tmp_path / "checkpoint-500", kind) for kind in ("ema", "raw"))
    name = "unet.stem.weight"
    torch.testing.assert_close(ema.network[name], raw.network[name] + 0.1)
    assert torch.equal(ema.network[name], pipeline.unet.state_dict()["conv_in.weight"])


@pytest.mark.parametrize("network", [{}, {"act_fn": "gelu"}], ids=["ours", "wrapped"])
def test_a_network_alone_takes_its_chain_from_the_experiment(network, tmp_path):
    size = {"in_channels": 3, "out_channels": 3, "sample_size": 32}
    pipeline = saved(tmp_path / "pipeline", size | network)
    pipeline.unet.save_pretrained(tmp_path / "alone")
    with pytest.raises(ValueError, match="a network without a scheduler"):
        from_diffusers(tmp_path / "alone")
    options = (
        "format@checkpoint_format=diffusers",
        "trained_as=ddpm_cifar10",
        'trained_with=["schedule=cosine"]',
    )
    model = load_model(tmp_path / "alone", *options)
    level = model.module.bound.chain.level(torch.tensor([1, 700]))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = pipeline.unet(x, level.t - 1).sample
        torch.testing.assert_close(model.module.denoiser(x, level).eps_hat, expected, rtol=0, atol=1e-5)


def test_weights_inside_of_a_bin_are_named(tmp_path):
    pipeline = saved(tmp_path, safe_serialization=False)
    file = tmp_path / "unet/diffusion_pytorch_model.bin"
    torch.save({f"module.{name}": tensor for name, tensor in pipeline.unet.state_dict().items()}, file)
    assert difference(from_diffusers(tmp_path), pipeline.unet) < 1e-5
    torch.save({"ema": pipeline.unet.state_dict(), "step": 3}, file)
    with pytest.raises(ValueError, match=r"contains no weights of a network: .* as content\['ema'\]: save"):
        from_diffusers(tmp_path)
