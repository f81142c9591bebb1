"""Measure a trained model's bound: python evaluate.py checkpoint=outputs/.../checkpoints/last.ckpt."""

from nelbo.app.command import run
from nelbo.app.evaluate import evaluate

if __name__ == "__main__":
    run("evaluate", evaluate)
