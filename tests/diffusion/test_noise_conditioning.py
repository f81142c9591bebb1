"""What the network receives for a noise level."""

import pytest
import torch

from nelbo.diffusion.contracts import check_conditioning
from nelbo.diffusion.noise_conditioning import NoiseConditioning
from nelbo.diffusion.schedules import CosineSchedule


@pytest.mark.parametrize("num_steps", [30, 1000, None])
def test_the_network_can_tell_the_levels_apart(make_conditioning, num_steps):
    check_conditioning(make_conditioning(), CosineSchedule(num_steps))


class SignalVariance(NoiseConditioning):
    """Rounds to 1 at the clean end."""

    def __call__(self, level):
        return level.alpha_bar.bfloat16()


class Constant(NoiseConditioning):
    def __call__(self, level):
        return torch.zeros(())


@pytest.mark.parametrize(("wrong", "message"), [(SignalVariance, "not monotone"), (Constant, "has shape")])
def test_a_wrong_conditioning_fails_its_check(wrong, message):
    with pytest.raises(AssertionError, match=message):
        check_conditioning(wrong(), CosineSchedule(None, logsnr_max=30.0))
