"""docs/images/samples.png: samples of a model with 50 steps of DDIM.

    python -m figures.samples --checkpoint outputs/.../checkpoints/last.ckpt

The samples are those of python sample.py checkpoint=... sampler=ddim sampler.steps=50.
"""

from figures.drawing import checkpoint_of_the_command_line, draw, make_generator, options, read
from figures.page import page, save, tiles

COLUMNS, ROWS, SIZE = 16, 5, 50


def main() -> None:
    checkpoint = checkpoint_of_the_command_line(__doc__)
    model = read(checkpoint)
    generator = make_generator(options(checkpoint, "sampler=ddim", "sampler.steps=50"), model)
    images = draw(generator, model, COLUMNS * ROWS)
    save(page(tiles(images, COLUMNS, SIZE)), "samples.png")


if __name__ == "__main__":
    main()
