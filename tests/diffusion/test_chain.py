import pytest
import torch

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.schedules import CosineSchedule

SCHEDULE = CosineSchedule(20)


def test_the_full_chain_has_every_timestep():
    chain = Chain(SCHEDULE)
    index = torch.arange(1, 21)
    assert chain.num_steps == 20
    assert torch.equal(chain.t(), index)
    assert torch.equal(chain.level(index).logsnr, SCHEDULE.table())


def test_a_respaced_chain_has_the_levels_of_its_timesteps():
    """The levels are those of the schedule, with the timesteps of training."""
    chain = Chain(SCHEDULE, torch.tensor([3, 7, 20]))
    step = chain.step(torch.tensor([1, 2, 3]))
    table = SCHEDULE.table()
    assert step.t.t.tolist() == [3, 7, 20]
    assert step.s.t.tolist() == [0, 3, 7]
    assert step.next.t.tolist() == [7, 20, 20]
    assert step.t.logsnr.tolist() == [table[2], table[6], table[19]]
    assert step.s.logsnr.tolist() == [torch.inf, table[2], table[6]]
    assert chain.noisiest.t == 20
    assert chain.noisiest.logsnr == table[19]


def test_one_level_is_first_and_last():
    step = Chain(SCHEDULE, torch.tensor([5])).step(torch.tensor([1]))
    assert step.is_first.all()
    assert step.next.t.tolist() == step.t.t.tolist() == [5]


@pytest.mark.parametrize("timesteps", [[], [0, 1], [1, 21], [2, 2], [3, 1]])
def test_timesteps_that_are_not_increasing_in_range_raise(timesteps):
    with pytest.raises(ValueError, match=r"increasing timesteps in 1\.\.20"):
        Chain(SCHEDULE, torch.tensor(timesteps, dtype=torch.int64))
