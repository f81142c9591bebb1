"""Outputs of our U-Net with weights of improved-diffusion equal those of that project."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nelbo.interop.improved_diffusion import unet_state_dict
from nelbo.models import UNet

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("linear_fixed_large", "cosine_learned_range")


def load(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    config = json.loads((GOLDEN / f"{name}.json").read_text())
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        wanted = [key for key in arrays if key.startswith("net")]
        wanted += ["x_t", "loss.t"]
        return config, {key: torch.from_numpy(arrays[key]) for key in wanted}


def weights(golden: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix("net."): v for k, v in golden.items() if k.startswith("net.")}


def network(config: dict, num_classes: int | None = None) -> UNet:
    shape = tuple(config["image"])
    learned = config["variance"] == "LEARNED_RANGE"
    return UNet(
        shape,
        shape[0] * (2 if learned else 1),
        num_classes,
        channels=config["model_channels"],
        channel_mult=config["channel_mult"],
        num_res_blocks=config["num_res_blocks"],
        attention_resolutions=[shape[1] // factor for factor in config["attention_downsamples"]],
        num_heads=config["num_heads"],
        dropout=0.1,
        use_scale_shift_norm=config["use_scale_shift_norm"],
    ).eval()


@pytest.mark.parametrize("name", NAMES)
def test_network_output(name):
    config, golden = load(name)
    unet = network(config)
    unet.load_state_dict(unet_state_dict(weights(golden)))
    scale = 1000 / config["T"] if config["rescale_timesteps"] else 1.0
    with torch.no_grad():
        output = unet(golden["x_t"], golden["loss.t"] * scale)
    expected = golden["net_output"]
    assert (output - expected).abs().max() < 1e-5 * expected.abs().max()


def test_class_embedding_is_carried_over():
    config, golden = load(NAMES[0])
    theirs = weights(golden) | {"label_emb.weight": torch.randn(10, 4 * config["model_channels"])}
    unet = network(config, num_classes=10)
    unet.load_state_dict(unet_state_dict(theirs))
    assert torch.equal(unet.embedding.label.weight, theirs["label_emb.weight"])


@pytest.mark.parametrize(
    "key",
    [
        "time_embed.2.bias",
        "input_blocks.0.0.weight",
        "input_blocks.1.0.in_layers.2.weight",
        "input_blocks.1.1.norm.bias",
        "input_blocks.3.0.skip_connection.bias",
        "middle_block.1.qkv.weight",
        "output_blocks.1.1.conv.weight",
        "output_blocks.3.0.emb_layers.1.weight",
        "out.2.bias",
    ],
)
def test_a_missing_key_is_named(key):
    theirs = weights(load(NAMES[0])[1])
    del theirs[key]
    with pytest.raises(ValueError, match=f"missing {key}; unexpected nothing"):
        unet_state_dict(theirs)


@pytest.mark.parametrize("key", ["ema.decay", "input_blocks.1.0.in_layers.7.weight", "label_emb.bias"])
def test_an_unexpected_key_is_named(key):
    theirs = weights(load(NAMES[0])[1]) | {key: torch.zeros(1)}
    with pytest.raises(ValueError, match=f"unexpected {key}"):
        unet_state_dict(theirs)


def test_a_missing_block_is_named():
    theirs = weights(load(NAMES[0])[1])
    theirs = {k: v for k, v in theirs.items() if not k.startswith("output_blocks.3.")}
    with pytest.raises(ValueError, match=r"missing output_blocks\.3\.0\.emb_layers\.1\.bias.* and 5 more"):
        unet_state_dict(theirs)


def test_other_content_raises_in_one_line():
    with pytest.raises(ValueError, match=r"unexpected conv\.weight") as error:
        unet_state_dict({"conv.weight": torch.zeros(1)})
    assert "\n" not in str(error.value)
