"""Features are made of pixels, and say in one line what they cannot be made of."""

from urllib.error import URLError

import pytest
import torch
from torch import nn

from nelbo.evaluation.sample_metrics.features import Inception, Pixels, TorchModule
from nelbo.evaluation.sample_metrics.images import as_seen


class Halved(nn.Module):
    """Stands for anybody's network: the mean over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x.float().mean(2)


@pytest.fixture
def script(tmp_path):
    torch.jit.script(Halved()).save(tmp_path / "network.pt")
    return str(tmp_path / "network.pt")


def test_images_are_seen_as_they_are_saved():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(as_seen(levels / 127.5 - 1), levels)
    assert torch.equal(as_seen(levels), levels)
    assert as_seen(torch.tensor([[[[-7.0, 7.0, 0.001]]]])).tolist() == [[[[0, 255, 128]]]]
    vector = torch.randn(3, 2)
    assert as_seen(vector) is vector


def test_pixels_are_values():
    x = torch.tensor([[[[0, 255], [51, 204]]]], dtype=torch.uint8)
    torch.testing.assert_close(Pixels()(x), torch.tensor([[-1.0, 1.0, -0.6, 0.6]]))
    assert Pixels().dims((3, 4, 4)) == 48
    assert Pixels().dims((2,)) == 2


@pytest.mark.parametrize("pixels", [False, True])
def test_a_network_of_ones_own(script, pixels):
    x = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    features = TorchModule(script, name="rows", pixels=pixels)
    seen = x.float() if pixels else x.float() / 127.5 - 1
    torch.testing.assert_close(features(x), (0.5 * seen.mean(2)).flatten(1))
    assert features.names.frechet == "fd_rows"
    assert features.dims((3, 4, 4)) == 12


def test_a_network_by_its_name(monkeypatch, tmp_path):
    monkeypatch.setattr(nn, "Halved", Halved, raising=False)
    torch.save({"weight": torch.tensor(2.0)}, tmp_path / "weights.pth")
    plain = TorchModule("torch.nn.Halved", pixels=True)
    loaded = TorchModule("torch.nn.Halved", str(tmp_path / "weights.pth"), pixels=True)
    x = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(loaded(x), 4 * plain(x))
    assert loaded.key != plain.key


def test_other_networks_have_other_keys(script, tmp_path):
    network = Halved()
    network.weight.data += 1
    torch.jit.script(network).save(tmp_path / "other.pt")
    keys = {TorchModule(script, pixels=pixels).key for pixels in (False, True)}
    keys |= {TorchModule(str(tmp_path / "other.pt")).key, Pixels().key}
    assert len(keys) == 4


def test_a_network_that_is_none(script, tmp_path):
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
        TorchModule(script).dims((2,))


# ----------------------------------------------------------------------------------------------------------


def test_inception_without_weights_and_without_network(monkeypatch):
    def offline(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline)
    with pytest.raises(OSError, match=r"cannot be downloaded.*no route.*: set features.weights_path"):
        Inception()


def test_inception_with_a_file_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        Inception(str(tmp_path / "missing.pth"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="is damaged, or no file of weights"):
        Inception(str(tmp_path / "text.pth"))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold the weights of torch-fidelity's Inception"):
        Inception(str(tmp_path / "other.pth"))
    torch.save(Halved(), tmp_path / "code.pth")  # a whole module, which takes unpickling to read
    with pytest.raises(ValueError, match="no file of weights"):
        Inception(str(tmp_path / "code.pth"))
