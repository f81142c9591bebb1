"""Masks of dropout are functions of the keys of the rows, and torch's without keys."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from nelbo.models.layers import Dropout, set_dropout_keys, unset_dropout_keys

ROWS = torch.arange(12)
X = torch.ones(12, 6, 5, 5)


def network(p: float = 0.25) -> nn.Sequential:
    return nn.Sequential(Dropout(p), nn.Tanh(), Dropout(p)).train()


def keyed(net: nn.Module, step: int = 3, rows: torch.Tensor = ROWS) -> nn.Module:
    set_dropout_keys(net, (0, "dropout", step), rows)
    return net


def test_elements_are_dropped_and_the_rest_is_scaled():
    [layer, *_] = keyed(network(0.25))
    x = torch.randn(12, 6, 5, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out = layer(x)
    dropped = out == 0.0
    torch.testing.assert_close(out, torch.where(dropped, 0.0, x / 0.75))
    assert dropped.double().mean() == pytest.approx(0.25, abs=4 * (0.1875 / x.numel()) ** 0.5)
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(dropped, 0.0, torch.tensor(1 / 0.75)))


def test_a_probability_between_multiples_is_unbiased():
    [layer, *_] = keyed(network(0.1))
    [kept] = layer(X)[layer(X) > 0].unique()
    assert kept == pytest.approx(2**16 / (2**16 - 6553))


def test_the_mask_of_a_row_does_not_depend_on_the_batch():
    net = network()
    whole = keyed(net)(X)
    for rows in ROWS.split(5):
        assert torch.equal(keyed(net, rows=rows)(X[rows]), whole[rows])
    assert len({tuple(row.flatten().tolist()) for row in whole}) == 12


def test_layers_and_steps_have_their_own_masks():
    net = keyed(network())
    first, _, second = net
    assert not torch.equal(first(X), second(X))
    here = first(X)
    assert torch.equal(first(X), here)
    assert not torch.equal(keyed(net, step=4)[0](X), here)


def test_patches_of_an_example_share_its_key():
    [layer, *_] = keyed(network())
    assert torch.equal(layer(X.view(24, 3, 5, 5)).view(X.shape), layer(X))


def test_without_keys_the_mask_is_that_of_torch():
    net = keyed(network())
    unset_dropout_keys(net)
    torch.manual_seed(5)
    found = net[0](X)
    torch.manual_seed(5)
    assert torch.equal(found, F.dropout(X, 0.25))


def test_evaluation_has_no_dropout():
    assert torch.equal(keyed(network()).eval()[0](X), X)


def test_keys_are_no_state():
    net = keyed(network())
    assert not net.state_dict()
    assert torch.equal(deepcopy(net)(X), net(X))


def test_dropout_with_probability_0_has_no_keys():
    net = keyed(network(0.0))
    assert net[0].keys is None
    assert torch.equal(net[0](X), X)


def test_a_checkpointed_layer_has_the_same_mask_in_the_backward_pass():
    net = keyed(network())
    gradients = []
    for call in (net, lambda x: checkpoint(net, x, use_reentrant=False, preserve_rng_state=False)):
        x = (0.1 * X).requires_grad_()
        call(x).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_masks_do_not_depend_on_dtype_and_memory_format(dtype):
    [layer, *_] = keyed(network())
    out = layer(X.to(dtype).to(memory_format=torch.channels_last))
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out == 0.0, layer(X) == 0.0)


def test_the_compiled_network_is_one_graph_for_all_steps():
    """Keys are inputs of the graph: they cause no graph break and no recompilation."""
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph

    net = network()
    compiled = torch.compile(net, backend=count, fullgraph=True)
    for step in range(3):
        keyed(net, step)
        assert torch.equal(compiled(X), net(X))
    assert len(graphs) == 1
