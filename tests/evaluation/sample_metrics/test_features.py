"""Features of images, and their error messages."""

from urllib.error import URLError

import pytest
import torch
from torch import nn

from nelbo.data.spec import DataSpec
from nelbo.evaluation.sample_metrics.features import Inception, Pixels, TorchModule
from nelbo.evaluation.sample_metrics.images import features_of


class Halved(nn.Module):
    """A user's network: the mean over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x.float().mean(2)


@pytest.fixture
def script(tmp_path):
    torch.jit.script(Halved()).save(tmp_path / "network.pt")
    return str(tmp_path / "network.pt")


def images(channels: int, side: int, levels: int | None = 256) -> DataSpec:
    return DataSpec(shape=(channels, side, side), levels=levels, num_classes=None)


@pytest.mark.parametrize("levels", [17, 256, 1000, 65536])
def test_features_of_values_are_those_of_the_stored_levels(levels):
    spec = images(1, 3, levels)
    x = 1.2 * torch.randn(5, *spec.shape, generator=torch.Generator().manual_seed(0))
    stored = spec.to_levels(x)
    seen = features_of(x, Pixels(), spec)
    assert torch.equal(seen, features_of(stored, Pixels(), spec))
    assert torch.equal(seen, spec.from_levels(stored).flatten(1))


def test_features_of_continuous_data_are_its_values():
    x = 5 * torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(features_of(x, Pixels(), images(3, 4, None)), x.flatten(1))


def test_pixels_are_values():
    x = torch.tensor([[[[0, 255], [51, 204]]]], dtype=torch.uint8)
    expected = torch.tensor([[-1.0, 1.0, -0.6, 0.6]])
    torch.testing.assert_close(features_of(x, Pixels(), images(1, 2)), expected)
    assert Pixels().dims(images(3, 4)) == 48
    assert Pixels().dims(DataSpec((2,), None, None)) == 2


@pytest.mark.parametrize("pixels", [False, True])
def test_torch_module_features(script, pixels):
    x = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    features = TorchModule(script, name="rows", pixels=pixels)
    seen = x.float() if pixels else x.float() / 127.5 - 1
    torch.testing.assert_close(features_of(x, features, images(3, 4)), (0.5 * seen.mean(2)).flatten(1))
    assert features.names.frechet == "fd_rows"
    assert features.dims(images(3, 4)) == 12


def test_torch_module_by_dotted_path(monkeypatch, tmp_path):
    monkeypatch.setattr(nn, "Halved", Halved, raising=False)
    torch.save({"weight": torch.tensor(2.0)}, tmp_path / "weights.pth")
    plain = TorchModule("torch.nn.Halved", pixels=True)
    loaded = TorchModule("torch.nn.Halved", str(tmp_path / "weights.pth"), pixels=True)
    x = torch.rand(5, 3, 4, 4)
    torch.testing.assert_close(loaded(x), 4 * plain(x))
    assert loaded.key != plain.key


def test_other_networks_have_other_keys(script, tmp_path):
    network = Halved()
    network.weight.data += 1
    torch.jit.script(network).save(tmp_path / "other.pt")
    keys = {TorchModule(script, pixels=pixels).key for pixels in (False, True)}
    keys |= {TorchModule(str(tmp_path / "other.pt")).key, Pixels().key}
    assert len(keys) == 4


def test_torch_module_with_an_invalid_network_raises(script, tmp_path):
    with pytest.raises(ValueError, match=r"features.path=network.pt, or"):
        TorchModule(None)
    with pytest.raises(ValueError, match="neither a file nor a network"):
        TorchModule("nowhere.Network")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ValueError, match="is no TorchScript file"):
        TorchModule(str(tmp_path / "text.pt"))
    with pytest.raises(ValueError, match="does not hold the weights of"):
        TorchModule("torch.nn.Identity", str(tmp_path / "text.pt"))
    with pytest.raises(ValueError, match="cannot take examples of shape"):
        TorchModule(script).dims(DataSpec((2,), None, None))
    with pytest.raises(ValueError, match="pixels=true needs data with levels, and this is continuous data"):
        TorchModule(script, pixels=True).dims(images(3, 4, None))


# ----------------------------------------------------------------------------------------------------------


def test_inception_raises_if_the_download_fails(monkeypatch):
    def offline(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline)
    with pytest.raises(OSError, match=r"cannot be downloaded.*no route.*: set features.weights_path"):
        Inception()


def test_inception_with_an_invalid_file_raises(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        Inception(str(tmp_path / "missing.pth"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="is damaged, or not a file of weights"):
        Inception(str(tmp_path / "text.pth"))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold the weights of torch-fidelity's Inception"):
        Inception(str(tmp_path / "other.pth"))
    torch.save(Halved(), tmp_path / "code.pth")  # a whole module, which takes unpickling to read
    with pytest.raises(ValueError, match="not a file of weights"):
        Inception(str(tmp_path / "code.pth"))
