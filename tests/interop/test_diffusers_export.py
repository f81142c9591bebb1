"""Export to diffusers: networks, schedules and samples of diffusers equal ours."""

import json
import os
import random
import re

import pytest
import torch

from nelbo.atomic_file import read_json
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.noise_conditioning import TimestepConditioning
from nelbo.diffusion.parameterizations import X0, Eps, V
from nelbo.diffusion.samplers import Ancestral
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.diffusion.variances import Analytic, FixedLarge, FixedSmall, LearnedRange
from nelbo.interop import to_diffusers
from nelbo.interop.diffusers.folder import read_folder
from nelbo.interop.diffusers.schedule import betas_of
from nelbo.models import MLP, UNet

diffusers = pytest.importorskip("diffusers")

TINY = {"channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1, "attention_resolutions": [4]}
DDPM = {"channels": 32, "channel_mult": [1, 2, 2], "num_res_blocks": 2, "attention_resolutions": [8]}
IDDPM = DDPM | {"num_res_blocks": 3, "attention_resolutions": [8, 4]}


def untrained(options, shape=(3, 16, 16), outputs=1, num_classes=None, **changes) -> UNet:
    """A network with random weights in all layers."""
    torch.manual_seed(0)
    fixed = {"num_heads": 1, "dropout": 0.1, "use_scale_shift_norm": False}
    network = UNet(shape, outputs * shape[0], num_classes, **(fixed | options | changes))
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


def tiny(num_steps=50) -> tuple[Denoiser, CosineSchedule]:
    network = untrained(TINY, (1, 8, 8), num_heads=2, use_scale_shift_norm=True)
    schedule = CosineSchedule(num_steps)
    return Denoiser(network, V(), FixedLarge(), TimestepConditioning(1000.0 / num_steps)).eval(), schedule


def ddpm() -> tuple[Denoiser, LinearSchedule]:
    return Denoiser(untrained(DDPM), Eps(), FixedSmall()).eval(), LinearSchedule(1000, logsnr_max="paper")


def iddpm() -> tuple[Denoiser, CosineSchedule]:
    network = untrained(IDDPM, outputs=2, num_heads=4, use_scale_shift_norm=True)
    schedule = CosineSchedule(4000, logsnr_max="paper")
    return Denoiser(network, Eps(), LearnedRange("beta_tilde"), TimestepConditioning(0.25)).eval(), schedule


MODELS = {"tiny": tiny, "ddpm": ddpm, "iddpm": iddpm}


def side(denoiser: Denoiser) -> tuple[int, int]:
    return (8, 8) if denoiser.network.stem.in_channels == 1 else (16, 16)


def write(folder, denoiser, schedule, **options):
    to_diffusers(folder, denoiser, schedule, side(denoiser), **options)
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def outputs(denoiser, pipeline, t) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of our network and that of diffusers at timesteps t in 1..T."""
    shape = (len(t), pipeline.unet.config.in_channels, *side(denoiser))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    cond = None
    if pipeline.unet.config.num_class_embeds:
        cond = torch.arange(len(t)) % pipeline.unet.config.num_class_embeds
    c = ((t + denoiser.c_noise.shift) * denoiser.c_noise.scale).float()
    with torch.no_grad():
        return denoiser.network(x, c, cond), pipeline.unet(x, t - 1, class_labels=cond).sample


# ------------------------------------------------------------------ the network


@pytest.mark.parametrize("name", MODELS)
def test_the_network_has_the_same_output(name, tmp_path):
    denoiser, schedule = MODELS[name]()
    pipeline = write(tmp_path / "model", denoiser, schedule)
    T = schedule.num_steps
    ours, theirs = outputs(denoiser, pipeline, torch.tensor([1, 2, T // 3, T - 1, T]))
    assert ours.abs().mean() > 0.1
    torch.testing.assert_close(theirs, ours, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, -1.0])
@pytest.mark.parametrize("num_steps", [1000, 300])
def test_the_time_of_networks_that_count_from_0_or_1(num_steps, shift, tmp_path):
    denoiser = Denoiser(untrained(DDPM), Eps(), FixedSmall(), TimestepConditioning(1000.0 / num_steps, shift))
    pipeline = write(tmp_path / "model", denoiser, LinearSchedule(num_steps))
    kind = "positional" if num_steps == 1000 else "learned"
    assert pipeline.unet.config.time_embedding_type == kind
    ours, theirs = outputs(denoiser, pipeline, torch.tensor([1, 7, num_steps]))
    torch.testing.assert_close(theirs, ours, rtol=0.0, atol=1e-5)


def test_a_class_conditional_network(tmp_path):
    network = untrained(TINY, (1, 8, 8), num_classes=10, num_heads=2, use_scale_shift_norm=True)
    pipeline = write(tmp_path / "model", Denoiser(network, V(), FixedLarge()), CosineSchedule(1000))
    ours, theirs = outputs(Denoiser(network, V(), FixedLarge()), pipeline, torch.tensor([1, 500, 900]))
    torch.testing.assert_close(theirs, ours, rtol=0.0, atol=1e-5)


# ------------------------------------------------------------------ the chain


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        (LinearSchedule(1000, logsnr_max="paper"), "linear"),
        (LinearSchedule(4000, logsnr_max="paper"), "linear"),
        (CosineSchedule(1000, logsnr_max="paper"), "squaredcos_cap_v2"),
        (CosineSchedule(4000, logsnr_max="paper"), "squaredcos_cap_v2"),
        (CosineSchedule(1000, logsnr_max=8.0), "trained"),
    ],
)
def test_betas(schedule, kind, tmp_path):
    denoiser, _ = tiny(schedule.num_steps)
    scheduler = write(tmp_path / "model", denoiser, schedule).scheduler
    trained = scheduler.config.trained_betas
    assert (scheduler.config.beta_schedule if trained is None else "trained") == kind
    assert scheduler.config.num_train_timesteps == schedule.num_steps
    # those of diffusers are float32, and for the cosine a difference of numbers near 1
    torch.testing.assert_close(scheduler.betas.double(), betas_of(schedule), rtol=1e-6, atol=1e-9)


def drawn(denoiser, schedule, steps, generator, batch=2) -> torch.Tensor:
    """Our samples, with the noise that the pipeline draws."""
    timesteps = torch.arange(steps) * (schedule.num_steps // steps) + 1
    shape = (batch, denoiser.network.stem.in_channels, *side(denoiser))

    def noise(step: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) if step > 1 else torch.zeros(shape)

    xT = torch.randn(shape, generator=generator)
    chain = Chain(schedule, timesteps)
    return Ancestral(clip=(-1.0, 1.0)).sample(denoiser, chain, xT, noise)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("tiny", 50), ("ddpm", 20), ("iddpm", 16)])
def test_the_pipeline_draws_our_samples(name, steps, tmp_path):
    denoiser, schedule = MODELS[name]()
    pipeline = write(tmp_path / "model", denoiser, schedule)
    theirs = pipeline(
        batch_size=2, generator=torch.Generator().manual_seed(3), num_inference_steps=steps, output_type="pt"
    ).images
    ours = drawn(denoiser, schedule, steps, torch.Generator().manual_seed(3))
    ours = (ours / 2 + 0.5).clamp(0, 1)
    assert ours.std() > 0.1
    torch.testing.assert_close(theirs, ours, rtol=0.0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", [Eps(), X0(), V()])
@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()])
def test_every_parameterization_and_variance(parameterization, variance, tmp_path):
    denoiser, schedule = tiny()
    denoiser.parameterization, denoiser.variance = parameterization, variance
    pipeline = write(tmp_path / "model", denoiser, schedule)
    theirs = pipeline(
        batch_size=2, generator=torch.Generator().manual_seed(3), num_inference_steps=50, output_type="pt"
    ).images
    ours = drawn(denoiser, schedule, 50, torch.Generator().manual_seed(3))
    torch.testing.assert_close(theirs, (ours / 2 + 0.5).clamp(0, 1), rtol=0.0, atol=1e-4)


def test_clip_sample_follows_the_argument(tmp_path):
    denoiser, schedule = tiny()
    assert write(tmp_path / "a", denoiser, schedule).scheduler.config.clip_sample
    assert not write(tmp_path / "b", denoiser, schedule, clip=None).scheduler.config.clip_sample


# ------------------------------------------------------------------ what is refused


def refusal(folder, denoiser, schedule, size=(16, 16)) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        to_diffusers(folder, denoiser, schedule, size)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (MLP((4,), 4, width=16, depth=1, dropout=0.0), "no equivalent of the network MLP: only U-Nets"),
        (untrained(DDPM, channel_mult=[2, 2]), "channel_mult to begin with 1"),
        (untrained(DDPM, resblock_updown=True), "no equivalent of model.resblock_updown=true"),
        (untrained(DDPM, embedding_channels=64), "model.embedding_channels other"),
        (untrained(DDPM, channels=16), r"one number of groups for all norms"),
        (untrained(DDPM, channel_mult=[1, 2, 3], num_heads=2), r"heads of \[32, 48\] channels"),
    ],
)
def test_networks_without_equivalent_in_diffusers_raise(network, reason, tmp_path):
    denoiser = Denoiser(network, Eps(), FixedSmall())
    line = refusal(tmp_path / "model", denoiser, LinearSchedule())
    assert re.search(reason, line)
    assert not (tmp_path / "model").exists()


def test_a_variance_without_equivalent_in_diffusers_raises(tmp_path):
    denoiser, schedule = ddpm()
    denoiser.variance = Analytic(torch.zeros(len(schedule.table())))
    assert "has no equivalent of Analytic" in refusal(tmp_path / "model", denoiser, schedule)


def test_a_folder_that_is_not_empty_raises(tmp_path):
    denoiser, schedule = ddpm()
    (tmp_path / "file").write_text("mine")
    assert "exists already" in refusal(tmp_path, denoiser, schedule)
    assert "exists already" in refusal(tmp_path / "file", denoiser, schedule)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", denoiser, schedule)


def test_metadata_is_written_to_nelbo_json(tmp_path):
    denoiser, schedule = iddpm()
    write(tmp_path / "model", denoiser, schedule, config={"seed": 3}, step=7)
    files = sorted(path.relative_to(tmp_path / "model").as_posix() for path in tmp_path.glob("model/**/*.*"))
    assert files == [
        "model_index.json",
        "nelbo.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    metadata = read_json(tmp_path / "model/nelbo.json")
    checksums = metadata.pop("files")
    assert checksums.keys() == {*files} - {"nelbo.json"}
    assert metadata == {
        "time_shift": 0.0,
        "first_step": "beta_tilde",
        "config": {"seed": 3},
        "step": 7,
    }


FLIPS = int(os.environ.get("NELBO_TEST_FLIPS", "40"))  # of single bits


@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "model_index.json",
        "nelbo.json",
    ],
)
def test_a_flipped_bit_in_an_exported_file_is_detected(name, tmp_path):
    write(tmp_path / "model", *tiny(), config={"seed": 3}, step=7)
    path, ours = tmp_path / "model" / name, read_folder(tmp_path / "model").ours
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(FLIPS):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            read = read_folder(tmp_path / "model")
        except ValueError:
            continue
        # in the name of the checksum, which makes it another entry
        assert name == "nelbo.json"
        assert ours.items() <= read.ours.items()


def test_a_file_that_was_changed_after_the_export_says_what_to_do(tmp_path):
    folder = tmp_path / "model"
    write(folder, *iddpm())
    config = folder / "scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"clip_sample_range": 2.0}))
    with pytest.raises(ValueError, match=r"scheduler_config\.json was damaged or edited .* remove files and"):
        read_folder(folder)
    metadata = read_json(folder / "nelbo.json")
    del metadata["files"]
    (folder / "nelbo.json").write_text(json.dumps(metadata))
    assert read_folder(folder).scheduler["clip_sample_range"] == 2.0
    write(tmp_path / "other", *iddpm())
    (tmp_path / "other/unet/config.json").unlink()
    with pytest.raises(ValueError, match=r"unet/config\.json is missing"):
        read_folder(tmp_path / "other")
