"""What is checked on objects: the network before training, the bound before it is reported."""

import json
import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from nelbo.compose import build
from nelbo.evaluation.units import unit_of
from nelbo.training.checks import check_bound_is_finite, check_network
from nelbo.training.errors import NonFiniteLossError


class Network(torch.nn.Module):
    def __init__(self, shape, out_channels, num_classes, channels=0, fails=False):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.channels = channels or out_channels
        self.fails = fails

    def forward(self, x, c, cond):
        if self.fails:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return self.layer(x.flatten(1)[:, :1])[:, :, None, None].expand(-1, self.channels, *x.shape[2:])


@pytest.fixture(scope="module")
def make_module(compose, tiny):
    def make(**arguments):
        config = compose(*tiny)
        OmegaConf.set_struct(config, False)
        config.model = {"_target_": f"{__name__}.Network", **arguments}
        spec = instantiate(config.data).spec
        return build.build_module(config, spec), spec

    return make


def test_a_network_of_the_right_shape_is_accepted_and_not_compiled(make_module):
    module, spec = make_module()
    module.denoiser.network._compiled_call_impl = lambda *_: pytest.fail("compiled for the check")
    check_network(module, spec)
    assert module.denoiser.network.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"channels": 3},
            r"returns \(2, 3, 8, 8\) for two examples of shape \(1, 8, 8\); expected \(2, 2, 8, 8\)",
        ),
        ({"fails": True}, r"fails on examples of shape \(1, 8, 8\) \(RuntimeError: mat1 and mat2"),
    ],
)
def test_a_network_of_another_shape_is_named(arguments, message, make_module):
    module, spec = make_module(**arguments)
    with pytest.raises(ValueError, match=rf"^model\._target_=.*Network: the network {message}"):
        check_network(module, spec)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["val/bpd", "test/bpd", "test/L_0"])
def test_a_bound_that_is_not_finite_is_not_reported(name, value):
    metrics = {f"{split}/{part}": 1.0 for split in ("val", "test") for part in ("bpd", "L_0", "L_t", "L_T")}
    check_bound_is_finite(metrics, unit_of(64, 17))
    with pytest.raises(NonFiniteLossError, match=f"^{name} is {value}: the model has diverged"):
        check_bound_is_finite(metrics | {name: value}, unit_of(64, 17))


@pytest.mark.slow
def test_a_training_that_diverges_leaves_no_result(command, tiny):
    """With no callback that looks at the loss."""
    ended = command(*tiny, "logger=none", "callbacks.stop_on_non_finite=null", "optimizer.lr=1e30")
    assert ended.code == 1
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "the model has diverged" in errors[0]
    assert not (ended.folder / "summary.json").exists()
    assert not (ended.folder / "report.html").exists()


@pytest.mark.slow
def test_quick_trials_are_recorded(command, tiny):
    limits = {"train": 64, "val": 20, "test": 30}
    ended = command(*tiny, "logger=none", *(f"max_examples.{split}={n}" for split, n in limits.items()))
    assert ended.code == 0, ended.err
    summary = json.loads((ended.folder / "summary.json").read_text())
    assert summary["max_examples"] == limits
    assert summary["ledger"]["num_examples"] == 30
