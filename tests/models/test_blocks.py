import pytest
import torch

from nelbo.models.blocks import DownLevel, ResidualBlock, UpLevel
from nelbo.models.layers import conv, group_norm


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (32, 32), (48, 16), (16, 16), (3, 1)])
def test_number_of_groups(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("autocast", [False, True])
def test_group_norm_accumulates_in_float32(autocast):
    """Sums of 4096 values in bfloat16 would be off by far more than the rounding of the output."""
    x = torch.randn(2, 32, 64, 64).add(3.0).bfloat16()
    norm = group_norm(32) if autocast else group_norm(32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        actual = norm(x)
    expected = group_norm(32)(x.float())
    torch.testing.assert_close(actual.float(), expected, rtol=2**-8, atol=2**-7)


@pytest.mark.parametrize("use_scale_shift_norm", [False, True])
@pytest.mark.parametrize("out_channels", [32, 64])
def test_residual_block_starts_as_its_skip_connection(out_channels, use_scale_shift_norm):
    block = ResidualBlock(32, out_channels, 16, 0.1, use_scale_shift_norm)
    x = torch.randn(2, 32, 4, 4)
    assert torch.equal(block(x, torch.randn(2, 16)), block.skip(x))


@pytest.mark.parametrize("use_scale_shift_norm", [False, True])
def test_residual_block_depends_on_the_embedding(use_scale_shift_norm):
    block = ResidualBlock(64, 64, 16, 0.0, use_scale_shift_norm)
    torch.nn.init.normal_(block.conv2.weight)
    x = torch.randn(1, 64, 4, 4).expand(2, -1, -1, -1)
    first, second = block(x, torch.randn(2, 16))
    assert (first - second).abs().max() > 0.01


def test_single_channel_groups_remove_an_added_embedding():
    """The reason for use_scale_shift_norm in narrow networks."""
    block = ResidualBlock(32, 32, 16, 0.0, use_scale_shift_norm=False)
    torch.nn.init.normal_(block.conv2.weight)
    x = torch.randn(1, 32, 4, 4).expand(2, -1, -1, -1)
    first, second = block(x, torch.randn(2, 16))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_resampling_halves_and_doubles():
    x, embedding = torch.randn(2, 8, 6, 4), torch.zeros(2, 16)
    assert DownLevel([], conv(2, 8, 8, 3, stride=2))(x, embedding)[-1].shape == (2, 8, 3, 2)
    assert UpLevel([], conv(2, 8, 8, 3))(x, embedding, []).shape == (2, 8, 12, 8)
