"""Random numbers that are a function of what they are for, and of nothing else."""

import numpy as np
import torch


def generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """A CPU generator seeded by (seed, epoch, purpose): no stream shares its state with another.

    Everything random about the data comes from here, so neither the number of ranks and workers nor
    an interruption changes what an example looks like or when it comes.

    Raises:
        ValueError: if ``seed`` is negative.
    """
    entropy = np.random.SeedSequence([seed, epoch, *purpose.encode()])
    return torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))
