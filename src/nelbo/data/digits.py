"""The handwritten digits of scikit-learn, without a download."""

import torch
from sklearn.datasets import load_digits

from nelbo.data.base import DataModule, SplitName
from nelbo.data.examples import Examples, TensorExamples
from nelbo.data.spec import DataSpec
from nelbo.data.split import stratified_parts


class Digits(DataModule):
    """1797 grey images of 8x8, 17 levels, 10 classes: 1437 / 180 / 180."""

    @property
    def spec(self) -> DataSpec:
        """8x8 images of 17 levels."""
        return DataSpec((1, 8, 8), levels=17, num_classes=10, class_names=tuple("0123456789"))

    def read_split(self, name: SplitName) -> Examples:
        """Of every ten of a class, one goes to validation, one to test and eight to training."""
        pixels, digit = load_digits(return_X_y=True)
        label = torch.from_numpy(digit).long()
        val, test, *train = stratified_parts(label, parts=10)
        chosen = {"train": torch.cat(train), "val": val, "test": test}[name]
        x = torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 8, 8)
        return TensorExamples(x[chosen], label[chosen])
