"""The diffusion transformer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from nelbo.models import DiT
from nelbo.models.dit import DiTBlock, position_embedding

CONF = Path(__file__).parents[2] / "conf" / "model"
TINY = {"patch_size": 2, "width": 32, "depth": 1, "num_heads": 4}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # of the released code, which counts the fixed positions (256, width) too: 33M, 130M, 458M, 675M
        ("dit_s_2", 32_963_360),
        ("dit_b_2", 130_512_416),
        ("dit_l_2", 458_102_816),
        ("dit_xl_2", 675_129_632),
    ],
)
def test_published_numbers_of_parameters(name, count):
    """256x256 ImageNet as 32x32x4 latents, 1000 classes and none, a learned variance."""
    with torch.device("meta"):
        network = instantiate(
            OmegaConf.load(CONF / f"{name}.yaml"), shape=(4, 32, 32), out_channels=8, num_classes=1001
        )
    trained = sum(parameter.numel() for parameter in network.parameters())
    assert trained + network.positions.numel() == count


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("dit_*.yaml")))
def test_number_of_parameters_follows_the_formula(name):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    width, depth, patch = config.width, config.depth, config.patch_size**2
    with torch.device("meta"):
        network = instantiate(config, shape=(4, 32, 32), out_channels=8, num_classes=1001)
    stem = 4 * patch * width + width
    embedding = 256 * width + width + width**2 + width + 1001 * width
    block = (3 * width**2 + 3 * width) + (width**2 + width)  # attention
    block += (4 * width**2 + 4 * width) + (4 * width**2 + width)  # MLP
    block += 6 * width**2 + 6 * width  # modulation
    out = (2 * width**2 + 2 * width) + (8 * patch * width + 8 * patch)
    total = sum(parameter.numel() for parameter in network.parameters())
    assert total == stem + embedding + depth * block + out


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((2,), {}, r"model=dit_\* needs images .*; the data has shape \(2,\): use model=mlp"),
        (
            (1, 28, 28),
            {"patch_size": 8},
            "model.patch_size=8 does not divide images of 28x28: use one of 1, 2, 4, 7, 14, 28",
        ),
        ((1, 8, 9), {}, "model.patch_size=2 does not divide images of 8x9: use one of 1"),
        ((1, 8, 8), {"num_heads": 3}, "width=32 must be a multiple of 4 and of model.num_heads=3"),
        ((1, 8, 8), {"width": 30, "num_heads": 2}, "width=30 must be a multiple of 4"),
    ],
)
def test_arguments_that_do_not_fit_raise(shape, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        DiT(shape, 1, **TINY | changes)
    assert "\n" not in str(error.value)


def test_positions_are_those_of_the_released_code():
    """Its columns are [sin x, cos x, sin y, cos y] with x along the width, in float64."""
    rows, columns, width = 3, 5, 16
    frequencies = 1.0 / 10_000 ** (np.arange(width // 4) / (width / 4))
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    expected = np.concatenate(
        [f(p.reshape(-1, 1) * frequencies) for p in (x, y) for f in (np.sin, np.cos)], axis=1
    )
    actual = position_embedding(rows, columns, width)
    torch.testing.assert_close(actual.double(), torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_positions_are_not_in_the_state_dict():
    assert "positions" not in DiT((1, 8, 8), 1, **TINY).state_dict()


def test_block_starts_as_the_identity():
    block = DiTBlock(16, 2)
    h = torch.randn(2, 4, 16)
    assert torch.equal(block(h, torch.randn(2, 16)), h)


def test_attention_matches_multi_head_attention():
    block, reference = DiTBlock(16, 2), torch.nn.MultiheadAttention(16, 2, batch_first=True)
    reference.in_proj_weight.data, reference.in_proj_bias.data = block.qkv.weight.data, block.qkv.bias.data
    reference.out_proj.load_state_dict(block.out.state_dict())
    h = torch.randn(3, 7, 16)
    torch.testing.assert_close(block._attend(h), reference(h, h, h, need_weights=False)[0])


@pytest.mark.parametrize("shape", [(3, 8, 12), (1, 4, 16)])
def test_images_need_not_be_square(shape):
    network = DiT(shape, 2 * shape[0], **TINY)
    assert network(torch.randn(2, *shape), torch.zeros(2)).shape == (2, 2 * shape[0], *shape[1:])


def test_patches_keep_their_place():
    """Without attention and position, an output patch depends on the input patch at its place alone."""
    torch.manual_seed(0)
    network = DiT((1, 4, 6), 1, **TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network.blocks[0].out.weight.data.zero_()
    x = torch.randn(1, 1, 4, 6)
    changed = x.clone()
    changed[..., 2:4, 4:6] += 1
    difference = (network(x, torch.ones(1)) - network(changed, torch.ones(1))).abs()
    assert difference[..., 2:4, 4:6].min() > 0
    difference[..., 2:4, 4:6] = 0
    assert difference.max() == 0
