"""Draw samples of a trained model: python sample.py checkpoint=outputs/.../checkpoints/last.ckpt n=64."""

from nelbo.cli.entry import start

if __name__ == "__main__":
    start("sample")
