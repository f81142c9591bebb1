"""docs/images/guidance.png: samples of every class for several guidance scales, from the same noise.

python train.py conditional=true cond_dropout=0.1
python -m figures.guidance --checkpoint outputs/.../checkpoints/last.ckpt
"""

from figures.drawing import checkpoint_of_the_command_line, draw, make_generator, options, read
from figures.page import page, save, tiles

WEIGHTS = {0: "no class", 1: "the class alone", 3: "guided"}
ROWS, SIZE = 3, 46


def main() -> None:
    checkpoint = checkpoint_of_the_command_line(__doc__)
    model = read(checkpoint)
    classes = model.spec.num_classes
    assert classes is not None, "the data has no classes"
    rows = []
    for weight, name in WEIGHTS.items():
        generator = make_generator(options(checkpoint, f"guidance={weight}", f"n={classes * ROWS}"), model)
        images = draw(generator, model, classes * ROWS)  # the classes in turn
        head = f'<th scope="row">guidance={weight}<br><span class="quiet">{name}</span></th>'
        rows.append(f"<tr>{head}<td>{tiles(images, classes, SIZE)}</td></tr>")
    numbers = "".join(f'<span style="text-align: center">{label}</span>' for label in range(classes))
    head = f'<div class="tiles" style="grid-template-columns: repeat({classes}, {SIZE}px)">{numbers}</div>'
    table = (
        f'<table class="images"><thead><tr><th>label</th><th>{head}</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    save(page(table), "guidance.png")


if __name__ == "__main__":
    main()
