"""The Inception network of the published FID (Heusel et al. 2017), from torch-fidelity."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from nelbo.data.spec import DataSpec
from nelbo.evaluation.fingerprint import fingerprint
from nelbo.evaluation.sample_metrics.features.base import Features, MetricNames, to_uint8

LAYER = "2048"


class Inception(Features):
    """The 2048 features before the last layer. Images are resized to 299x299 as in TensorFlow 1.

    Args:
        weights_path: file of the weights published by torch-fidelity; None downloads it on first use into
            $TORCH_HOME/hub/checkpoints.

    Raises:
        ValueError: for a file without these weights.
        OSError: if the download fails.
    """

    def __init__(self, weights_path: str | None = None) -> None:
        self.names = MetricNames(frechet="fid", kernel="kid", precision="precision", recall="recall")
        self._network = _load(weights_path)
        self.key = f"inception {LAYER} {fingerprint(self._network.state_dict())}"

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """(B, 2048) float32; grey images are repeated to three channels."""
        return self._network.to(x.device)(to_uint8(x).expand(-1, 3, -1, -1))[0]

    def dims(self, spec: DataSpec) -> int:
        """F = 2048.

        Raises:
            ValueError: for anything but grey and RGB images with a range.
        """
        if not spec.is_image or spec.shape[0] not in (1, 3) or spec.range is None:
            kind = "continuous data" if spec.range is None else "data"
            raise ValueError(
                f"features=inception is for grey and RGB images of levels, and this is {kind} of shape "
                f"{spec.shape}: use features=pixels"
            )
        return int(LAYER)


def _load(weights_path: str | None) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if weights_path is not None:
        _check_weights_file(weights_path)
    try:
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", [LAYER], feature_extractor_weights_path=weights_path, verbose=False
        )
    except OSError as error:
        raise OSError(
            f"features=inception: its weights cannot be downloaded ({error}): set features.weights_path to a "
            "file with them, or use features=pixels"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"{weights_path} does not hold the weights of torch-fidelity's Inception") from error


def _check_weights_file(weights_path: str) -> None:
    """Check that the file holds tensors only, before the library unpickles it."""
    if not Path(weights_path).is_file():
        raise ValueError(f"features.weights_path={weights_path}: there is no such file")
    try:
        torch.load(weights_path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{weights_path} is damaged, or not a file of weights") from error
