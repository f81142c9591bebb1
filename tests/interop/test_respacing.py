"""Chains of fewer steps equal those of improved-diffusion, whose timesteps are 0-based."""

import pytest
import torch

from nelbo.interop.improved_diffusion.respacing import respaced_timesteps


def theirs(num_steps, respacing):
    return (respaced_timesteps(num_steps, respacing) - 1).tolist()


def test_all_of_them():
    assert theirs(5, "") == theirs(5, "5") == theirs(5, "ddim5") == [0, 1, 2, 3, 4]


def test_one_section_keeps_both_ends():
    assert theirs(1000, "5") == [0, 250, 500, 749, 999]  # 249.75, 499.5, 749.25: a half goes to the even one
    assert theirs(4000, "2") == [0, 3999]
    assert theirs(4000, "1") == [0]


def test_250_of_4000():
    kept = theirs(4000, "250")
    assert len(kept) == 250
    assert (kept[:5], kept[-2:]) == ([0, 16, 32, 48, 64], [3983, 3999])
    assert set(torch.tensor(kept).diff().tolist()) == {16, 17}


def test_sections():
    kept = theirs(300, "10,15,20")
    assert kept == theirs(300, [10, 15, 20])
    parts = kept[:10], kept[10:25], kept[25:]
    assert parts[0] == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert (parts[1][0], parts[1][-1], parts[2][0], parts[2][-1]) == (100, 199, 200, 299)


def test_the_first_sections_are_longer_where_the_division_leaves_a_remainder():
    assert theirs(11, "2,2,2") == [0, 3, 4, 7, 8, 10]


def test_a_section_may_keep_nothing():
    assert theirs(10, "0,5") == [5, 6, 7, 8, 9]


def test_ddim_strides():
    assert theirs(1000, "ddim50") == list(range(0, 1000, 20))
    assert theirs(4000, "ddim250") == list(range(0, 4000, 16))
    assert theirs(10, "ddim4") == [0, 3, 6, 9]


def test_strides_are_accumulated_as_in_improved_diffusion():
    """Position 89 of 179 is 155.5, which the sum of 89 rounded strides just misses."""
    assert theirs(312, "179")[89] == 155


@pytest.mark.parametrize("num_steps", [2, 10, 137, 1000])
def test_every_chain_is_in_order(num_steps):
    for count in range(1, num_steps + 1):
        timesteps = respaced_timesteps(num_steps, str(count))
        assert len(timesteps) == count
        assert timesteps[0] == 1
        assert (timesteps.diff() > 0).all()
        assert count == 1 or timesteps[-1] == num_steps
