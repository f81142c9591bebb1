import itertools
import math

import hypothesis.strategies as st
import mpmath
import pytest
import torch
from hypothesis import given, settings

from nelbo.diffusion.contracts import check_schedule
from nelbo.diffusion.schedules import (
    CosineSchedule,
    CurvePoint,
    LinearLogSNRSchedule,
    LinearSchedule,
    SigmoidSchedule,
    half_bin_logsnr,
)

SCHEDULES = {
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
    "sigmoid": SigmoidSchedule,
    "linear_logsnr": LinearLogSNRSchedule,
}


# ------------------------------------------------------------------ as published


SHORT = [(name, T) for name in ("cosine", "sigmoid", "linear_logsnr") for T in (1, 2)]


@pytest.mark.parametrize(("name", "T"), [*itertools.product(SCHEDULES, [21, 100, 1000, 4000]), *SHORT])
def test_levels_are_the_published_betas(name, T, textbook_betas):
    expected, alpha_bar = [], mpmath.mpf(1)
    for beta in textbook_betas(name, T):
        alpha_bar *= 1 - beta
        expected.append(float(mpmath.log(alpha_bar / (1 - alpha_bar))))
    table = SCHEDULES[name](T, logsnr_max="paper").table()
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


def test_the_clip_of_the_cosine_schedule_moves_only_the_last_level():
    table = CosineSchedule(100, logsnr_max="paper").table()
    clipped_harder = CosineSchedule(100, max_beta=0.99, logsnr_max="paper").table()
    assert torch.equal(table[:-1], clipped_harder[:-1])
    alpha_bar = table.sigmoid()
    assert alpha_bar[-1] / alpha_bar[-2] == pytest.approx(0.001, rel=1e-12)
    assert clipped_harder.sigmoid()[-1] / alpha_bar[-2] == pytest.approx(0.01, rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 0.0009, 0.008, 0.0098, 0.011, 0.1, 1.0])
def test_the_last_level_of_the_cosine_schedule_is_that_of_the_clip_for_every_offset(offset):
    """Rounding may put the curve's end past the zero of the cosine."""
    table = CosineSchedule(30, offset=offset, max_beta=0.9, logsnr_max="paper").table()
    alpha_bar = table.sigmoid()
    assert (alpha_bar[-1] / alpha_bar[-2]).item() == pytest.approx(0.1, rel=1e-9)


def test_the_noisiest_level_of_the_sigmoid_schedule_is_its_floor():
    table = SigmoidSchedule(100, min_alpha_bar=1e-5, logsnr_max="paper").table()
    assert table[-1].sigmoid().item() == pytest.approx(1e-5, rel=1e-12)
    assert table[-2].sigmoid() > 1e-5


# ------------------------------------------------------------------ every schedule


@pytest.mark.parametrize("T", [21, 50, 1000])
def test_a_schedule_gets_noisier_at_every_step(make_schedule, T):
    schedule = make_schedule(num_steps=T)
    assert schedule.table().shape == (T,)
    check_schedule(schedule)


def test_a_schedule_in_continuous_time_gets_noisier_at_its_rate(make_continuous):
    check_schedule(make_continuous())


class WrongRate(CosineSchedule):
    def point(self, u):
        point = super().point(u)
        return CurvePoint(point.level, 2.0 * point.rate)


def test_a_wrong_schedule_fails_its_check():
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        check_schedule(WrongRate(None))
    schedule = CosineSchedule(30)
    schedule._tables[torch.device("cpu")] = schedule.table().flip(0)
    with pytest.raises(AssertionError, match="does not decrease"):
        check_schedule(schedule)


def test_a_level_is_a_row_of_the_table(make_schedule):
    schedule = make_schedule(num_steps=30)
    t = torch.tensor([30, 1, 7])
    level = schedule.level(t)
    assert level.t is t
    assert torch.equal(level.logsnr, schedule.table()[t - 1])
    assert schedule.level(torch.tensor(7)).logsnr.shape == ()


def test_the_curve_is_continuous_and_decreasing(make_schedule):
    """Truncation samples it between timesteps."""
    schedule = make_schedule(num_steps=50, logsnr_max="paper")
    curve = schedule.logsnr(torch.linspace(0.02, 1.0, 20_001, dtype=torch.float64))
    assert (curve.diff() <= 0).all()
    assert curve[0] == pytest.approx(schedule.table()[0].item(), abs=1e-9)
    assert curve[-1] == pytest.approx(schedule.table()[-1].item(), abs=1e-9)


@settings(max_examples=50)
@given(high=st.floats(-1.0, 9.0), width=st.floats(0.5, 2.0), T=st.integers(2, 200))
@pytest.mark.parametrize("name", SCHEDULES)
def test_numeric_ends_are_the_ends_of_the_chain(name, high, width, T):
    low = high - width
    table = SCHEDULES[name](max(T, 21), logsnr_max=high, logsnr_min=low).table()
    assert table[0].item() == pytest.approx(high, abs=1e-9)
    assert table[-1].item() == pytest.approx(low, abs=1e-9)
    assert (table.diff() < 0).all()


def test_a_truncated_chain_lies_on_the_published_curve():
    """Truncation moves the ends and keeps the curve; nothing is clamped."""
    published, truncated = (CosineSchedule(1000, logsnr_max=end) for end in ("paper", 5.0))
    u = torch.linspace(published.position(5.0), 1.0, 1000, dtype=torch.float64)
    torch.testing.assert_close(truncated.table(), published.logsnr(u))


@pytest.mark.parametrize("name", ["cosine", "sigmoid", "linear_logsnr"])
def test_a_single_step_starts_from_the_noisy_end(name):
    published = SCHEDULES[name](1, logsnr_max="paper").table()
    assert torch.equal(SCHEDULES[name](1, half_bin=1 / 16).table(), published)
    truncated = SCHEDULES[name](1, logsnr_max=5.0, logsnr_min=-2.0).table()
    assert truncated.tolist() == pytest.approx([-2.0], abs=1e-9)


def test_the_position_of_a_level_is_the_inverse_of_the_curve(make_schedule):
    schedule = make_schedule(num_steps=50)
    for logsnr in schedule.table()[[12, 25, 37]].tolist():
        u = torch.tensor(schedule.position(logsnr), dtype=torch.float64)
        assert schedule.logsnr(u).item() == pytest.approx(logsnr, abs=1e-6)


# ------------------------------------------------------------------ logsnr_max=auto


def test_auto_starts_at_half_a_bin_for_few_levels():
    """17 levels: below half a bin, 1/16, there is nothing left to denoise."""
    table = CosineSchedule(1000, half_bin=1 / 16).table()
    assert half_bin_logsnr(1 / 16) == pytest.approx(2 * math.log(16))
    assert table[0].item() == pytest.approx(5.545, abs=5e-4)
    assert table[-1] == CosineSchedule(1000, logsnr_max="paper").table()[-1]


@pytest.mark.parametrize("T", [1000, 4000])
@pytest.mark.parametrize("cls", [LinearSchedule, CosineSchedule])
def test_auto_keeps_published_schedules_on_8_bit_images(cls, T):
    assert torch.equal(cls(T, half_bin=1 / 255).table(), cls(T, logsnr_max="paper").table())


def test_a_schedule_that_starts_much_cleaner_than_8_bits_is_truncated():
    table = LinearLogSNRSchedule(1000, half_bin=1 / 255).table()
    assert table[0].item() == pytest.approx(2 * math.log(255), abs=1e-9)


def test_auto_keeps_published_schedules_on_continuous_data(make_schedule):
    published = make_schedule(num_steps=100, logsnr_max="paper").table()
    assert torch.equal(make_schedule(num_steps=100, half_bin=None).table(), published)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("T", [1, 10, 20])
def test_the_linear_schedule_needs_more_than_20_steps(T):
    """Its betas are multiplied by 1000 / T, and the last one would be 1 or more."""
    with pytest.raises(ValueError, match=rf"schedule=linear with num_steps={T} .* use more than 20 steps"):
        LinearSchedule(T)


def test_the_linear_schedule_has_21_steps():
    assert LinearSchedule(21).table().isfinite().all()


def test_num_steps_below_1_raises(make_schedule):
    with pytest.raises(ValueError, match="num_steps=0"):
        make_schedule(num_steps=0)


@pytest.mark.parametrize("end", ["logsnr_max", "logsnr_min"])
def test_invalid_ends_raise(make_schedule, end):
    with pytest.raises(ValueError, match=rf"schedule\.{end}=clean: expected a number or"):
        make_schedule(num_steps=50, **{end: "clean"})
    with pytest.raises(ValueError, match=r"nan|is not a chain"):
        make_schedule(num_steps=50, **{end: math.nan})


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("ends", [{"logsnr_max": 40.0}, {"logsnr_min": -30.0}])
def test_ends_off_the_curve_raise(name, ends):
    with pytest.raises(
        ValueError, match=r"^schedule\.logsnr_m\w+: .* is not on the curve of \w+, which runs from"
    ):
        SCHEDULES[name](50, **ends)


@pytest.mark.parametrize("ends", [(-2.0, 2.0), (1.0, 1.0), (math.inf, 0.0)])
def test_ends_in_the_wrong_order_raise(make_schedule, ends):
    with pytest.raises(ValueError, match=r"logsnr|is not a chain"):
        make_schedule(num_steps=50, logsnr_max=ends[0], logsnr_min=ends[1])


@pytest.mark.parametrize(
    ("cls", "arguments", "named"),
    [
        (LinearSchedule, {"beta_first": 0.0}, "beta_first=0"),
        (LinearSchedule, {"beta_first": 0.03}, "in order"),
        (CosineSchedule, {"offset": -0.1}, "offset"),
        (CosineSchedule, {"max_beta": 1.0}, "max_beta"),
        (SigmoidSchedule, {"start": 3.0}, "start < end"),
        (SigmoidSchedule, {"tau": 0.0}, "tau"),
        (SigmoidSchedule, {"min_alpha_bar": 0.0}, "min_alpha_bar"),
    ],
)
def test_arguments_out_of_range_are_named(cls, arguments, named):
    with pytest.raises(ValueError, match=named):
        cls(50, **arguments)
