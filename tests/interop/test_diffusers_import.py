"""Import of pipelines: those of diffusers, exports of ours, and damaged ones."""

import json

import pytest
import torch

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import DiscretizedGaussian
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.noise_conditioning import TimestepConditioning
from nelbo.diffusion.parameterizations import X0, Eps, V
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange
from nelbo.interop import from_diffusers, to_diffusers
from nelbo.interop.diffusers.unet import DiffusersUNet
from nelbo.models import UNet

diffusers = pytest.importorskip("diffusers")

# google/ddpm-cifar10-32 with another width
CIFAR10 = {
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [32, 64, 64, 64],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
CIFAR10_CHAIN = {
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "variance_type": "fixed_large",
}
SMALL = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [32, 64],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
}
# heads of one size at all levels
ATTENTIVE = {
    "attention_head_dim": 16,
    "down_block_types": ["AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D"],
}
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def saved(folder, network=SMALL, chain=None, **options):
    """A pipeline of diffusers, and its folder."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**network).eval()
    for parameter in unet.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    pipeline = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**(chain or {})))
    pipeline.save_pretrained(folder, **options)
    return pipeline


def same_output(model, unet, T=1000) -> float:
    """The largest difference of the two networks at a few timesteps."""
    network, t = model.denoiser, torch.tensor([1, 2, T // 3, T])
    size = unet.config.sample_size
    x = torch.randn(len(t), unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(1))
    cond = None if model.num_classes is None else torch.arange(len(t)) % model.num_classes
    c = ((t + network.c_noise.shift) * network.c_noise.scale).float()
    with torch.no_grad():
        return (network.network(x, c, cond) - unet(x, t - 1, class_labels=cond).sample).abs().max().item()


def change(path, **fields):
    """Change the fields of a file; ... removes one."""
    changed = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in changed.items() if value is not ...}))


# ------------------------------------------------------------------ what diffusers writes


def test_the_network_of_google_ddpm_cifar10(tmp_path):
    pipeline = saved(tmp_path, CIFAR10, CIFAR10_CHAIN)
    model = from_diffusers(tmp_path)
    assert same_output(model, pipeline.unet) < 1e-5
    assert type(model.denoiser.parameterization) is Eps
    assert type(model.denoiser.variance) is FixedLarge
    assert model.denoiser.variance.first_step == "beta"
    assert model.denoiser.c_noise.shift == -1.0
    assert not model.denoiser.training
    expected = LinearSchedule(1000, logsnr_max="paper").table()
    torch.testing.assert_close(model.chain.schedule.table(), expected, rtol=1e-11, atol=1e-11)


def test_a_folder_of_old_versions_is_read(tmp_path):
    """All files at the top, weights in a .bin, and the old names of attention."""
    unet = saved(tmp_path / "new", CIFAR10, CIFAR10_CHAIN).unet
    old = tmp_path / "old"
    old.mkdir()
    weights = {}
    for name, tensor in unet.state_dict().items():
        for new_name, old_name in OLD_NAMES.items():
            name = name.replace(f".{new_name}.", f".{old_name}.")
        weights[name] = tensor
    assert "mid_block.attentions.0.proj_attn.weight" in weights
    torch.save(weights, old / "diffusion_pytorch_model.bin")
    (old / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel", **CIFAR10}))
    (old / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler", **CIFAR10_CHAIN}))
    (old / "model_index.json").write_text((tmp_path / "new/model_index.json").read_text())
    assert same_output(from_diffusers(old), unet) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32},
        ATTENTIVE,
        {"norm_num_groups": 8, "norm_eps": 1e-4},
        {"num_class_embeds": 10},
        {"freq_shift": 1},
        {"flip_sin_to_cos": False},
        {"downsample_padding": 0},
    ],
    ids=lambda changes: "-".join(changes) or "defaults",
)
def test_options_of_the_network(changes, tmp_path):
    pipeline = saved(tmp_path, SMALL | changes)
    model = from_diffusers(tmp_path)
    assert same_output(model, pipeline.unet) < 1e-5
    assert model.num_classes == changes.get("num_class_embeds")


@pytest.mark.parametrize(
    "chain",
    [
        {"num_train_timesteps": 300},
        {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.01},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 4000},
        {"beta_schedule": "sigmoid"},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
    ],
    ids=lambda chain: "-".join(map(str, chain.values())),
)
def test_chains(chain, tmp_path):
    pipeline = saved(tmp_path, chain=chain)
    model = from_diffusers(tmp_path)
    T = len(pipeline.scheduler.betas)
    assert model.chain.num_steps == T
    assert (
        same_output(model, pipeline.unet, T) < 1e-5
    )  # at T = 300 too, where its time is not on a scale of 1000
    theirs, ours = (
        pipeline.scheduler.alphas_cumprod,
        model.chain.schedule.level(torch.arange(1, T + 1)).alpha_bar,
    )
    torch.testing.assert_close(theirs.double(), ours, rtol=2e-4, atol=1e-6)  # theirs is a product in float32


@pytest.mark.parametrize(
    ("fields", "parameterization", "variance"),
    [
        ({}, Eps, FixedSmall),
        ({"prediction_type": "sample", "variance_type": "fixed_small_log"}, X0, FixedSmall),
        ({"prediction_type": "v_prediction", "variance_type": "fixed_large"}, V, FixedLarge),
        ({"variance_type": "learned_range"}, Eps, LearnedRange),
    ],
)
def test_parameterization_and_variance(fields, parameterization, variance, tmp_path):
    saved(tmp_path, SMALL | {"out_channels": variance().output_channels(1)}, fields)
    denoiser = from_diffusers(tmp_path).denoiser
    assert (type(denoiser.parameterization), type(denoiser.variance)) == (parameterization, variance)


# ------------------------------------------------------------------ ours, there and back


def ours(num_steps: int) -> tuple[Denoiser, Chain]:
    torch.manual_seed(0)
    network = UNet(
        (1, 8, 8), 2, channels=32, channel_mult=[1, 2], num_res_blocks=1, attention_resolutions=[4],
        num_heads=2, dropout=0.1, use_scale_shift_norm=True,
    )  # fmt: skip
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    conditioning = TimestepConditioning(1000.0 / num_steps)
    denoiser = Denoiser(network, Eps(), LearnedRange("beta_tilde"), conditioning).eval()
    return denoiser, Chain(CosineSchedule(num_steps, half_bin=1 / 16))


def bound_of(denoiser: Denoiser, chain: Chain) -> torch.Tensor:
    """Of two examples, in nats, every tenth term for a long chain."""
    kept = chain.t()[:: max(1, chain.num_steps // 20)]
    bound = VariationalBound(Chain(chain.schedule, kept), DiscretizedGaussian(17))
    x0 = torch.randint(17, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 8.0 - 1.0

    def noise(i: int) -> torch.Tensor:
        return torch.randn(x0.shape, generator=torch.Generator().manual_seed(i))

    with torch.no_grad():
        return bound.terms(denoiser, x0, noise).total


@pytest.mark.parametrize("num_steps", [50, 1000])
def test_a_round_trip_of_our_model(num_steps, tmp_path):
    denoiser, chain = ours(num_steps)
    to_diffusers(tmp_path / "model", denoiser, chain.schedule, (8, 8))
    model = from_diffusers(tmp_path / "model")
    assert (model.denoiser.c_noise.shift, model.denoiser.variance.first_step) == (0.0, "beta_tilde")
    torch.testing.assert_close(model.chain.schedule.table(), chain.schedule.table(), rtol=1e-10, atol=1e-10)
    network = model.denoiser.network
    assert isinstance(network, DiffusersUNet)
    returned = network.unet.state_dict()
    for name, tensor in denoiser.network.state_dict().items():
        if name == "embedding.linear1.weight":  # turned there and back, where T is 1000
            torch.testing.assert_close(returned[name], tensor, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(returned[name], tensor), name
    torch.testing.assert_close(
        bound_of(model.denoiser, model.chain), bound_of(denoiser, chain), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("num_steps", [1000, 1229])
def test_a_round_trip_of_a_pipeline_of_diffusers(num_steps, tmp_path):
    pipeline = saved(tmp_path / "theirs", CIFAR10, CIFAR10_CHAIN | {"num_train_timesteps": num_steps})
    model = from_diffusers(tmp_path / "theirs")
    to_diffusers(tmp_path / "ours", model.denoiser, model.chain.schedule, (32, 32))
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path / "ours")
    assert again.scheduler.config.trained_betas is None
    assert again.unet.config.time_embedding_type == "positional"
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        first, second = (each.unet(x, torch.tensor([0, 700])).sample for each in (pipeline, again))
    torch.testing.assert_close(first, second, rtol=0.0, atol=1e-5)


# ------------------------------------------------------------------ what is refused


def refusal(folder) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        from_diffusers(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


def test_folders_without_a_pipeline_raise(tmp_path):
    assert "there is no folder" in refusal(tmp_path / "none")
    assert "has neither model_index.json nor config.json" in refusal(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text("{")
    assert "cannot be read as JSON" in refusal(tmp_path)
    index.write_text("[]")
    assert "expected an object" in refusal(tmp_path)
    index.write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert "with a unet of class None: only UNet2DModel is supported" in refusal(tmp_path)
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    index.write_text(json.dumps({"_class_name": "LDMPipeline", **parts, "vqvae": ["diffusers", "VQModel"]}))
    assert "is a LDMPipeline of diffusers, with vqvae (VQModel): expected a pipeline" in refusal(tmp_path)
    text = {"unet": ["diffusers", "UNet2DConditionModel"]}
    index.write_text(json.dumps({"_class_name": "Text", **text}))
    assert "with a unet of class UNet2DConditionModel: only UNet2DModel is supported" in refusal(tmp_path)
    index.write_text(json.dumps({"_class_name": "DDPMPipeline", **parts}))
    assert "has no config.json" in refusal(tmp_path)


NETWORKS = [
    ({"act_fn": "none"}, "error of diffusers: "),
    ({"class_embed_type": "timestep"}, "only classes (num_class_embeds) are supported"),
    ({"down_block_types": ["DownBlock2D", "Other"]}, "error of diffusers: Other does not exist"),
    ({"block_out_channels": [32, 48]}, "error of diffusers: num_channels (48) must be divisible"),
    ({"sample_size": [8]}, "sample_size=[8]: expected the side of the images, or height"),
    ({"block_out_channels": [32, 128]}, "the weights do not fit unet/config.json: of another shape"),
    ({"layers_per_block": 2}, "the weights do not fit unet/config.json: missing"),
    ({"num_class_embeds": 10}, "missing: class_embedding.weight"),
    ({"add_attention": False}, "the weights do not fit unet/config.json: unexpected"),
    ({"block_out_channels": None}, "its configuration is invalid"),
    ({"block_out_channels": []}, "its configuration is invalid"),
]
CHAINS = [
    ({"beta_schedule": "laplace"}, "beta_schedule=laplace is not supported"),
    ({"trained_betas": [1.0, 0.1]}, r"the betas must be in (0, 1)"),
    ({"variance_type": "learned"}, "variance_type=learned is not supported"),
    (
        {"variance_type": "learned_range"},
        "the network has 1 outputs, and variance_type=learned_range needs 2",
    ),
    ({"prediction_type": "flow"}, "prediction_type=flow is not supported"),
    ({"beta_start": "small"}, "its configuration is invalid"),
    (
        {"rescale_betas_zero_snr": True},
        "the parameterization Eps does not determine the data at the noisiest level",
    ),
    ({"_class_name": "ScoreSdeVeScheduler", "beta_schedule": ...}, "ScoreSdeVeScheduler has no betas"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    saved(folder)
    return folder


@pytest.mark.parametrize(
    ("file", "fields", "reason"),
    [("unet/config.json", *case) for case in NETWORKS]
    + [("scheduler/scheduler_config.json", *case) for case in CHAINS],
)
def test_unsupported_options_raise(file, fields, reason, written):
    before = (written / file).read_text()
    try:
        change(written / file, **fields)
        assert reason in refusal(written)
    finally:
        (written / file).write_text(before)


def test_weights_that_are_missing_damaged_or_code(tmp_path):
    saved(tmp_path)
    weights = tmp_path / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be read: is it complete?" in refusal(tmp_path)
    weights.unlink()
    assert "has neither diffusion_pytorch_model.safetensors nor diffusion_pytorch_model.bin" in refusal(
        tmp_path
    )
    torch.save({"step": 3}, weights.with_suffix(".bin"))
    assert "contains no weights of a network" in refusal(tmp_path)
    torch.save({"model": object}, weights.with_suffix(".bin"))
    assert "is not loaded" in refusal(tmp_path)
