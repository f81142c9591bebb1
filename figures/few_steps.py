"""docs/images/few_steps.png: samples at few network evaluations, by sampler, from the same noise.

python -m figures.few_steps --checkpoint outputs/.../checkpoints/last.ckpt
"""

import argparse
from pathlib import Path

from figures.drawing import draw, read
from figures.measure_sampling import SAMPLERS, within_budget
from figures.page import page, save, tiles

BUDGETS = (3, 5, 10, 50)
SPACING = "trailing"
COLUMNS, ROWS, SIZE = 6, 2, 28


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, type=Path)
    arguments = parser.parse_args()
    model = read(arguments.checkpoint)
    rows = []
    for sampler in SAMPLERS:
        cells = []
        for budget in BUDGETS:
            drawer = within_budget(arguments.checkpoint, model, sampler, SPACING, budget, seed=0)
            images = draw(drawer, model, COLUMNS * ROWS)
            cells.append(f"<td>{tiles(images, COLUMNS, SIZE)}</td>")
        rows.append(f'<tr><th scope="row">{"<br>".join(sampler.split())}</th>{"".join(cells)}</tr>')
    heads = "<th></th>" + "".join(f"<th>{budget} network evaluations</th>" for budget in BUDGETS)
    head, body = f"<thead><tr>{heads}</tr></thead>", f"<tbody>{''.join(rows)}</tbody>"
    save(page(f'<table class="images">{head}{body}</table>'), "few_steps.png")


if __name__ == "__main__":
    main()
