"""Fashion-MNIST (Xiao et al. 2017)."""

import torchvision

from nelbo.data.mnist import MNIST


class FashionMNIST(MNIST):
    """70,000 grey images of 28x28, 256 levels, 10 classes: 55,000 / 5,000 / 10,000.

    Arguments and splits are those of ``MNIST``; the folder is ``FashionMNIST/raw/``.
    """

    source = torchvision.datasets.FashionMNIST
    class_names = tuple(torchvision.datasets.FashionMNIST.classes)
