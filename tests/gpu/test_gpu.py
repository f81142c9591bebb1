"""Commands and training steps on a GPU: precision, compilation, resume, and the same results as on the CPU.

Without a GPU they are skipped. With NELBO_GPU_TESTS=cpu they run on the CPU, except those of the GPU alone.
"""

import json
import os
import signal
from itertools import repeat

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback

import nelbo
from benchmarks.training_step import TrainingStep, Variant, configure, endless_batches
from nelbo.diffusion.samplers import DDIM
from nelbo.diffusion.spacings import Trailing
from nelbo.evaluation.generation import generate
from nelbo.randomness import normals, uniforms
from nelbo.training.module import DiffusionModule

DEVICE = os.environ.get("NELBO_GPU_TESTS", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TRAINER = {"cuda": ["trainer=gpu"], "cpu": ["trainer.precision=bf16-mixed"]}[DEVICE]
LEARNED_SCHEDULE = [
    "schedule=learned_net",
    "schedule.features=16",
    "parameterization=eps",
    "c_noise=logsnr",
    "variance=fixed_large",
    "decoder=softmax",
    "timesteps=stratified",
]


@pytest.fixture
def float32_products(monkeypatch):
    """No TF32, which the commands otherwise use."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "set_float32_matmul_precision", lambda _: None)
        yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def options(tiny):
    """Options of a short run of a U-Net with dropout."""
    kept = [option for option in tiny if not option.startswith("model")]
    small = [
        "model=unet_tiny",
        "model.channels=16",
        "model.channel_mult=[1]",
        "model.attention_resolutions=[8]",
    ]
    return [*kept, *small, "logger=csv", *TRAINER]


@pytest.fixture(scope="module")
def checkpoint(options, run_in_process, tmp_path_factory):
    """``last.ckpt`` of a finished run, not compiled."""
    folder = tmp_path_factory.mktemp("finished")
    assert run_in_process("train", *options, folder=folder) == 0
    return folder / "checkpoints/last.ckpt"


def last_checkpoint(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True, map_location="cpu")


@pytest.mark.parametrize("network", ["mlp", "unet"])
def test_the_bound_of_a_run_in_bf16_and_compiled_is_the_same_on_both_devices(
    network, options, tiny, command, evaluate, float32_products
):
    options = options if network == "unet" else [*tiny, "logger=csv", *TRAINER]
    trained = command(*options, "compile=true")
    assert trained.code == 0, trained.err
    found = []
    for device in (DEVICE, "cpu"):
        result = evaluate(
            f"checkpoint={trained.folder}/checkpoints/last.ckpt",
            f"device={device}",
            "estimator=stratified",
            "max_examples=64",
        )
        assert result.code == 0, result.err
        values = json.loads((result.folder / "evaluation.json").read_text())
        found.append([values[f"test/{name}"] for name in ("L_0", "L_t", "L_T", "bpd")])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("more", [[], LEARNED_SCHEDULE], ids=["cosine", "learned_net"])
def test_an_interrupted_run_resumes_bit_for_bit(more, options, command, monkeypatch, tmp_path):
    options = [*options, *more, "+trainer.deterministic=warn"]
    whole = command(*options, folder=tmp_path / "whole")
    assert whole.code == 0, whole.err

    step_of_module = DiffusionModule.training_step

    def interrupted(module, *args):
        if module.trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step_of_module(module, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModule, "training_step", interrupted)
        stopped = command(*options, folder=tmp_path / "stopped")
    assert stopped.code == 130
    assert last_checkpoint(stopped.folder)["global_step"] == 4
    resumed = command(f"resume={stopped.folder}")
    assert resumed.code == 0, resumed.err

    expected, found = last_checkpoint(whole.folder), last_checkpoint(stopped.folder)
    assert found["global_step"] == expected["global_step"] == 6
    for state in ("state_dict", "current_model_state"):
        assert found[state].keys() == expected[state].keys()
        assert all(torch.equal(found[state][name], value) for name, value in expected[state].items())


def test_a_learned_schedule_changes_in_training(options, command, tmp_path):
    run = command(*options, *LEARNED_SCHEDULE)
    assert run.code == 0, run.err
    names = [name for name in last_checkpoint(run.folder)["state_dict"] if name.startswith("schedule.")]
    assert names
    torch.manual_seed(0)
    before = instantiate(configure(*LEARNED_SCHEDULE).schedule, half_bin=1 / 16).state_dict()
    after = last_checkpoint(run.folder)["current_model_state"]
    assert any(not torch.equal(after[f"schedule.{name}"], value) for name, value in before.items())


class RecordWeights(Callback):
    """Records the weights after every step."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append([p.detach().cpu().double() for p in pl_module.parameters()])


def test_the_average_of_the_weights_is_that_of_its_definition(tiny_run):
    record = RecordWeights()
    run = tiny_run(*TRAINER, "optimizer.lr=0.05", callbacks=[record])
    run.fit()
    average = record.weights[0]
    for n, weights in enumerate(record.weights[1:], start=1):
        decay = min(run.config.callbacks.ema.decay, (1 + n) / (10 + n))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    for parameter, expected in zip(run.module.parameters(), average, strict=True):
        torch.testing.assert_close(parameter.cpu().double(), expected, rtol=1e-5, atol=1e-6)


def test_random_numbers_are_the_same_on_both_devices():
    rows = torch.arange(64)
    noise, coins = [], []
    for device in (DEVICE, "cpu"):
        noise.append(normals((0, "noise"), rows.to(device), (3, 32, 32), draws=range(2)).cpu())
        coins.append(uniforms((0, "coin"), rows.to(device), 1000).cpu())
    torch.testing.assert_close(*noise, rtol=0.0, atol=1e-6)
    assert torch.equal(*coins)


def test_samples_are_the_same_on_both_devices(checkpoint, float32_products):
    samples = []
    for device in (DEVICE, "cpu"):
        model = nelbo.load(checkpoint, device=device)
        chain = Trailing().chain(model.chain.schedule, 8)
        sampler = DDIM(eta=0.5, steps=8, data_range=model.spec.range)
        drawn = generate(sampler, model.denoiser, chain, model.spec.shape, torch.arange(16), device=device)
        samples.append(drawn.cpu())
    assert samples[1].std() > 0.1
    torch.testing.assert_close(*samples, rtol=0.0, atol=1e-3)


@pytest.mark.skipif(DEVICE != "cuda", reason="the CPU does not synchronise")
@pytest.mark.parametrize(
    "choices",
    [["objective=simple"], ["objective=hybrid"], LEARNED_SCHEDULE],
    ids=["simple", "hybrid", "learned_net"],
)
def test_a_training_step_does_not_synchronise_with_the_host(choices):
    device = torch.device(DEVICE)
    config = configure("model.channels=16", "data.batch_size=8", *choices)
    batch = next(endless_batches(instantiate(config.data), device))
    step = TrainingStep(config, repeat(batch), device, Variant(bf16=True, channels_last=True))
    for _ in range(2):  # tables move to the device, and the optimizer makes its state
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
