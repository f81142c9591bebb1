"""A training and a sampling step of other libraries, with the same network.

    pip install 'nelbo[peers]'
    python -m benchmarks.peers  # unet_tiny on the digits, batches of 128
    python -m benchmarks.peers data=cifar10 model=unet_ddpm --rounds 20

Accepts the options of train.py. The network is built by nelbo and copied, so
the libraries differ in what they compute around it. azula and k-diffusion have
the preconditioning of EDM in continuous time, the others predict noise on 1000
timesteps:

training   the loss of the library's documentation, backward, AdamW (fused); no
           average of weights. "nelbo, whole step" adds the learning-rate
           schedule, EMA and the live bound
sampling   DDIM without noise (k-diffusion: Euler in sigma, the same method),
           one network evaluation per step

The steps are interleaved in one process. Prints milliseconds and the ratio to
the bare network with quartiles: forward and backward for training, forward for
sampling.
"""

import argparse
import copy
import importlib.metadata
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor, nn

from benchmarks.interleave import add_timing_arguments, interleave, ratio, set_up_clock
from benchmarks.training_step import TrainingStep, configure, endless_batches
from nelbo.diffusion.samplers import DDIM
from nelbo.diffusion.spacings import Trailing

PEERS = ("diffusers", "denoising-diffusion-pytorch", "azula", "k-diffusion")
Step = Callable[[], object]


class Network(nn.Module):
    """A network of nelbo with the attributes and arguments that other libraries expect.

    Args:
        network: maps (x, c_noise, cond).
        channels: of an image.
    """

    self_condition = False
    random_or_learned_sinusoidal_cond = False

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network = network
        self.channels = self.out_dim = channels

    def forward(self, x: Tensor, c: Tensor, *_: object) -> Tensor:
        """Map x (B, C, H, W) and noise levels (B,) or () to (B, C, H, W)."""
        return self.network(x, c.float().expand(len(x)), None)


def training_step(network: nn.Module, loss: Callable[[], Tensor], lr: float) -> Step:
    """Loss, backward and optimizer."""
    optimizer = torch.optim.AdamW(network.parameters(), lr, fused=True)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def make_diffusers(network: Network, x0: Tensor, steps: int, lr: float) -> tuple[Step, Step]:
    """As in examples/unconditional_image_generation."""
    from diffusers import DDIMScheduler, DDPMScheduler

    trained_on = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    scheduler = DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
    scheduler.set_timesteps(steps)

    def loss() -> Tensor:
        noise = torch.randn_like(x0)
        t = torch.randint(0, 1000, (len(x0),), device=x0.device)
        return F.mse_loss(network(trained_on.add_noise(x0, noise, t), t), noise)

    def sample() -> None:
        x = torch.randn_like(x0)
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t), t, x).prev_sample

    return training_step(network, loss, lr), sample


def make_denoising_diffusion_pytorch(
    network: Network, x0: Tensor, steps: int, lr: float
) -> tuple[Step, Step]:
    """As in its README."""
    from denoising_diffusion_pytorch import GaussianDiffusion, denoising_diffusion_pytorch

    denoising_diffusion_pytorch.tqdm = lambda iterable, **_: iterable  # no progress bar
    diffusion = GaussianDiffusion(
        network,
        image_size=tuple(x0.shape[2:]),
        timesteps=1000,
        sampling_timesteps=steps,
        objective="pred_noise",
        beta_schedule="cosine",
    ).to(x0.device)
    unit = (x0 + 1) / 2  # it takes images in [0, 1]
    return training_step(network, lambda: diffusion(unit), lr), lambda: diffusion.sample(len(x0))


def make_azula(network: Network, x0: Tensor, steps: int, lr: float) -> tuple[Step, Step]:
    """As in its tutorial."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import CosineSchedule
    from azula.sample import DDIMSampler

    denoiser = KarrasDenoiser(network, CosineSchedule())
    sampler = DDIMSampler(denoiser, steps=steps, silent=True)

    def loss() -> Tensor:
        return denoiser.loss(x0, torch.rand(len(x0), device=x0.device))

    return training_step(network, loss, lr), lambda: sampler(sampler.init(x0.shape))


def make_k_diffusion(network: Network, x0: Tensor, steps: int, lr: float) -> tuple[Step, Step]:
    """As in train.py of its repository."""
    import k_diffusion

    denoiser = k_diffusion.Denoiser(network, sigma_data=0.5)
    sigmas = k_diffusion.sampling.get_sigmas_karras(steps, 0.01, 80.0, device=x0.device)

    def loss() -> Tensor:
        sigma = k_diffusion.utils.rand_log_normal((len(x0),), -1.2, 1.2, device=x0.device)
        return denoiser.loss(x0, torch.randn_like(x0), sigma).mean()

    def sample() -> None:
        k_diffusion.sampling.sample_euler(denoiser, sigmas[0] * torch.randn_like(x0), sigmas, disable=True)

    return training_step(network, loss, lr), sample


MAKE = dict(
    zip(PEERS, (make_diffusers, make_denoising_diffusion_pytorch, make_azula, make_k_diffusion), strict=True)
)


def versions() -> dict[str, str]:
    """The version of each peer.

    Raises:
        SystemExit: naming those that are not installed.
    """
    found, missing = {}, []
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}; pip install 'nelbo[peers]'")
    return found


def show(title: str, seconds: dict[str, list[float]], per: int) -> None:
    """Print a Markdown table; ``bare network`` is the denominator of the ratios."""
    print(f"\n| {title} | ms | ratio to the bare network |\n| --- | --- | --- |")
    for name, values in seconds.items():
        compared = "" if name == "bare network" else str(ratio(values, seconds["bare network"]))
        print(f"| {name} | {statistics.median(values) / per * 1e3:.2f} | {compared} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_timing_arguments(parser, rounds=40)
    parser.add_argument("--steps", type=int, default=10, help="of sampling (default 10)")
    parser.add_argument("overrides", nargs="*", help="options of train.py")
    arguments = parser.parse_args()
    found = versions()
    device, steps = torch.device(arguments.device), arguments.steps
    clock = set_up_clock(device, arguments.threads)

    config = configure("objective=simple", "parameterization=eps", *arguments.overrides)
    data = instantiate(config.data)
    data.prepare_data()
    batches = endless_batches(data, device)
    ours, bare_step = (TrainingStep(config, batches, device) for _ in range(2))
    x0, lr = next(batches).x0, config.optimizer.lr
    source = ours.module.denoiser.network
    bare_network = copy.deepcopy(source)
    c = torch.full((len(x0),), 500.0, device=device)

    def forward_backward() -> None:
        bare_network(x0, c, None).square().mean().backward()
        bare_network.zero_grad()

    def loss() -> Tensor:
        return bare_step.module.training_step(next(batches), 0)["loss"]

    training = {
        "bare network": forward_backward,
        "nelbo": training_step(bare_step.module, loss, lr),
        "nelbo, whole step": ours,
    }
    sampler = DDIM(eta=0.0, steps=steps, data_range=data.spec.range)
    chain = Trailing().chain(ours.module.bound.chain.schedule, steps)
    frozen = copy.deepcopy(ours.module.denoiser).eval()

    def forward() -> None:
        for _ in range(steps):
            frozen.network(x0, c, None)

    sampling: dict[str, Step] = {
        "bare network": forward,
        "nelbo": lambda: sampler.sample(frozen, chain, torch.randn_like(x0), lambda _: torch.randn_like(x0)),
    }
    for name, make in MAKE.items():
        label = f"{name} {found[name]}"
        training[label], _ = make(Network(copy.deepcopy(source), x0.shape[1]), x0, steps, lr)
        _, sampling[label] = make(Network(copy.deepcopy(source).eval(), x0.shape[1]), x0, steps, lr)

    print(f"{tuple(x0.shape)}, {sum(p.numel() for p in source.parameters()):,} parameters, {device}")
    show("training step", interleave(training, clock, arguments.rounds), 1)
    with torch.no_grad():
        show("sampling step", interleave(sampling, clock, arguments.rounds), steps)


if __name__ == "__main__":
    main()
