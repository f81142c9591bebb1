"""Time of a training step (forward, backward, AdamW, EMA), and of diffusers.

    python -m benchmarks.train_step             # one CPU thread, processor time
    python -m benchmarks.train_step --threads 2 # wall time
    python -m benchmarks.train_step --device cuda --batch-size 128

The step of nelbo includes the bound. The step of diffusers is that of its
example for unconditional training, with fused AdamW and foreach EMA, which are
faster than in the example. Gradients are not clipped. The network is for
3x32x32 images: widths 64, 128, 128, two blocks per level, attention at 16x16.

Prints for each precision the median time of both steps, the ratio diffusers /
nelbo (above 1: nelbo is faster), and the ratio nelbo fp32 / nelbo, the gain
from the precision. Ratios are medians with [quartiles].
"""

import argparse
from itertools import repeat
from statistics import median

import diffusers
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from benchmarks.interleave import interleave, ratio, set_up_clock
from benchmarks.training_step import TrainingStep, Variant, configure, endless_batches

OURS = [
    "objective=simple",
    "data=patches",
    "model=unet_small",
    "model.num_heads=1",
    "model.dropout=0.0",
    "model.use_scale_shift_norm=false",
]


ON_ANY_DEVICE = {"fp32": Variant(), "bf16": Variant(bf16=True)}
ON_GPU = {
    "bf16 channels_last": Variant(bf16=True, channels_last=True),
    "bf16 channels_last compiled": Variant(bf16=True, channels_last=True, compile="default"),
}


def make_theirs(model: DictConfig, size: int) -> nn.Module:
    """The network of a configuration of ``UNet``, with one head, for RGB images (3, size, size)."""
    widths = [model.channels * factor for factor in model.channel_mult]
    attends = [size // 2**level in model.attention_resolutions for level in range(len(widths))]
    return diffusers.UNet2DModel(
        sample_size=size,
        block_out_channels=tuple(widths),
        down_block_types=tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attends),
        up_block_types=tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)),
        layers_per_block=model.num_res_blocks,
        attention_head_dim=widths[-1],
        dropout=model.dropout,
    )


class DiffusersStep:
    """The training step of the example of diffusers."""

    def __init__(self, model: DictConfig, x0: Tensor, variant: Variant) -> None:
        self.x0 = x0
        self.model = make_theirs(model, x0.shape[-1]).to(x0.device)
        variant.prepare(self.model)
        self.scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.lr_schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda _: 1.0)
        self.ema = diffusers.EMAModel(self.model.parameters(), use_ema_warmup=True, foreach=True)
        self.precision = variant.precision

    def __call__(self) -> None:
        """Make one step."""
        noise = torch.randn_like(self.x0)
        t = torch.randint(0, 1000, (len(self.x0),), device=self.x0.device)
        with self.precision(self.x0.device):
            output = self.model(self.scheduler.add_noise(self.x0, noise, t), t).sample
        F.mse_loss(output.float(), noise).backward()
        self.optimizer.step()
        self.lr_schedule.step()
        self.optimizer.zero_grad()
        self.ema.step(self.model.parameters())


def assert_same_size(ours: nn.Module, theirs: nn.Module) -> int:
    counts = [sum(p.numel() for p in net.parameters()) for net in (ours, theirs)]
    assert counts[0] == counts[1], f"not the same network: {counts} parameters"
    return counts[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU (default 1)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    clock = set_up_clock(device, arguments.threads)

    variants = ON_ANY_DEVICE | (ON_GPU if device.type == "cuda" else {})
    config = configure(*OURS, f"data.batch_size={arguments.batch_size}")
    batch = next(endless_batches(instantiate(config.data), device))
    steps = {}
    for name, variant in variants.items():
        ours = TrainingStep(config, repeat(batch), device, variant)
        theirs = DiffusersStep(config.model, batch.x0, variant)
        steps |= {f"nelbo {name}": ours, f"diffusers {name}": theirs}
    size = assert_same_size(ours.module.denoiser.network, theirs.model)
    print(f"{size:,} parameters each, batch {arguments.batch_size}, {device}, {arguments.threads} thread(s)")

    seconds = interleave(steps, clock, arguments.rounds)
    for name in variants:
        ours, theirs = seconds[f"nelbo {name}"], seconds[f"diffusers {name}"]
        print(f"{name}: nelbo {1e3 * median(ours):.1f} ms, diffusers {1e3 * median(theirs):.1f} ms")
        print(f"    diffusers / nelbo   {ratio(theirs, ours)}")
        print(f"    nelbo fp32 / nelbo  {ratio(seconds['nelbo fp32'], ours)}")


if __name__ == "__main__":
    main()
