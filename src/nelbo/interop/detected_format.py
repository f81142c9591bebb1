"""A format that is detected from the file."""

from pathlib import Path

from nelbo import torch_file
from nelbo.interop.diffusers.folder import Folder
from nelbo.interop.diffusers.hub import is_name
from nelbo.interop.formats.base import CheckpointFormat, Weights
from nelbo.interop.formats.diffusers import DiffusersFormat
from nelbo.interop.formats.improved_diffusion import FIRST_LAYER, ImprovedDiffusionFormat
from nelbo.interop.formats.nelbo import NelboFormat
from nelbo.interop.state_dict import without_wrappers


class DetectedFormat(CheckpointFormat):
    """A checkpoint of nelbo, a folder or hub id of diffusers, or weights of improved-diffusion.

    Weights of guided-diffusion look like the latter, and need their own format with the flags of training.
    """

    def content(self, path: Path) -> object:
        """The content of the file or folder; a valid name without a file is downloaded from the hub.

        Raises:
            ValueError: if it is missing, damaged, or contains code.
        """
        if path.is_dir():
            return DiffusersFormat().content(path)
        if path.exists() or not is_name(path.as_posix()):
            return torch_file.load(path)
        try:
            return DiffusersFormat().content(path)
        except ValueError as error:
            raise ValueError(
                f"there is no file or folder {path}, and as a model on the hub: {error}"
            ) from error

    def pick(self, content: object, path: Path, weights: str) -> Weights:
        """The weights, by the format that the content has."""
        if isinstance(content, Folder):
            return DiffusersFormat().pick(content, path, weights)
        network = without_wrappers(content)
        is_openai = isinstance(network, dict) and FIRST_LAYER in network
        chosen = ImprovedDiffusionFormat() if is_openai else NelboFormat()
        return chosen.pick(content, path, weights)
