"""What the pictures of the documentation are made with: steps within a budget, pixels as they were drawn."""

import base64
import io
import re

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from figures import sampling_quality
from figures.drawing import draw, make_generator, options, read
from figures.measure_sampling import BUDGETS, SAMPLERS, SPACINGS, within_budget
from figures.page import tiles


@pytest.fixture(scope="module")
def checkpoint(finished_run):
    return finished_run.folder / "checkpoints/last.ckpt"


def test_steps_are_as_many_as_the_budget_allows(checkpoint):
    model = read(checkpoint)
    for sampler, chosen in [("ddim", SAMPLERS["ddim"]), ("heun", SAMPLERS["heun"])]:
        generator = within_budget(checkpoint, model, sampler, "even", budget=5, seed=0)
        assert generator.sampler.evaluations(generator.chain) <= 5
        more = options(checkpoint, *chosen, f"sampler.steps={generator.chain.num_steps + 1}", "spacing=even")
        longer = make_generator(more, model)
        assert longer.sampler.evaluations(longer.chain) > 5


def pixels_of(png: bytes) -> torch.Tensor:
    """(C, H, W) uint8."""
    return pil_to_tensor(Image.open(io.BytesIO(png)))


def test_images_are_shown_pixel_by_pixel(checkpoint):
    model = read(checkpoint)
    images = draw(make_generator(options(checkpoint, "sampler.steps=2"), model), model, 3)
    shown = re.findall(r'src="data:image/png;base64,([^"]+)" width="40"', tiles(images, columns=2, size=40))
    assert torch.equal(torch.stack([pixels_of(base64.b64decode(x)) for x in shown]), images)


def test_the_figures_of_the_documentation_are_whole():
    measured, held_out = sampling_quality.read()
    assert len(held_out) == 2
    for sampler in ("ancestral", "ddim", "heun", "dpm_solver_pp"):
        for spacing in SPACINGS:
            of_budget = measured[sampler, spacing]
            assert list(of_budget) == list(BUDGETS)
            for budget, cell in of_budget.items():
                assert len({row["seed"] for row in cell}) == len(cell)
                assert {int(row["evaluations"]) for row in cell} <= set(range(1, budget + 1))
    drawn = sampling_quality.draw(measured, held_out)
    *lines, _ = drawn.data  # the last one is in the legend only
    assert [tuple(trace.y) for trace in lines] == [
        tuple(sampling_quality.mean_and_spread(cell)[0] for cell in of_budget.values())
        for of_budget in measured.values()
    ]
