"""Properties of every ``conf/model/*.yaml`` and of its network."""

import inspect
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf" / "model"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
SUPPLIED = {"shape", "out_channels", "num_classes"}  # by the composition root, never in a yaml
SHAPES = {"mlp": (2,), "unet_small": (1, 28, 28), "conv_dit_mnist": (1, 28, 28)}
SHAPES |= {name: (1, 8, 8) for name in NAMES if name.endswith("_tiny")}
SHAPES |= {name: (4, 32, 32) for name in NAMES if name.startswith("dit_") and name != "dit_tiny"}
# slow for those that differ from another one in their sizes alone
BY_NAME = [
    pytest.param(name, marks=pytest.mark.slow) if name.startswith(("dit_b", "dit_l", "dit_x")) else name
    for name in NAMES
]


def build(name: str, num_classes: int | None = None) -> torch.nn.Module:
    shape = SHAPES.get(name, (3, 32, 32))
    config = OmegaConf.load(CONF / f"{name}.yaml")
    if config.get("depth", 0) > 8:
        config.depth = 1  # the blocks are equal, and the published number of them takes minutes
    if config.get("channels", 0) > 64:
        config.channels = 64  # test_header_states_the_parameter_count builds the published width
    torch.manual_seed(0)
    return instantiate(config, shape=shape, out_channels=2 * shape[0], num_classes=num_classes)


def inputs(name: str, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(batch, *SHAPES.get(name, (3, 32, 32)))
    return x, torch.linspace(1.0, 1000.0, batch)


def perturb(network: torch.nn.Module) -> torch.nn.Module:
    """Random parameters: zero-initialised layers would hide the layers before them."""
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize("name", NAMES)
def test_yaml_gives_every_argument_and_no_other(name):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    parameters = inspect.signature(get_class(config._target_)).parameters
    assert set(parameters) >= SUPPLIED
    assert {str(key) for key in config} - {"_target_"} == set(parameters) - SUPPLIED
    assert (CONF / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "nelbo.models." in (CONF / f"{name}.yaml").read_text()]
)
def test_header_states_the_parameter_count(name):
    shape = SHAPES.get(name, (3, 32, 32))
    out_channels = 2 * shape[0] if name == "unet_iddpm" else shape[0]
    config = OmegaConf.load(CONF / f"{name}.yaml")
    with torch.device("meta"):
        network = instantiate(config, shape=shape, out_channels=out_channels, num_classes=None)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"{count:,} parameters for {shape}" in (CONF / f"{name}.yaml").read_text()


def test_ddpm_has_the_published_number_of_parameters():
    config = OmegaConf.load(CONF / "unet_ddpm.yaml")
    with torch.device("meta"):
        network = instantiate(config, shape=(3, 32, 32), out_channels=3, num_classes=None)
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307


@pytest.mark.parametrize("side", [28, 32])
def test_unet_small_attends_at_the_second_level_of_both_sizes(side):
    config = OmegaConf.load(CONF / "unet_small.yaml")
    network = instantiate(config, shape=(1, side, side), out_channels=1, num_classes=None)
    assert any(name == "down.1.blocks.0.attention.qkv" for name, _ in network.named_modules())
    with torch.no_grad():
        assert network(torch.randn(1, 1, side, side), torch.zeros(1)).shape == (1, 1, side, side)


@pytest.mark.parametrize("name", BY_NAME)
def test_output_at_the_start_is_zero_or_the_input(name):
    x, c = inputs(name)
    output = build(name)(x, c)
    assert output.shape == (2, 2 * x.shape[1], *x.shape[2:])
    if name.startswith("vdm"):  # it predicts the noise as a change of x
        output = output - torch.cat([x, torch.zeros_like(x)], dim=1)
    assert not output.any()


@pytest.mark.parametrize(
    "name", [name if name in SHAPES else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_noise_conditioning_may_be_any_float(name):
    """EDM's log(sigma) / 4 is negative, VDM's is between timesteps."""
    network = perturb(build(name)).eval()
    x = inputs(name, batch=1)[0].expand(4, *[-1] * len(SHAPES.get(name, (3, 32, 32))))
    c = torch.tensor([-1.55, -0.3, 0.41, 371.73])
    with torch.no_grad():
        output = network(x, c)
    assert output.isfinite().all()
    output = output.flatten(1)
    assert torch.cdist(output, output).fill_diagonal_(torch.inf).min() > 1e-3 * output.norm(dim=1).max()


def test_series_take_any_float_as_noise_conditioning():
    config = OmegaConf.load(CONF / "unet_tiny.yaml")
    network = perturb(instantiate(config, shape=(2, 16), out_channels=2, num_classes=None)).eval()
    x = torch.randn(1, 2, 16).expand(2, -1, -1)
    with torch.no_grad():
        first, second = network(x, torch.tensor([-1.55, 0.41]))
    assert first.isfinite().all()
    assert (first - second).abs().max() > 1e-3 * first.abs().max()


@pytest.mark.parametrize("name", BY_NAME)
def test_every_parameter_gets_a_finite_gradient(name):
    """DistributedDataParallel would wait for the gradient of an unused parameter."""
    network = perturb(build(name, num_classes=10))
    x, c = inputs(name)
    network(x, c, torch.tensor([3, 7])).square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", BY_NAME)
def test_noise_level_and_class_change_the_output(name):
    network = perturb(build(name, num_classes=10)).eval()
    x, _ = inputs(name, batch=1)
    with torch.no_grad():
        first = network(x, torch.tensor([10.0]), torch.tensor([3]))
        noisier = network(x, torch.tensor([500.0]), torch.tensor([3]))
        other = network(x, torch.tensor([10.0]), torch.tensor([4]))
    assert (first - noisier).abs().max() > 1e-3 * first.abs().max()
    assert (first - other).abs().max() > 1e-3 * first.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_near_float32(name):
    network = perturb(build(name)).eval()
    x, c = inputs(name)
    with torch.no_grad():
        expected = network(x, c)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast = network(x, c)
        pure = network.bfloat16()(x.bfloat16(), c)
    assert pure.dtype == torch.bfloat16
    # the Fourier features of rounded inputs are others
    for output in (autocast,) if name.startswith("vdm") else (autocast, pure):
        assert (output.float() - expected).norm() < 0.03 * expected.norm()
