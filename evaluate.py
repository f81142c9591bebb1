"""Measure a trained model's bound: python evaluate.py checkpoint=outputs/.../checkpoints/last.ckpt."""

from nelbo.cli.command import run
from nelbo.cli.evaluate import evaluate

if __name__ == "__main__":
    run("evaluate", evaluate)
