"""The table of recipes, against sums done by hand, and the options of each recipe."""

import torch

from benchmarks.recipes import RECIPES, Result, table


def test_differences_are_paired_by_seed_and_by_image():
    def run(bpd, fd):
        return Result(torch.tensor(bpd), fd, seconds=10.0)

    found = {
        "a": [run([1.0, 3.0], 5.0), run([2.0, 4.0], 7.0)],
        "b": [run([1.1, 3.3], 4.0), run([2.1, 4.3], 8.0)],
    }
    rows = table(found).splitlines()
    assert rows[2] == "| a | 2.500 ± 0.500 |  | 6.00 ± 1.00 |  | 10 |"
    assert rows[3] == "| b | 2.700 ± 0.500 | +0.200 ± 0.000 ± 0.100 | 6.00 ± 2.00 | +0.00 ± 1.00 | 10 |"


def test_recipes_share_network_and_steps(compose):
    default, *others = [compose(*options) for options in RECIPES.values()]
    for config in others:
        assert config.model == default.model
        assert config.trainer == default.trainer
        assert config.optimizer == default.optimizer
        assert config.data == default.data
