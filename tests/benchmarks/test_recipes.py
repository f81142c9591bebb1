"""The table of recipes, against sums done by hand, and the options of each recipe."""

import torch

from benchmarks.recipes import RECIPES, Job, Result, table
from nelbo.runs.run_options import read_overrides


def test_differences_are_paired_by_seed_and_by_image():
    def run(bpd, fd):
        return Result(torch.tensor(bpd), steps=1000, seconds=10.0, fd_pixels=fd)

    found = {
        "a": [run([1.0, 3.0], 5.0), run([2.0, 4.0], 7.0)],
        "b": [run([1.1, 3.3], 4.0), run([2.1, 4.3], 8.0)],
    }
    rows = table(found).splitlines()
    assert rows[2] == "| a | 2.500 ± 0.500 |  | 1000 | 10 | 6.00 ± 1.00 |  |"
    assert (
        rows[3] == "| b | 2.700 ± 0.500 | +0.200 ± 0.000 ± 0.100 | 1000 | 10 | 6.00 ± 2.00 | +0.00 ± 1.00 |"
    )


def test_without_samples_the_table_has_no_frechet_distance():
    found = {"a": [Result(torch.tensor([1.0, 3.0]), 90, 10.0), Result(torch.tensor([2.0, 4.0]), 110, 10.0)]}
    assert table(found).splitlines() == [
        "| recipe | bits/dim | minus a (± seeds, ± images) | steps | seconds |",
        "| --- | --- | --- | --- | --- |",
        "| a | 2.500 ± 0.500 |  | 100 | 10 |",
    ]


def test_recipes_share_network_and_steps(compose):
    default, *others = [compose(*options) for options in RECIPES.values()]
    for config in others:
        assert config.model == default.model
        assert config.trainer == default.trainer
        assert config.optimizer == default.optimizer
        assert config.data == default.data


def test_a_finished_run_is_used_for_its_own_options_only(finished_run):
    options = read_overrides(finished_run.folder)
    assert not Job(finished_run.folder, options).has_other_options()
    assert Job(finished_run.folder, [*options, "model.dropout=0.5"]).has_other_options()
    assert not Job(finished_run.folder / "missing", options).has_other_options()
