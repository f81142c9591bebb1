import pytest
import torch

from nelbo.models import MLP


@pytest.mark.parametrize(
    ("shape", "out_channels", "out_shape"),
    [((2,), 2, (2,)), ((2,), 4, (4,)), ((3, 4, 5), 6, (6, 4, 5)), ((2, 7), 2, (2, 7))],
)
def test_restores_the_shape_of_the_data(shape, out_channels, out_shape):
    network = MLP(shape, out_channels, width=16, depth=1, dropout=0.0)
    assert network(torch.randn(3, *shape), torch.zeros(3)).shape == (3, *out_shape)


def test_depth_and_dropout_are_used():
    network = MLP((2,), 2, width=16, depth=3, dropout=0.5)
    assert len(network.blocks) == 3
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    x, c = torch.randn(4, 2), torch.zeros(4)
    assert not torch.equal(network(x, c), network(x, c))
