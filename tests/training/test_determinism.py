"""A run depends on its seed, and not on the number of processes."""

import pytest
import torch
from lightning import Callback
from torch import nn

from nelbo.data.batch import Batch
from nelbo.data.digits import Digits
from nelbo.models.layers import Dropout


class Trace(Callback):
    def __init__(self) -> None:
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(float(outputs["loss"]))


@pytest.fixture
def losses(tiny_run, tmp_path):
    def trace(name: str, *overrides: str) -> list[float]:
        callback = Trace()
        tiny_run(*overrides, callbacks=[callback], folder=tmp_path / name).fit()
        return callback.losses

    return trace


# no validation
PLAIN = ("callbacks.samples=null", "callbacks.ema=null", "trainer.val_check_interval=100")


def test_the_same_seed_gives_the_same_losses(losses):
    assert losses("first") == losses("second")


def test_seed_0_is_a_seed(losses):
    assert losses("zero", "seed=0", *PLAIN) != losses("one", "seed=1", *PLAIN)


@pytest.mark.slow
def test_callbacks_do_not_change_a_run(losses):
    plain = losses("plain", *PLAIN)
    assert plain == losses("watched", "trainer.val_check_interval=2", "checkpoint_every=1")


@pytest.mark.parametrize("timesteps", ["uniform", "stratified", "importance"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_noise_and_timesteps_do_not_depend_on_the_number_of_processes(
    timesteps, world_size, tiny_run, stub_trainer
):
    module = tiny_run(f"timesteps={timesteps}").module
    x0 = torch.zeros(32, *Digits().spec.shape)
    stub_trainer(module, batch=5)
    whole, noise = module.draw(x0)
    samples, noises = [], []
    for rank in range(world_size):
        stub_trainer(module, batch=5, world_size=world_size, rank=rank)
        sample, eps = module.draw(x0[: 32 // world_size])
        samples.append(sample)
        noises.append(eps)
    assert torch.equal(torch.cat([sample.index for sample in samples]), whole.index)
    assert torch.equal(torch.cat([sample.weight for sample in samples]), whole.weight)
    assert torch.equal(torch.cat(noises), noise)


def test_every_batch_has_its_own_noise(tiny_run, stub_trainer):
    module = tiny_run().module
    x0 = torch.zeros(8, 1, 8, 8)
    draws = []
    for batch in (0, 1):
        stub_trainer(module, batch=batch)
        draws.append(module.draw(x0))
    (first, first_noise), (second, second_noise) = draws
    assert not torch.equal(first.index, second.index)
    assert (first_noise - second_noise).abs().min() > 0


@pytest.mark.parametrize("kind", [Dropout, nn.Dropout])
def test_dropout_depends_on_the_batch_number_alone(kind, tiny_run, stub_trainer):
    module = tiny_run().module
    network = module.denoiser.network
    network.stem = nn.Sequential(network.stem, kind(0.5))
    nn.init.normal_(network.out.weight)
    batch, losses = Batch(torch.zeros(8, 1, 8, 8), None, torch.arange(8)), []
    stub_trainer(module)
    draws = module.draw(batch.x0)
    module.draw = lambda x0: draws
    for number in (5, 6, 5):
        stub_trainer(module, batch=number)
        losses.append(float(module.training_step(batch, 0)["loss"]))
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_a_fused_optimizer_is_clipped_in_bfloat16(algorithm, tiny_run):
    """Lightning raises for this pair under any mixed precision, although bfloat16 gradients have no scale."""
    options = ("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0", "trainer.max_steps=2")
    run = tiny_run(*options, f"+trainer.gradient_clip_algorithm={algorithm}")
    before = [parameter.detach().clone() for parameter in run.module.parameters()]
    run.fit()
    assert run.trainer.global_step == 2
    after = list(run.module.parameters())
    assert all(parameter.isfinite().all() for parameter in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
