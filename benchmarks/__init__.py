"""Speed measurements, run from the root of the repository: python -m benchmarks.train_step --help."""

import nelbo as nelbo  # before lightning and diffusers, which import torchvision: see nelbo._torchvision
