from collections import defaultdict, deque

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from nelbo.diffusion.exact import posterior_variance
from nelbo.diffusion.schedules import LinearLogSNRSchedule
from nelbo.diffusion.timesteps import (
    AdaptiveTimestepSampler,
    EntropyRate,
    Importance,
    Stratified,
    Uniform,
    stratified_uniforms,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def chi_square(counts, p):
    expected = counts.sum() * p
    return ((counts - expected).square() / expected).sum().item()


def trained(num_steps=20, history=3, floor=0.01, seed=0):
    """An importance sampler with a full history of lognormal losses, and their root mean squares."""
    sampler = Importance(num_steps, history, floor)
    losses = torch.randn(history, num_steps, generator=generator(seed), dtype=torch.float64).mul(2).exp()
    for row in losses:
        sampler.update(torch.arange(1, num_steps + 1), row, -row)
    return sampler, losses.square().mean(0).sqrt()


# ------------------------------------------------------------------ every sampler


@given(num_steps=st.integers(1, 50), batch_size=st.integers(1, 50), seed=st.integers(0, 1000))
def test_a_sample_has_a_step_of_the_chain_and_a_weight_per_example(
    make_timesteps, num_steps, batch_size, seed
):
    sampler = make_timesteps(num_steps=num_steps)
    sample = sampler.sample(batch_size, generator(seed))
    assert sample.index.shape == sample.weight.shape == (batch_size,)
    assert sample.index.dtype == torch.int64
    assert sample.weight.dtype == torch.float64
    assert sample.index.min() >= 1
    assert sample.index.max() <= num_steps
    again = sampler.sample(batch_size, generator(seed))
    assert torch.equal(again.index, sample.index)


@pytest.fixture(scope="module")
def draws(make_timesteps):
    """Index and weight (4000,) of independent draws from 20 steps."""
    sampler, g = make_timesteps(num_steps=20), generator()
    drawn = [sampler.sample(1, g) for _ in range(4000)]
    return torch.cat([d.index for d in drawn]), torch.cat([d.weight for d in drawn]).double()


def test_weights_are_inverse_to_the_frequency_of_a_step(draws):
    """E[weight; step i] = 1 / K: so a weighted mean over draws is the mean over steps."""
    index, weight = draws
    n = len(index)
    first, second = (torch.zeros(20).double().index_add(0, index - 1, weight**k) / n for k in (1, 2))
    assert ((first - 1 / 20).abs() < 4.5 * ((second - first**2) / n).sqrt() + 1e-3).all()


def test_steps_of_weight_1_are_equally_likely(draws):
    """Chi-square over independent draws; 52.6 is its 99.99% quantile for 19 degrees of freedom."""
    index, weight = draws
    if not (weight == 1).all():
        pytest.skip("it draws some steps more often, with weights that make up for it")
    statistic = chi_square(index.bincount(minlength=21)[1:].double(), torch.full((20,), 0.05).double())
    assert 3 < statistic < 52.6


def test_the_state_survives_a_checkpoint(make_timesteps):
    first, second = make_timesteps(num_steps=4), make_timesteps(num_steps=4)
    if isinstance(first, AdaptiveTimestepSampler):
        g = generator()
        for _ in range(30):
            index = torch.randint(1, 5, (8,), generator=g)
            first.update(index, index.double() ** 2, index.double())
        second.load_state_dict({key: value.clone() for key, value in first.state_dict().items()})
    for seed in range(3):
        a, b = first.sample(64, generator(seed)), second.sample(64, generator(seed))
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.weight, b.weight)


@pytest.mark.parametrize("cls", [Uniform, Stratified])
def test_uniform_draws_have_weight_1(cls):
    assert cls(7).sample(30, generator()).weight.tolist() == [1.0] * 30


# ------------------------------------------------------------------ stratified


@given(batch_size=st.integers(1, 300), seed=st.integers(0, 10_000))
def test_one_draw_in_every_cell(batch_size, seed):
    u = stratified_uniforms(batch_size, generator(seed))
    assert u.dtype == torch.float64
    assert u.max() < 1
    assert sorted((u * batch_size).long().tolist()) == list(range(batch_size))


def test_a_batch_of_the_size_of_the_chain_sees_every_step_once():
    index = Stratified(64).sample(64, generator()).index
    assert sorted(index.tolist()) == list(range(1, 65))
    assert index.tolist() != sorted(index.tolist())  # examples are not tied to steps


def test_each_stratified_draw_is_uniform():
    """The first row of many batches: 0.0 to 1.0 in 10 bins; 33.7 is the 99.99% quantile."""
    g = generator()
    first = torch.stack([stratified_uniforms(7, g)[0] for _ in range(5000)])
    statistic = chi_square(torch.histc(first, 10, 0, 1).double(), torch.full((10,), 0.1).double())
    assert 0.5 < statistic < 33.7


# ------------------------------------------------------------------ importance


@pytest.mark.parametrize("floor", [0.01, 0.3, 1.0])
def test_probabilities_are_the_root_mean_squares_over_a_floor(floor):
    sampler, size = trained(floor=floor)
    p = sampler.probabilities
    torch.testing.assert_close(p, (1 - floor) * size / size.sum() + floor / 20, rtol=1e-12, atol=0)
    assert p.sum().item() == pytest.approx(1, abs=1e-14)
    assert p.min() >= floor / 20


@given(batch_size=st.integers(1, 400), seed=st.integers(0, 1000))
def test_counts_of_a_batch_are_proportional_to_the_probabilities(batch_size, seed):
    """Stratified draws of a step differ from batch size * p by less than one."""
    sampler, _ = trained(seed=seed % 5)
    index = sampler.sample(batch_size, generator(seed)).index
    counts = index.bincount(minlength=21)[1:].double()
    assert ((counts - batch_size * sampler.probabilities).abs() < 1 + 1e-9).all()


def test_weighted_means_are_unbiased():
    """The expectation of weight * f is sum p w f; with p and w as drawn it is the plain mean of f."""
    sampler, _ = trained()
    sample = sampler.sample(200_000, generator())
    weight = torch.zeros(20, dtype=torch.float64).index_put_((sample.index - 1,), sample.weight)
    f = torch.linspace(1, 5, 20, dtype=torch.float64) ** 3
    assert (sampler.probabilities * weight * f).sum().item() == pytest.approx(f.mean().item(), rel=1e-12)
    # and from the draws themselves, of which each step has its share but for one
    error = (sample.weight * f[sample.index - 1]).mean() - f.mean()
    assert error.abs() <= (weight * f).sum() / 200_000


@pytest.mark.parametrize("floor", [0.01, 0.2])
def test_weights_are_bounded_by_the_floor(floor):
    sampler, history = Importance(5, 1, floor), torch.tensor([1e12, 1.0, 1.0, 0.0, 1.0])
    sampler.update(torch.arange(1, 6), history, history)
    sample = sampler.sample(10_000, generator())
    assert set(sample.index.tolist()) == {1, 2, 3, 4, 5}
    assert sample.weight.max() <= 1 / floor * (1 + 1e-9)
    assert sample.weight.max().item() == pytest.approx(1 / floor, rel=1e-6)


def test_draws_are_uniform_until_every_step_has_its_history():
    sampler = Importance(3, history=2)
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    for index in (1, 1, 1, 2, 3, 3):
        sampler.update(torch.tensor([index]), torch.tensor([float(index)]), torch.zeros(1))
        assert torch.equal(sampler.probabilities, uniform)
        assert sampler.sample(9, generator()).weight.tolist() == pytest.approx([1.0] * 9)
    sampler.update(torch.tensor([2]), torch.tensor([2.0]), torch.zeros(1))
    expected = 0.99 * torch.tensor([1.0, 2.0, 3.0]).double() / 6 + 0.01 / 3
    torch.testing.assert_close(sampler.probabilities, expected)


def test_losses_of_zero_leave_the_draws_uniform():
    sampler = Importance(3, history=1)
    sampler.update(torch.tensor([1, 2, 3]), torch.zeros(3), torch.ones(3))
    assert sampler.probabilities.tolist() == pytest.approx([1 / 3] * 3)


BATCHES = st.lists(st.lists(st.tuples(st.integers(1, 4), st.floats(0.125, 8.0)), max_size=12), max_size=8)


@given(batches=BATCHES, history=st.integers(1, 4))
def test_the_history_holds_the_last_losses_of_every_step(batches, history):
    """Against a queue per step, with steps that occur many times in one batch."""
    sampler, queues = Importance(4, history), defaultdict(lambda: deque(maxlen=history))
    for batch in batches:
        index, loss = [pair[0] for pair in batch], [pair[1] for pair in batch]
        losses = torch.tensor(loss, dtype=torch.float64)
        sampler.update(torch.tensor(index, dtype=torch.int64), losses, torch.zeros_like(losses))
        for step, value in batch:
            queues[step].append(value)
        size = torch.full((4,), 1.0, dtype=torch.float64)
        if all(len(queues[step]) == history for step in range(1, 5)):
            squares = [[value**2 for value in queues[step]] for step in range(1, 5)]
            size = torch.tensor(squares, dtype=torch.float64).mean(1).sqrt()
        expected = 0.99 * size / size.sum() + 0.01 / 4
        torch.testing.assert_close(sampler.probabilities, expected, rtol=1e-12, atol=0)


def test_load_state_dict_continues_the_run():
    """Also in the middle of the ring."""
    first, _ = trained(num_steps=4)
    first.update(torch.tensor([2, 2]), torch.tensor([5.0, 6.0]), torch.zeros(2))
    second = Importance(4, 3)
    second.load_state_dict(first.state_dict())
    for sampler in (first, second):
        sampler.update(torch.tensor([2, 4]), torch.tensor([7.0, 9.0]), torch.zeros(2))
    assert torch.equal(first.probabilities, second.probabilities)


def test_state_dict_is_a_copy():
    sampler, _ = trained(num_steps=4)
    state = sampler.state_dict()
    before = {key: value.clone() for key, value in state.items()}
    sampler.update(torch.tensor([1]), torch.tensor([100.0]), torch.zeros(1))
    assert all(torch.equal(state[key], before[key]) for key in state)


def test_a_history_of_another_shape_raises():
    with pytest.raises(ValueError, match=r"shape \(4, 3\) .* this run's is \(5, 3\)"):
        Importance(5, 3).load_state_dict(Importance(4, 3).state_dict())


@pytest.mark.parametrize(("arguments", "named"), [({"history": 0}, "history=0"), ({"floor": 0.0}, "floor=0")])
def test_arguments_out_of_range_are_named(arguments, named):
    with pytest.raises(ValueError, match=rf"timesteps\.{named}"):
        Importance(5, **arguments)


# ------------------------------------------------------------------ entropy rate


def test_entropy_rate_draws_in_proportion_to_the_mean_terms_of_the_bound():
    sampler = EntropyRate(3, history=2)
    for bound in ([1.0, -5.0, 3.0], [3.0, -3.0, 5.0]):
        sampler.update(torch.arange(1, 4), torch.tensor([7.0, 1.0, 1.0]), torch.tensor(bound))
    expected = 0.99 * torch.tensor([2.0, 4.0, 4.0]).double() / 10 + 0.01 / 3
    torch.testing.assert_close(sampler.probabilities, expected)


def test_entropy_rate_of_gaussian_data_is_uniform_in_the_conditional_entropy():
    """H(x_0 | x_t) = log(2 pi e Var(x_0 | x_t)) / 2 for every dimension."""
    schedule, std = LinearLogSNRSchedule(None, logsnr_max=6.0, logsnr_min=-5.0), 0.7
    u = torch.linspace(0.0, 1.0, 41, dtype=torch.float64)
    entropy = 0.5 * posterior_variance(schedule.level(u), std).log()
    middle = schedule.point(0.5 * (u[:-1] + u[1:]))
    terms = 0.5 * middle.rate * middle.level.snr * posterior_variance(middle.level, std) / 40
    sampler = EntropyRate(40, history=1, floor=1e-9)
    sampler.update(torch.arange(1, 41), torch.ones(40), terms)
    share = entropy.diff() / (entropy[-1] - entropy[0])
    torch.testing.assert_close(sampler.probabilities, share, rtol=5e-3, atol=0)
