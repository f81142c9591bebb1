"""Spacings: properties of all of them, and the timesteps of each."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given

from nelbo.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule
from nelbo.diffusion.spacings import Even, Optimal, Quadratic, Trailing, UniformLogSNR
from nelbo.diffusion.spacings.base import rounded

EVERY_CURVE = (CosineSchedule, LinearLogSNRSchedule)


@pytest.fixture
def timesteps(make_spacing, random_costs):
    """(schedule, K) -> the timesteps of each spacing in turn, as a list."""

    def choose(schedule, steps):
        spacing = make_spacing(random_costs(schedule.num_steps, seed=7))
        return spacing.chain(schedule, steps).t().tolist()

    return choose


# ------------------------------------------------------------------ every spacing


@given(T=st.integers(1, 60), data=st.data(), curve=st.sampled_from(EVERY_CURVE))
def test_k_different_timesteps_in_order(make_spacing, random_costs, T, data, curve):
    K = data.draw(st.integers(1, T))
    spacing = make_spacing(random_costs(T, seed=K))
    t = spacing.timesteps(curve(T), K)
    assert t.dtype == torch.int64
    assert len(t) == K
    assert (t.diff() > 0).all()
    assert t[0] >= 1
    assert t[-1] <= T
    assert isinstance(spacing, Optimal) or t[-1] == T


@pytest.mark.parametrize("T", [1, 2, 3, 30])
def test_t_steps_are_all_timesteps(timesteps, T):
    assert timesteps(CosineSchedule(T), T) == list(range(1, T + 1))
    assert timesteps(CosineSchedule(T), None) == list(range(1, T + 1))


def test_steps_none_is_the_full_chain(make_spacing, random_costs):
    assert make_spacing(random_costs(9)).chain(CosineSchedule(9), None).num_steps == 9


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (0, "steps=0: a chain has at least 1 step"),
        (-3, "steps=-3: a chain has at least 1 step"),
        (2000, "steps=2000: the schedule has only 1000 timesteps"),
    ],
)
def test_steps_outside_1_to_t_raise(make_spacing, random_costs, steps, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        make_spacing(random_costs(3)).chain(CosineSchedule(1000), steps)


# ------------------------------------------------------------------ each of them


@pytest.mark.parametrize(
    ("spacing", "steps", "expected"),
    [
        (Even(), 1, [101]),
        (Even(), 2, [1, 101]),
        (Even(), 5, [1, 26, 51, 76, 101]),
        (Even(), 4, [1, 34, 68, 101]),
        (Trailing(), 1, [101]),
        (Trailing(), 2, [50, 101]),
        (Trailing(), 4, [25, 50, 76, 101]),
        (Quadratic(), 1, [101]),
        (Quadratic(), 2, [1, 101]),
        (Quadratic(), 5, [1, 7, 26, 57, 101]),
        (UniformLogSNR(), 1, [101]),
        (UniformLogSNR(), 2, [1, 101]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Even | Trailing | Quadratic) else None,
)
def test_the_timesteps_of(spacing, steps, expected):
    assert spacing.timesteps(CosineSchedule(101), steps).tolist() == expected


def test_quadratic_moves_equal_timesteps_up():
    # 1, 1.18, 1.73, 2.65, 3.94, 5.59, 7.61, 10
    assert Quadratic().timesteps(CosineSchedule(10), 8).tolist() == [1, 2, 3, 4, 5, 6, 8, 10]


@given(T=st.integers(2, 2000), data=st.data())
def test_even_is_the_spacing_of_improved_ddpm(T, data):
    """As their code does it: strides of (T - 1) / (K - 1), added up and rounded."""
    K = data.draw(st.integers(2, T))
    position, theirs = 0.0, []
    for _ in range(K):
        theirs.append(1 + round(position))
        position += (T - 1) / (K - 1)
    ours = Even().timesteps(CosineSchedule(T), K).tolist()
    halves = [abs(((T - 1) * i / (K - 1)) % 1 - 0.5) < 1e-6 for i in range(K)]  # rounding may go either way
    assert [t for t, half in zip(ours, halves, strict=True) if not half] == [
        t for t, half in zip(theirs, halves, strict=True) if not half
    ]


@pytest.mark.parametrize("T", [1, 2, 7, 30])
def test_strides_of_trailing_are_equal_but_for_rounding(T):
    for K in range(1, T + 1):
        t = Trailing().timesteps(CosineSchedule(T), K)
        assert ((t.diff() - T / K).abs() < 1 + 1e-9).all()
        assert abs(t[0].item() - T / K) <= 0.5


def test_uniform_logsnr_is_even_where_logsnr_is_a_straight_line():
    schedule = LinearLogSNRSchedule(129)  # 128 i / (K - 1) is never half way between two timesteps
    for K in range(1, 130):
        assert torch.equal(UniformLogSNR().timesteps(schedule, K), Even().timesteps(schedule, K))


def test_uniform_logsnr_is_the_nearest_timestep():
    schedule, K = CosineSchedule(1000, logsnr_max=8.0), 7
    table = schedule.table().tolist()
    wanted = [table[0] + (table[-1] - table[0]) * i / (K - 1) for i in range(K)]
    nearest = [1 + min(range(1000), key=lambda i: abs(table[i] - w)) for w in wanted]
    assert len(set(nearest)) == K
    assert UniformLogSNR().timesteps(schedule, K).tolist() == nearest


def test_optimal_raises_for_costs_of_another_schedule(random_costs):
    spacing = Optimal(random_costs(10))
    with pytest.raises(ValueError, match=r"measured for 10 timesteps, but the schedule has 20$"):
        spacing.chain(CosineSchedule(20), 3)


# ------------------------------------------------------------------ rounding


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([1, 1, 1], [1, 2, 3]),
        ([9, 9, 9], [7, 8, 9]),
        ([0.2, 9.7], [1, 9]),
        ([1.0, 4.6, 4.7, 5.2, 9.0], [1, 5, 6, 7, 9]),
        ([7.6, 8.4, 8.4, 9.0], [6, 7, 8, 9]),
        ([3.0] * 9, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_collisions_move_up_and_then_down(positions, expected):
    assert rounded(torch.tensor(positions), 9).tolist() == expected


@given(positions=st.lists(st.floats(-5, 105), min_size=1, max_size=40), T=st.integers(1, 100))
def test_any_positions_become_different_timesteps(positions, T):
    assume(len(positions) <= T)
    wanted = torch.tensor(sorted(positions), dtype=torch.float64)
    t = rounded(wanted, T)
    assert (t.diff() > 0).all()
    assert t[0] >= 1
    assert t[-1] <= T
    alone = wanted.round().clamp(1, T).long()
    if (alone.diff() > 0).all():
        assert torch.equal(t, alone)
