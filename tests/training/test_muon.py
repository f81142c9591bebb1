"""MuonAdamW is torch's Muon on matrices and torch's AdamW on the rest, also after a state is loaded."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from nelbo.training.muon import MuonAdamW

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon")
OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.99), "muon_lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 8), nn.GELU(), nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 3, 2), nn.Flatten()
    )


def backward(network, seed):
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(seed))
    network.zero_grad()
    network(x).square().mean().backward()


def test_steps_equal_those_of_the_two_optimizers():
    ours, theirs = model(), model()
    optimizer = MuonAdamW(ours.parameters(), **OPTIONS)
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    others = [p for p in theirs.parameters() if p.ndim != 2]
    assert len(matrices) == 1
    assert len(others) == 3
    parts = (
        torch.optim.Muon(matrices, lr=0.05, momentum=0.9, weight_decay=0.1),
        AdamW(others, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1, fused=True),
    )
    for seed in range(3):
        backward(ours, seed)
        optimizer.step()
        backward(theirs, seed)
        for part in parts:
            part.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loaded_state_continues_and_the_schedule_reaches_both():
    network = model()
    optimizer = MuonAdamW(network.parameters(), **OPTIONS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    backward(network, 0)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3, 0.025]
    copy = model()
    copy.load_state_dict(network.state_dict())
    resumed = MuonAdamW(copy.parameters(), **OPTIONS)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))  # torch shares the tensors
    for network_, optimizer_ in ((network, optimizer), (copy, resumed)):
        backward(network_, 1)
        optimizer_.step()
    for a, b in zip(network.parameters(), copy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_one_kind_of_parameter_is_enough():
    for network in (nn.Linear(3, 3, bias=False), nn.Conv1d(2, 2, 1)):
        before = [p.clone() for p in network.parameters()]
        optimizer = MuonAdamW(network.parameters(), **OPTIONS)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert all((a != b).any() for a, b in zip(before, network.parameters(), strict=True))
