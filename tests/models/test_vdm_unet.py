"""The network of Variational Diffusion Models."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nelbo.models import VDMUNet
from nelbo.models.vdm_unet import fourier_features

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = {"channels": 32, "depth": 2, "fourier_exponents": (6, 7), "dropout": 0.0}
GAMMA_MIN, GAMMA_MAX = -13.3, 5.0


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "vdm_continuous_nnet.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def weights_of_vdm(golden):
    """The parameters of google-research/vdm, with the names and the axes of ours."""
    start = "param/score_model/"
    theirs = {k.removeprefix(start): v for k, v in golden.items() if k.startswith(start)}
    ours = {}

    def conv(name):
        return theirs[f"{name}/kernel"].permute(3, 2, 0, 1)

    def dense(name):
        return theirs[f"{name}/kernel"].T

    def point(name):
        return dense(name)[:, :, None, None]

    def add(name, weight, bias):
        ours[f"{name}.weight"], ours[f"{name}.bias"] = weight, bias

    def norm(name, their):
        add(name, theirs[f"{their}/scale"], theirs[f"{their}/bias"])

    def block(name, their):
        norm(f"{name}.norm1", f"{their}/GroupNorm_0")
        add(f"{name}.conv1", conv(f"{their}/conv1"), theirs[f"{their}/conv1/bias"])
        add(f"{name}.embedding", dense(f"{their}/cond_proj"), torch.zeros(32))  # it has no bias
        norm(f"{name}.norm2", f"{their}/GroupNorm_1")
        add(f"{name}.conv2", conv(f"{their}/conv2"), theirs[f"{their}/conv2/bias"])
        if f"{their}/nin_shortcut/kernel" in theirs:
            add(f"{name}.skip", point(f"{their}/nin_shortcut"), theirs[f"{their}/nin_shortcut/bias"])

    # ours are [cos, sin]; the last feature is the conditioning, which is 0 there
    sines, cosines, _ = theirs["dense0/kernel"].split([16, 16, 1])
    add("embedding.linear1", torch.cat([cosines, sines]).T, theirs["dense0/bias"])
    add("embedding.linear2", dense("dense1"), theirs["dense1/bias"])
    add("stem", conv("conv_in"), theirs["conv_in/bias"])
    for i in range(2):
        block(f"down.{i}.residual", f"down.block_{i}")
    for i in range(2):
        block(f"middle.{i}.residual", f"mid.block_{i + 1}")
    for i in range(3):
        block(f"up.{i}.residual", f"up.block_{i}")
    norm("middle.0.attention.norm", "mid.attn_1/GroupNorm_0")
    query, key, value = ("mid.attn_1/q", "mid.attn_1/k", "mid.attn_1/v")
    add(
        "middle.0.attention.qkv",
        torch.cat([point(name) for name in (query, key, value)]),
        torch.cat([theirs[f"{name}/bias"] for name in (query, key, value)]),
    )
    add("middle.0.attention.out", point("mid.attn_1/proj_out"), theirs["mid.attn_1/proj_out/bias"])
    norm("out.0", "GroupNorm_0")
    add("out.2", conv("conv_out"), theirs["conv_out/bias"])
    return ours


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
