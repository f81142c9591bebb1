"""FID and related metrics equal those of torch-fidelity for the same images."""

import pytest
import torch
from PIL import Image
from torch import nn
from torch_fidelity import calculate_metrics
from torch_fidelity.datasets import ImagesPathDataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.utils import save_image

from nelbo.data.base import DataModule
from nelbo.data.examples import TensorExamples
from nelbo.data.spec import DataSpec
from nelbo.evaluation.sample_metrics import features_of, make_reference, sample_quality
from nelbo.evaluation.sample_metrics.features import Inception

N = 24  # the network takes a third of a second for each, four times


class Pictures(DataModule):
    """Colour images made of a few waves."""

    def __init__(self) -> None:
        super().__init__(batch_size=16, eval_batch_size=16, num_workers=0, seed=0)

    @property
    def spec(self) -> DataSpec:
        return DataSpec(shape=(3, 32, 32), levels=256, num_classes=None)

    def read_split(self, name):
        return TensorExamples(waves(seed=0, sharpness=1.0))


def waves(seed: int, sharpness: float) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    frequency, phase = sharpness * torch.rand(2, N, 3, 1, 1, generator=random)
    x, y = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    noise = 10 * torch.randn(N, 3, 32, 32, generator=random)
    return (127 + 100 * torch.sin(frequency * x + phase * y) + noise).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as torch-fidelity publishes one, with random weights that keep the scale of their input."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {}
        )
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.mark.slow
def test_metrics_equal_those_of_torch_fidelity(weights, tmp_path):
    data, samples = Pictures(), waves(seed=1, sharpness=0.3)
    for name, images in (("real", data.split("train").x), ("samples", samples)):  # pyright: ignore
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            save_image(image / 255, tmp_path / name / f"{i:03d}.png")
    expected = calculate_metrics(
        input1=str(tmp_path / "samples"),
        input2=str(tmp_path / "real"),
        fid=True,
        kid=True,
        prc=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=weights,
        kid_subset_size=N,
        kid_subsets=2,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    features = Inception(weights)
    reference = make_reference(data, "train", features, cache=str(tmp_path / "cache"))
    measured = sample_quality(samples, reference, features, batch_size=32)
    fid = expected["frechet_inception_distance"]
    assert fid > 0.5, "no difference to speak of"
    assert measured["fid"] == pytest.approx(fid, rel=1e-5, abs=1e-3)
    assert measured["kid"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)
    assert measured["precision"] == expected["precision"]
    assert measured["recall"] == expected["recall"]


def test_grey_images_have_the_features_of_torch_fidelity(weights, tmp_path):
    grey = waves(seed=0, sharpness=1.0)[:1, :1]
    Image.fromarray(grey[0, 0].numpy()).save(tmp_path / "grey.png")
    as_read = ImagesPathDataset([tmp_path / "grey.png"])[0][None]
    features = Inception(weights)
    values = features_of(grey, features, DataSpec((1, 32, 32), 256, None))
    assert torch.equal(values, features(as_read / 127.5 - 1))


def test_inception_is_for_images(weights):
    features = Inception(weights)
    assert features.dims(DataSpec((1, 8, 8), 256, None)) == 2048
    assert features.key.startswith("inception 2048 ")
    for shape, levels in (((2,), None), ((4, 8, 8), 256), ((3, 8, 8), None)):
        with pytest.raises(ValueError, match="use features=pixels"):
            features.dims(DataSpec(shape, levels, None))
