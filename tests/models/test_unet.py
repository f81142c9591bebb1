import pytest
import torch

from nelbo.models import UNet

TINY = {
    "channels": 16,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (4,),
    "num_heads": 2,
    "dropout": 0.0,
    "use_scale_shift_norm": True,
}


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((2,), {}, r"needs series .*; the data has shape \(2,\): use model=mlp"),
        (
            (1, 28, 30),
            {"channel_mult": (1, 2, 2)},
            r"data of 28x30 cannot be halved 2 times, .* of 4 \(28x28 or 28x32\)",
        ),
        ((1, 8, 8), {"attention_resolutions": (16,)}, r"matches none .* sides are \[8, 4\]"),
        ((1, 3), {}, r"data of 3 cannot be halved 1 times, .*: use multiples of 2 \(2 or 4\)"),
        ((1, 8, 8), {"num_heads": 5}, "num_heads=5 does not divide the 32 channels"),
    ],
)
def test_arguments_that_do_not_fit_raise(shape, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        UNet(shape, 1, **TINY | changes)
    assert "\n" not in str(error.value)


def test_attention_is_at_the_given_resolutions():
    network = UNet((1, 16, 16), 1, **TINY | {"channel_mult": (1, 2, 2), "attention_resolutions": (8,)})
    attended = {name for name, _ in network.named_modules() if name.endswith("attention.qkv")}
    blocks = {"down.1.blocks.0", "middle.0", "up.1.blocks.0", "up.1.blocks.1"}
    assert attended == {f"{block}.attention.qkv" for block in blocks}


def test_without_attention_resolutions_only_the_middle_attends():
    network = UNet((1, 8, 8), 1, **TINY | {"attention_resolutions": ()})
    attended = [name for name, _ in network.named_modules() if name.endswith("attention.qkv")]
    assert attended == ["middle.0.attention.qkv"]


@pytest.mark.parametrize("channel_mult", [(1,), (1, 2, 2)])
def test_images_need_not_be_square(channel_mult):
    settings = TINY | {"channel_mult": channel_mult, "attention_resolutions": (8,)}
    network = UNet((3, 8, 12), 6, **settings)
    assert network(torch.randn(2, 3, 8, 12), torch.zeros(2)).shape == (2, 6, 8, 12)


def test_dropout_is_used():
    network = UNet((1, 8, 8), 1, **TINY | {"dropout": 0.5})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, c = torch.randn(2, 1, 8, 8), torch.zeros(2)
    assert not torch.equal(network(x, c), network(x, c))
    network.eval()
    assert torch.equal(network(x, c), network(x, c))


def test_channels_last_changes_nothing():
    torch.manual_seed(0)
    network = UNet((1, 8, 8), 1, **TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, c = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 700.0])
    expected = network(x, c)
    network.to(memory_format=torch.channels_last)
    actual = network(x.to(memory_format=torch.channels_last), c)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("resblock_updown", [False, True])
@pytest.mark.parametrize("dims", [1, 2])
def test_a_network_of_more_dimensions_repeats_one_of_fewer(dims, resblock_updown):
    """On data that is constant along the first dimension, with kernels that do not look along it."""
    torch.manual_seed(0)
    settings = TINY | {"resblock_updown": resblock_updown}
    smaller = UNet((2, *[8] * dims), 2, **settings).double()
    larger = UNet((2, *[8] * (dims + 1)), 2, **settings).double()
    for parameter in smaller.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    for name, weights in larger.named_parameters():
        same = smaller.get_parameter(name).data
        weights.data.zero_()
        if weights.ndim > same.ndim:
            weights.data[:, :, weights.shape[2] // 2] = same
        else:
            weights.data.copy_(same)
    x, c = torch.randn(2, 2, *[8] * dims, dtype=torch.float64), torch.tensor([3.0, 700.0])
    expected = smaller(x, c)
    actual = larger(x.unsqueeze(2).expand(-1, -1, 8, *[-1] * dims), c)
    torch.testing.assert_close(actual, expected.unsqueeze(2).expand_as(actual))


@pytest.mark.parametrize("shape", [(1, 16), (2, 4, 8, 12), (3, 8, 12)])
def test_without_resolutions_named_the_second_level_attends(shape):
    network = UNet(shape, 2, **TINY | {"attention_resolutions": None})
    attended = {name.split(".b")[0] for name, _ in network.named_modules() if name.endswith("attention.qkv")}
    assert attended == {"down.1", "middle.0.attention.qkv", "up.0"}
    assert network(torch.randn(2, *shape), torch.zeros(2)).shape == (2, 2, *shape[1:])
