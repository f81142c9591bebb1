"""Data modules: they declare shape, value range and number of levels, and yield batches."""

from typing import TYPE_CHECKING

from nelbo._lazy import lazy_names
from nelbo.data.base import DataModule
from nelbo.data.batch import Batch
from nelbo.data.record import DataRecord
from nelbo.data.spec import CondSpec, DataSpec

if TYPE_CHECKING:
    from nelbo.data.array import Array
    from nelbo.data.cifar10 import CIFAR10
    from nelbo.data.digits import Digits
    from nelbo.data.fashion_mnist import FashionMNIST
    from nelbo.data.gaussian import Gaussian
    from nelbo.data.gaussian_mixture import GaussianMixture
    from nelbo.data.hf_dataset import HFDataset
    from nelbo.data.image_folder import ImageFolder
    from nelbo.data.mnist import MNIST
    from nelbo.data.patches import Patches

__all__ = [
    "CIFAR10",
    "MNIST",
    "Array",
    "Batch",
    "CondSpec",
    "DataModule",
    "DataRecord",
    "DataSpec",
    "Digits",
    "FashionMNIST",
    "Gaussian",
    "GaussianMixture",
    "HFDataset",
    "ImageFolder",
    "Patches",
]
__getattr__ = lazy_names(
    __name__,
    {
        "Array": "nelbo.data.array",
        "CIFAR10": "nelbo.data.cifar10",
        "Digits": "nelbo.data.digits",
        "FashionMNIST": "nelbo.data.fashion_mnist",
        "Gaussian": "nelbo.data.gaussian",
        "GaussianMixture": "nelbo.data.gaussian_mixture",
        "HFDataset": "nelbo.data.hf_dataset",
        "ImageFolder": "nelbo.data.image_folder",
        "MNIST": "nelbo.data.mnist",
        "Patches": "nelbo.data.patches",
    },
)
