"""Features of a user's network."""

import hashlib
import importlib
import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from nelbo.data.spec import DataSpec
from nelbo.evaluation.fingerprint import fingerprint
from nelbo.evaluation.sample_metrics.features.base import Features, MetricNames, to_uint8


class TorchModule(Features):
    """The output of a network, flattened; the first output if there are several.

    Args:
        path: a TorchScript file, or the dotted path of an ``nn.Module`` without constructor arguments.
        weights_path: file of the state dict of such a module; None for its initial weights.
        name: in the names of the metrics, such as ``fd_<name>``.
        pixels: whether the network receives uint8 images in 0..255; otherwise float32 values, in [-1, 1] for
            quantised data.

    Raises:
        ValueError: for a network that cannot be loaded, or weights that do not fit.
    """

    def __init__(
        self, path: str | None, weights_path: str | None = None, name: str = "module", pixels: bool = False
    ) -> None:
        if path is None:
            raise ValueError(
                "features=module: which one? features.path=network.pt, or features.path=package.Network"
            )
        self.names = MetricNames.of(name)
        self.pixels = pixels
        if Path(path).is_file():
            self._network = _script(path)
            digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()
        else:
            self._network = _imported(path, weights_path)
            digest = fingerprint(self._network.state_dict())
        self.key = f"{name} {path} {digest} {'pixels' if pixels else 'values'}"

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Features (B, F) float32.

        Raises:
            ValueError: for examples that the network does not accept.
        """
        try:
            output = self._network.to(x.device)(to_uint8(x) if self.pixels else x)
        except RuntimeError as error:
            raise ValueError(
                f"features=module: the network cannot take examples of shape {tuple(x.shape[1:])} ({error}); "
                "use one that does, or features=pixels"
            ) from error
        first = output[0] if isinstance(output, tuple | list) else output
        return first.flatten(1).float()

    def dims(self, spec: DataSpec) -> int:
        """F, found by evaluating one example of zeros.

        Raises:
            ValueError: for examples that the network does not accept, or ``pixels`` with data without a
                range.
        """
        if self.pixels and spec.range is None:
            raise ValueError("features.pixels=true needs data with levels, and this is continuous data")
        return super().dims(spec)


def _script(path: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return torch.jit.load(path, map_location="cpu").eval()
        except RuntimeError as error:
            raise ValueError(f"features.path={path} is no TorchScript file") from error


def _imported(path: str, weights_path: str | None) -> nn.Module:
    package, _, name = path.rpartition(".")
    try:
        network = getattr(importlib.import_module(package), name)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"features.path={path} is neither a file nor a network that can be imported and made without "
            f"arguments ({error})"
        ) from error
    if weights_path is not None:
        try:
            network.load_state_dict(torch.load(weights_path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{weights_path} does not hold the weights of {path} ({error})") from error
    return network.eval().requires_grad_(False)
