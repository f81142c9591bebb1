"""The variance of the gradient by bin of t, against direct sampling; a measurement leaves no trace."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nelbo.data.batch import Batch
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.losses import Simple
from nelbo.diffusion.parameterizations import Eps
from nelbo.diffusion.schedules import LinearLogSNRSchedule
from nelbo.diffusion.variances import FixedLarge
from nelbo.runs import metrics_file
from nelbo.training.callbacks.gradient_noise import gradient_moments, step_ranges

NOISE = (
    "callbacks=gradient_noise",
    "callbacks.gradient_noise.every_n_steps=3",
    "callbacks.gradient_noise.bins=3",
)


class Linear(nn.Module):
    """eps_hat = w x_t, and a weight that is not used."""

    def __init__(self):
        super().__init__()
        self.w, self.unused = nn.Parameter(torch.tensor(-0.3)), nn.Parameter(torch.ones(2))

    def forward(self, xt, c, cond):
        return self.w * xt


def test_moments_are_those_of_the_gradients_of_single_examples():
    chain = Chain(LinearLogSNRSchedule(10))
    module = SimpleNamespace(
        denoiser=Denoiser(Linear(), Eps(), FixedLarge()),
        bound=VariationalBound(chain, GaussianDecoder()),
        loss=Simple(),
        cond=lambda batch: None,
    )
    source = torch.Generator().manual_seed(0)
    data = torch.randn(200, 256, 1, generator=source)
    found = [gradient_moments(module, Batch(x0, None, torch.arange(256)), [(4, 8)], source) for x0 in data]
    estimates = torch.stack(found)[:, :, 0]
    # the gradient of |eps - w x_t|^2 is -2 x_t (eps - w x_t), w = -0.3
    level = chain.level(torch.randint(4, 9, (400_000,), generator=source))
    clean, eps = torch.randn(2, 400_000, generator=source, dtype=torch.float64)
    xt = level.signal_scale * clean + level.noise_scale * eps
    gradient = -2.0 * xt * (eps + 0.3 * xt)
    expected = torch.stack([gradient.var(), gradient.mean() ** 2])
    stderr = estimates.std(0) / len(data) ** 0.5
    assert (stderr < 0.12 * expected).all()
    assert ((estimates.mean(0) - expected).abs() < 4.0 * stderr).all()


@pytest.mark.parametrize(
    ("num_steps", "bins", "expected"),
    [
        (101, 4, [(1, 1), (2, 26), (27, 51), (52, 76), (77, 101)]),
        (3, 10, [(1, 1), (2, 2), (3, 3)]),
        (1, 10, [(1, 1)]),
    ],
)
def test_ranges_cover_every_step_once(num_steps, bins, expected):
    assert step_ranges(num_steps, bins) == expected


def trained(tiny_run, folder, *options):
    run = tiny_run("model.dropout=0.2", "callbacks.samples=null", *options, folder=folder)
    run.fit()
    return run, metrics_file.read(folder / metrics_file.METRICS_FILE)


@pytest.mark.slow
def test_a_measurement_does_not_change_the_run_and_is_logged(tiny_run, tmp_path):
    plain, metrics = trained(tiny_run, tmp_path / "plain")
    measured, with_noise = trained(tiny_run, tmp_path / "noise", *NOISE)
    expected, found = plain.module.state_dict(), measured.module.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    one, two = (run.trainer.optimizers[0].state_dict()["state"] for run in (plain, measured))
    assert all(torch.equal(one[key][name], two[key][name]) for key in one for name in one[key])
    for name in ("train/loss", "val/bpd", "train/bpd"):
        assert (metrics[name].values == with_noise[name].values).all()
    for name in ("L_0", "t_2_334", "t_335_667", "t_668_1000"):
        variance = with_noise[f"gradient_variance/{name}"]
        assert variance.steps.tolist() == with_noise[f"gradient_norm2/{name}"].steps.tolist() == [3, 6]
        assert (variance.values > 0).all()


def test_one_example_per_process_is_refused(tiny_run):
    with pytest.raises(ValueError, match=r"data\.batch_size=1 must be at least 2"):
        tiny_run(*NOISE, "data.batch_size=1").fit()


@pytest.mark.slow
def test_processes_share_a_measurement(tiny_run, tmp_path):
    two = ("trainer.devices=2", "trainer.strategy=ddp_fork")
    _, metrics = trained(tiny_run, tmp_path / "run", *NOISE, *two)
    assert metrics["gradient_variance/L_0"].steps.tolist() == [3, 6]
