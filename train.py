"""Train a diffusion model: python train.py schedule=cosine loss=vlb."""

from nelbo.cli.command import run
from nelbo.cli.train import train

if __name__ == "__main__":
    run("train", train)
