"""Time of a training step (forward, backward, AdamW, EMA) compared with diffusers, on the same architecture.

    python -m benchmarks.train_step                  # one CPU thread, processor time
    python -m benchmarks.train_step --threads 2      # wall time
    python -m benchmarks.train_step --device cuda --batch-size 128

The step of nelbo includes the bound. The step of diffusers is that of its example for unconditional
training, with fused AdamW and foreach EMA, which are faster than in the example. Gradients are not clipped.
The network is for 3x32x32 images: widths 64, 128, 128, two blocks per level, attention at 16x16.

Prints for each precision the median time of both steps, the ratio diffusers / nelbo (above 1: nelbo is
faster), and the ratio nelbo fp32 / nelbo, the gain from the precision. Ratios are medians with [quartiles].
"""

import argparse
from dataclasses import dataclass
from itertools import repeat
from statistics import median

import diffusers
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor, nn

from benchmarks.interleave import interleave, ratio, set_up_clock
from benchmarks.training_step import TrainingStep, configure, endless_batches

OURS = [
    "objective=simple",
    "data=patches",
    "model=unet_small",
    "model.num_heads=1",
    "model.dropout=0.0",
    "model.use_scale_shift_norm=false",
]


@dataclass(frozen=True)
class Variant:
    """Settings of both steps."""

    bf16: bool = False
    channels_last: bool = False
    compile: bool = False


ON_ANY_DEVICE = {"fp32": Variant(), "bf16": Variant(bf16=True)}
ON_GPU = {
    "bf16 channels_last": Variant(bf16=True, channels_last=True),
    "bf16 channels_last compiled": Variant(bf16=True, channels_last=True, compile=True),
}


def make_theirs() -> nn.Module:
    return diffusers.UNet2DModel(
        sample_size=32,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=128,  # one head
        dropout=0.0,
    )


class DiffusersStep:
    """The training step of the example of diffusers."""

    def __init__(self, x0: Tensor, variant: Variant) -> None:
        self.x0 = x0
        self.model = make_theirs().to(x0.device)
        if variant.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if variant.compile:
            self.model.compile()
        self.scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.lr_schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda _: 1.0)
        self.ema = diffusers.EMAModel(self.model.parameters(), use_ema_warmup=True, foreach=True)
        self.precision = torch.autocast(x0.device.type, torch.bfloat16, enabled=variant.bf16)

    def __call__(self) -> None:
        """Make one step."""
        noise = torch.randn_like(self.x0)
        t = torch.randint(0, 1000, (len(self.x0),), device=self.x0.device)
        with self.precision:
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
    data = instantiate(configure(*OURS, f"data.batch_size={arguments.batch_size}").data)
    batch = next(endless_batches(data, device))
    steps = {}
    for name, variant in variants.items():
        config = configure(*OURS, f"compile={variant.compile}")
        ours = TrainingStep(config, repeat(batch), device, variant.bf16, variant.channels_last)
        theirs = DiffusersStep(batch.x0, variant)
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
