"""A training step reads no value from the device: on the meta device, values cannot be read."""

import pytest
import torch

from nelbo.data.batch import Batch

LEARNED_SCHEDULE = [
    "schedule=learned_net",
    "schedule.features=16",
    "parameterization=eps",
    "variance=fixed_large",
    "decoder=softmax",
    "timesteps=stratified",
]


@pytest.mark.parametrize(
    "choices",
    [["objective=simple"], ["objective=vlb"], ["objective=hybrid"], LEARNED_SCHEDULE],
    ids=["simple", "vlb", "hybrid", "learned_net"],
)
def test_a_training_step_reads_no_value_from_the_device(choices, tiny_run, stub_trainer):
    run = tiny_run(*choices)
    module = run.module.to("meta")
    stub_trainer(module)
    x0 = torch.empty(4, *run.data.spec.shape, device="meta")
    output = module.training_step(Batch(x0, None, torch.arange(4)), 0)
    output["loss"].backward()
    assert output["loss"].device.type == "meta"
    assert all(p.grad is not None for p in module.denoiser.network.parameters())
    with pytest.raises(RuntimeError):  # what a synchronisation would be
        output["loss"].item()
