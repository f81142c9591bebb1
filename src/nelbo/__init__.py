"""nelbo: train diffusion models and measure their negative evidence lower bound.

Importing the package is cheap: it imports neither torch nor Lightning.
"""

from nelbo import _torchvision

__version__ = "0.1.0"

_torchvision.install()
