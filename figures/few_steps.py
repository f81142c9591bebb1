"""docs/images/few_steps.png: samples with few network evaluations, by sampler, from the same noise.

python -m figures.few_steps --checkpoint outputs/.../checkpoints/last.ckpt
"""

from figures.drawing import checkpoint_of_the_command_line, draw, read
from figures.measure_sampling import SAMPLERS, within_budget
from figures.page import page, save, tiles

BUDGETS = (3, 5, 10, 50)
SPACING = "trailing"
COLUMNS, ROWS, SIZE = 6, 2, 28


def main() -> None:
    checkpoint = checkpoint_of_the_command_line(__doc__)
    model = read(checkpoint)
    rows = []
    for sampler in SAMPLERS:
        cells = []
        for budget in BUDGETS:
            generator = within_budget(checkpoint, model, sampler, SPACING, budget, seed=0)
            images = draw(generator, model, COLUMNS * ROWS)
            cells.append(f"<td>{tiles(images, COLUMNS, SIZE)}</td>")
        rows.append(f'<tr><th scope="row">{"<br>".join(sampler.split())}</th>{"".join(cells)}</tr>')
    heads = "<th></th>" + "".join(f"<th>{budget} network evaluations</th>" for budget in BUDGETS)
    head, body = f"<thead><tr>{heads}</tr></thead>", f"<tbody>{''.join(rows)}</tbody>"
    save(page(f'<table class="images">{head}{body}</table>'), "few_steps.png")


if __name__ == "__main__":
    main()
