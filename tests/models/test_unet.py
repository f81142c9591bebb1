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
        ((2,), {}, r"needs images \(C, H, W\); the data has shape \(2,\): use model=mlp"),
        ((1, 28, 30), {"channel_mult": (1, 2, 2)}, "images of 28x30 cannot be halved 2 times"),
        ((1, 8, 8), {"attention_resolutions": (16,)}, r"matches none .* sides are \[8, 4\]"),
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
