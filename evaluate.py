"""Measure a trained model's bound: python evaluate.py checkpoint=outputs/.../checkpoints/last.ckpt."""

from nelbo.cli.entry import start

if __name__ == "__main__":
    start("evaluate")
