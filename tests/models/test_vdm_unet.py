"""The network of Variational Diffusion Models."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nelbo.models import VDMUNet
from nelbo.models.vdm_unet import fourier_features
from tests.vdm_weights import weights_of_vdm

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = {"channels": 32, "depth": 2, "fourier_exponents": (6, 7), "dropout": 0.0}
GAMMA_MIN, GAMMA_MAX = -13.3, 5.0


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "vdm_continuous_nnet.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def test_reproduces_eps_hat_of_the_published_code(golden):
    network = VDMUNet((3, 8, 8), 3, **TINY)
    network.load_state_dict(weights_of_vdm(golden))
    c = 1000 * (golden["gamma"] - GAMMA_MIN) / (GAMMA_MAX - GAMMA_MIN)
    with torch.no_grad():
        eps_hat = network(golden["z_t"].permute(0, 3, 1, 2), c).permute(0, 2, 3, 1)
    expected = golden["eps_hat"]
    assert (eps_hat - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_fourier_features_are_those_of_the_formula():
    x = torch.rand(2, 3, 4, dtype=torch.float64).float()
    channels = torch.arange(3).repeat_interleave(2)
    phase = 2 * math.pi * torch.tensor([1.0, 4.0]).double().repeat(3)[:, None] * x.double()[:, channels]
    expected = torch.cat([phase.sin(), phase.cos()], dim=1)
    torch.testing.assert_close(fourier_features(x, (0, 2)).double(), expected, rtol=0, atol=1e-5)
    assert fourier_features(x, ()).shape == (2, 0, 4)


@pytest.mark.parametrize("shape", [(2, 6), (1, 4, 6), (1, 2, 4, 6)])
def test_output_starts_as_the_input_and_zeros_for_the_variance(shape):
    network = VDMUNet(shape, 2 * shape[0], **TINY)
    x = torch.randn(2, *shape)
    assert torch.equal(network(x, torch.ones(2)), torch.cat([x, torch.zeros_like(x)], dim=1))


def test_vectors_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^model=vdm_\* needs .* shape \(2,\): use model=mlp$"):
        VDMUNet((2,), 2, **TINY)


def test_only_the_middle_attends():
    attended = [name for name, _ in VDMUNet((1, 4, 4), 1, **TINY).named_modules() if "attention.qkv" in name]
    assert attended == ["middle.0.attention.qkv"]
