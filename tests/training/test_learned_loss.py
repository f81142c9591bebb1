"""A loss with parameters: they are trained and stored with the network, and not evaluated."""

import pytest
import torch

from nelbo.compose.trained import load_model
from nelbo.interop.formats import NelboFormat

UNCERTAINTY = ("loss=uncertainty", "timesteps=log_normal", "parameterization=edm", "variance=fixed_large")


@pytest.mark.slow
@pytest.mark.parametrize("time", ["1000", "null"])
def test_a_learned_loss_is_trained_resumed_and_left_out_of_the_model(time, tiny_run, tmp_path):
    options = (*UNCERTAINTY, f"schedule.num_steps={time}", "lr_schedule=constant", "callbacks.samples=null")
    whole = tiny_run(*options, folder=tmp_path / "whole")
    whole.fit()
    half = tiny_run(*options, "trainer.max_steps=4", folder=tmp_path / "half")
    half.fit()
    path = tmp_path / "half/checkpoints/last.ckpt"
    trained = torch.load(path, weights_only=True)["current_model_state"]["loss.weights"]
    assert trained.abs().min() > 0
    resumed = tiny_run(*options, folder=tmp_path / "half")
    resumed.trainer.fit(resumed.module, datamodule=resumed.data, ckpt_path=path)
    for name, value in resumed.module.state_dict().items():
        assert torch.equal(value, whole.module.state_dict()[name]), name
    assert not NelboFormat().read(path, "raw").schedule
    assert not load_model(path).module.loss.weights.any()


def test_a_learned_loss_is_refused_with_sharded_weights(tiny_run):
    module = tiny_run(*UNCERTAINTY).module
    module._device_mesh = {"data_parallel": None}
    with pytest.raises(ValueError, match=r"loss=Uncertainty has parameters: use trainer=ddp"):
        module.configure_model()
