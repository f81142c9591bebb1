"""The share of the bound at levels below half a bin of the data, and the warning about a large share."""

import pytest
import torch

from nelbo.evaluation.accumulator import BoundAccumulator, Draws
from nelbo.evaluation.t_bins import share_below_half_bin


def accumulator_of_ones(K) -> BoundAccumulator:
    """Every term is one nat; two examples, each drawn at every step."""
    accumulator, ones = BoundAccumulator(K), torch.ones(2, K)
    accumulator.add(Draws(torch.arange(1, K + 1).expand(2, -1), ones, ones, torch.zeros(2)))
    return accumulator


@pytest.mark.parametrize("schedule", ["cosine", "linear_logsnr", "sigmoid"])
def test_the_share_is_that_of_the_levels_below_half_a_bin(schedule, tiny_run):
    run = tiny_run(f"schedule={schedule}", "schedule.num_steps=1000", "schedule.logsnr_max=paper")
    chain, accumulator = run.module.bound.chain, accumulator_of_ones(1000)
    share = share_below_half_bin(chain, accumulator.contributions(), accumulator.estimate().total.mean)
    logsnr = chain.level(torch.arange(1, 1001)).logsnr
    # noise_scale / signal_scale below half a bin, 1/16 of the range from -1 to 1
    clean = (torch.exp(-0.5 * logsnr) < 1 / 16).sum()
    assert clean > 10
    assert share == pytest.approx(float(clean) / 1000, rel=1e-9)


@pytest.mark.parametrize("overrides", [[], ["data=gaussian", "model=mlp"]], ids=["auto", "continuous"])
def test_the_share_is_0_for_a_late_start_or_continuous_data(overrides, tiny_run):
    run = tiny_run(*overrides)
    contribution = accumulator_of_ones(1000).contributions()
    assert share_below_half_bin(run.module.bound.chain, contribution, 1000.0) == 0.0


def test_there_is_one_warning_about_a_large_share(tiny_run):
    run = tiny_run("schedule=linear_logsnr", "schedule.logsnr_max=paper")
    with pytest.warns(UserWarning, match="start the chain later with schedule.logsnr_max=auto") as warned:
        run.fit()
    assert sum("logsnr_max=auto" in str(warning.message) for warning in warned) == 1


def test_the_warning_names_an_option_of_a_learned_schedule(tiny_run):
    run = tiny_run(
        "objective=vlb", "variance=fixed_large", "schedule=learned_ends", "schedule.initial_max=13.3"
    )
    with pytest.warns(UserWarning, match=r"start the chain later with a lower schedule\.initial_max"):
        run.trainer.validate(run.module, datamodule=run.data, verbose=False)


@pytest.mark.parametrize(
    "options", [[], ["schedule.logsnr_max=paper", "decoder=softmax"]], ids=["a small share", "softmax"]
)
def test_there_is_no_warning_where_nothing_is_lost(options, tiny_run, recwarn):
    tiny_run("schedule=linear_logsnr", *options).fit()
    assert not [warning for warning in recwarn if "logsnr_max" in str(warning.message)]
