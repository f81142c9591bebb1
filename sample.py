"""Draw samples of a trained model: python sample.py checkpoint=outputs/.../checkpoints/last.ckpt n=64."""

from nelbo.cli.command import run
from nelbo.cli.sample import sample

if __name__ == "__main__":
    run("sample", sample)
