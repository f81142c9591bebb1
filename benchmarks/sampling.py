"""Time of sampling: the bare network, nelbo, and diffusers.

    python -m benchmarks.sampling --checkpoint outputs/.../checkpoints/last.ckpt

K steps of DDIM (eta 0) are timed for the network alone, the sampler of nelbo,
and UNet2DModel with DDIMScheduler of diffusers, with the weights from `python
-m nelbo export`. The three are interleaved in one process. Prints the time of a
step, and the ratios to the bare network with quartiles.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from benchmarks.interleave import add_timing_arguments, interleave, ratio, set_up_clock
from nelbo.cli.export import write
from nelbo.compose.config import CONFIG_DIR
from nelbo.compose.trained import read_model
from nelbo.diffusion.samplers import DDIM
from nelbo.diffusion.spacings import Trailing


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    add_timing_arguments(parser, rounds=20)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    clock = set_up_clock(device, arguments.threads)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        model = read_model(compose("evaluate", overrides=[f"checkpoint={arguments.checkpoint}"]))

    from diffusers import DDIMScheduler, UNet2DModel
    from diffusers.utils.logging import disable_progress_bar

    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "exported"
        write(model, folder)
        theirs = UNet2DModel.from_pretrained(folder / "unet").to(device).eval()
        scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", timestep_spacing="trailing")

    module = model.module.to(device)
    sampler = DDIM(eta=0.0, steps=arguments.steps, data_range=model.spec.range)
    chain = Trailing().chain(module.bound.chain.schedule, arguments.steps)
    xT = torch.randn(arguments.batch_size, *model.spec.shape, device=device)
    c = torch.full((len(xT),), 500.0, device=device)

    @torch.no_grad()
    def bare() -> None:
        for _ in range(arguments.steps):
            module.denoiser.network(xT, c, None)

    def ours() -> None:
        sampler.sample(module.denoiser, chain, xT, lambda _: xT)

    @torch.no_grad()
    def diffusers() -> None:
        scheduler.set_timesteps(arguments.steps)
        x, channels = xT, xT.shape[1]
        for t in scheduler.timesteps:
            output = theirs(x, t).sample[:, :channels]
            x = scheduler.step(output, t, x).prev_sample

    seconds = interleave({"bare": bare, "nelbo": ours, "diffusers": diffusers}, clock, arguments.rounds)
    for name, values in seconds.items():
        print(f"{name:<10} {statistics.median(values) / arguments.steps * 1e3:8.3f} ms per step")
    for name in ("nelbo", "diffusers"):
        print(f"{name} / bare network: {ratio(seconds[name], seconds['bare'])}")
    print(f"diffusers / nelbo: {ratio(seconds['diffusers'], seconds['nelbo'])}")


if __name__ == "__main__":
    main()
