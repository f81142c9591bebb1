"""docs/images/samples.png: samples of a model in 50 steps of DDIM.

    python -m figures.samples --checkpoint outputs/.../checkpoints/last.ckpt

The same as python sample.py checkpoint=... sampler=ddim sampler.steps=50, in one picture.
"""

import argparse
from pathlib import Path

from figures.drawing import draw, make_drawer, options, read
from figures.page import page, save, tiles

COLUMNS, ROWS, SIZE = 16, 5, 50


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, type=Path)
    arguments = parser.parse_args()
    model = read(arguments.checkpoint)
    drawer = make_drawer(options(arguments.checkpoint, "sampler=ddim", "sampler.steps=50"), model)
    images = draw(drawer, model, COLUMNS * ROWS)
    save(page(tiles(images, COLUMNS, SIZE)), "samples.png")


if __name__ == "__main__":
    main()
