"""Time of attention on a CPU: torch's fused operation and three operations.

    python -m benchmarks.attention              # one CPU thread, processor time

Prints for each precision and size the median time of both, and the ratio fused
/ three operations, the median of the rounds with [quartiles]. Above 1, three
operations are faster.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.interleave import interleave, ratio, set_up_clock
from nelbo.models.attention import explicit_attention

# images, heads, positions, features of a head: DiT with patches of 4 and 2 on 28x28, U-Net at 16x16
SIZES = ((64, 3, 49, 64), (64, 6, 49, 32), (16, 3, 196, 64), (16, 4, 256, 32))


def forward_and_backward(attend: Callable[[Tensor, Tensor, Tensor], Tensor], qkv: Tensor) -> None:
    attend(*qkv.unbind(2)).sum().backward()
    qkv.grad = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    clock = set_up_clock(torch.device("cpu"), arguments.threads)
    for dtype in (torch.float32, torch.bfloat16):
        for images, heads, positions, features in SIZES:
            qkv = torch.randn(images, heads, 3, positions, features).to(dtype).requires_grad_()
            ways = {"fused": F.scaled_dot_product_attention, "explicit": explicit_attention}
            steps = {name: partial(forward_and_backward, attend, qkv) for name, attend in ways.items()}
            seconds = interleave(steps, clock, arguments.rounds)
            times = ", ".join(f"{name} {1e3 * median(of):.1f} ms" for name, of in seconds.items())
            size = (images, heads, positions, features)
            print(f"{dtype} {size}: {times}, ratio {ratio(seconds['fused'], seconds['explicit'])}")


if __name__ == "__main__":
    main()
