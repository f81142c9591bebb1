"""Train a diffusion model: python train.py schedule=cosine loss=vlb."""

from nelbo.app.command import run
from nelbo.app.train import train

if __name__ == "__main__":
    run("train", train)
