"""Train a diffusion model: python train.py schedule=cosine loss=vlb."""

from nelbo.cli.entry import start

if __name__ == "__main__":
    start("train")
