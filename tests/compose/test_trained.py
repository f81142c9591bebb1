"""Tests of a model from a checkpoint."""

import pytest
import torch

from nelbo.compose.build import build_module
from nelbo.compose.trained import load_model
from nelbo.data import Digits, Gaussian
from nelbo.diffusion.decoders import DiscretizedGaussian

SMALL = ("data=digits", "model=mlp", "model.width=8", "model.depth=1", "schedule.num_steps=10")


@pytest.mark.parametrize(
    "options",
    [
        ("c_noise.shift=-1",),
        ("schedule.num_steps=null", "variance=fixed_large"),
        ("c_noise=logsnr", "c_noise.logsnr_max=12"),
        ("c_noise=log_sigma", "c_noise.factor=3"),
        ("parameterization=edm", "parameterization.sigma_data=0.25"),
        ("variance=fixed_small", "variance.first_step=beta_tilde"),
    ],
    ids=" ".join,
)
def test_a_loaded_model_is_conditioned_and_parameterized_as_trained(options, compose, tmp_path):
    module = build_module(compose(*SMALL, *options), Digits().spec)
    content = {"state_dict": {f"denoiser.{name}": v for name, v in module.denoiser.state_dict().items()}}
    torch.save(content | {"nelbo": {"config": module.config}}, tmp_path / "last.ckpt")
    loaded = load_model(tmp_path / "last.ckpt", "weights=raw").module
    for part in ("c_noise", "parameterization", "variance"):
        before, after = getattr(module.denoiser, part), getattr(loaded.denoiser, part)
        assert (type(after), vars(after)) == (type(before), vars(before)), part
    level = module.bound.chain.step(torch.tensor([1, 10])).t
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.denoiser(x, level).x0_hat, module.eval().denoiser(x, level).x0_hat)


def test_clipping_is_to_the_range_of_the_data(compose, tmp_path):
    for data, options in ((Digits(), SMALL), (Gaussian(), ("data=gaussian", *SMALL[1:]))):
        module = build_module(compose(*options), data.spec)
        content = {"state_dict": {f"denoiser.{name}": v for name, v in module.denoiser.state_dict().items()}}
        torch.save(content | {"nelbo": {"config": module.config}}, tmp_path / f"{options[0]}.ckpt")
    loaded = load_model(tmp_path / "data=digits.ckpt", "weights=raw")
    assert loaded.bound(False, "clip").clip is None
    assert loaded.bound(True, "clip").clip == (-1.0, 1.0)
    other = DiscretizedGaussian(17, cdf="tanh")
    assert loaded.bound(False, "clip", other).decoder is other
    with pytest.raises(ValueError, match="--clip needs data with a range, and this data is continuous"):
        load_model(tmp_path / "data=gaussian.ckpt", "weights=raw").bound(True, "--clip")
