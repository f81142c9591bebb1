"""Data of every kind is trained on, sampled, stored and scored as its spec says, against known values."""

import json
import math

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from nelbo.compose import build
from nelbo.data.base import DataModule
from nelbo.data.batch import Batch
from nelbo.data.examples import TensorExamples
from nelbo.data.spec import DataSpec
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import DiscretizedGaussian, GaussianDecoder
from nelbo.diffusion.exact import gaussian_denoiser, posterior_variance
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.spacings import Trailing
from nelbo.diffusion.variances import Analytic
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.estimators import FullEstimator
from nelbo.evaluation.measure import measure
from nelbo.evaluation.sample_metrics import make_reference, sample_quality
from nelbo.evaluation.sample_metrics.features import Pixels
from nelbo.evaluation.units import unit_of
from nelbo.runs import images as grids
from nelbo.runs.sample_folder import SampleFolder

# shape, levels, standard deviation; dtype of a stored sample, its file
KINDS = {
    "continuous, std 1": ((2,), None, 1.0, np.float32, "npz"),
    "continuous, std 5": ((2,), None, 5.0, np.float32, "npz"),
    "continuous images": ((3, 4, 4), None, 5.0, np.float32, "npz"),
    "series": ((1, 16), None, 1.0, np.float32, "npz"),
    "volumes": ((2, 3, 4, 4), None, 2.0, np.float32, "npz"),
    "8-bit volumes": ((1, 3, 4, 4), 256, 0.2, np.uint8, "npz"),
    "8-bit grey": ((1, 4, 4), 256, 0.2, np.uint8, "png"),
    "5-bit RGB": ((3, 4, 4), 32, 0.2, np.uint8, "png"),
    "16-bit grey": ((1, 4, 4), 65536, 0.2, np.uint16, "npz"),
    "1000 levels": ((3, 4, 4), 1000, 0.2, np.uint16, "npz"),
    "2 channels": ((2, 4, 4), 256, 0.2, np.uint8, "npz"),
    "4 channels": ((4, 4, 4), 256, 0.2, np.uint8, "npz"),
    "5 channels": ((5, 4, 4), 256, 0.2, np.uint8, "npz"),
}
every = pytest.mark.parametrize("kind", KINDS)


def white(n: int, dims: int) -> torch.Tensor:
    """(n, dims) with mean exactly 0 and covariance exactly 1."""
    x = torch.randn(n, dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T


class Normal(DataModule):
    """N(0, std^2) of any kind, on its levels where it has any."""

    def __init__(self, kind: str, n: int = 400, **loading) -> None:
        super().__init__(**loading)
        shape, levels, self.std, *_ = KINDS[kind]
        self.n, self._spec = n, DataSpec(shape, levels, None)

    @property
    def spec(self) -> DataSpec:
        return self._spec

    def read_split(self, name) -> TensorExamples:
        x = self.std * white(self.n, self.spec.dims).view(-1, *self.spec.shape)
        return TensorExamples(self.spec.to_levels(x))


def spec_of(kind: str) -> DataSpec:
    return Normal(kind).spec


# ------------------------------------------------------------------ stored


@every
def test_a_stored_sample_comes_back_exactly_and_in_the_dtype_of_its_kind(kind, tmp_path):
    _, levels, std, dtype, file = KINDS[kind]
    spec = spec_of(kind)
    x = std * white(100, spec.dims).view(-1, *spec.shape)[:7].float()
    if levels is not None:
        x[0].flatten()[:2] = torch.tensor([-3.0, 3.0])  # beyond the range
    assert spec.fits_png == (file == "png")
    folder = SampleFolder(tmp_path, {}, file, spec)
    folder.add(list(range(7)), x)
    folder.finish(7)
    again = SampleFolder(tmp_path, {}, file, spec)
    stored = again.read(list(range(7)))
    assert stored.numpy().dtype == dtype
    assert torch.equal(stored, spec.to_levels(x))
    if levels is None:
        assert torch.equal(stored, x)
    else:
        assert spec.half_bin is not None
        back = spec.from_levels(stored)
        assert (back - x.clamp(-1, 1)).abs().max() <= spec.half_bin * 1.01
        assert torch.equal(spec.to_levels(back), stored)
        assert (stored.double().min(), stored.double().max()) == (0, levels - 1)


def test_png_is_refused_where_it_cannot_hold_a_sample(tmp_path):
    for kind, (*_, file) in KINDS.items():
        if file == "npz":
            with pytest.raises(ValueError, match=r"^format=png is for grey and RGB .*: use format=npz$"):
                SampleFolder(tmp_path, {}, "png", spec_of(kind))


# ------------------------------------------------------------------ sampled


@pytest.fixture(scope="module")
def configured(compose):
    """The composed configuration of each sampler, made once."""
    return {name: compose(f"sampler={name}") for name in ("ancestral", "ddim", "dpm_solver_pp", "heun")}


def assert_samples_have_the_std_of_the_data(config, kind: str, steps: int) -> None:
    """Samples of the exact denoiser; the last step to E[x_0 | x_1] takes away what x_1 does not tell."""
    spec, std = spec_of(kind), KINDS[kind][2]
    schedule = CosineSchedule(1000, half_bin=spec.half_bin)
    variance = Analytic(posterior_variance(schedule.level(torch.arange(1, 1001)), std).log())
    noise = torch.randn(
        steps + 1, 5000 // spec.dims, *spec.shape, generator=torch.Generator().manual_seed(0)
    ).double()
    chain = Trailing().chain(schedule, steps)
    x = build.build_sampler(config, spec).sample(
        gaussian_denoiser(spec.shape, std, variance), chain, noise[0], lambda i: noise[i]
    )
    lost = posterior_variance(chain.level(torch.tensor(1)), std).item()
    assert x.std().item() == pytest.approx(math.sqrt(std**2 - lost), rel=0.04)
    assert x.abs().max() > 3 * std


@every
def test_samples_have_the_standard_deviation_of_the_data(kind, configured):
    assert_samples_have_the_std_of_the_data(configured["heun"], kind, 40)


@pytest.mark.parametrize(("sampler", "steps"), [("ancestral", 100), ("ddim", 100), ("dpm_solver_pp", 100)])
def test_no_sampler_clips_continuous_data(sampler, steps, configured):
    assert_samples_have_the_std_of_the_data(configured[sampler], "continuous, std 1", steps)


def test_the_range_clips_by_default_and_an_explicit_clip_wins(configured):
    quantised, continuous = (DataSpec((1, 4, 4), levels, None) for levels in (256, None))

    def clip(spec, **options):
        config = OmegaConf.merge(configured["ddim"], {"sampler": options})
        assert isinstance(config, DictConfig)
        return build.build_sampler(config, spec).clip

    assert (clip(quantised), clip(continuous)) == ((-1.0, 1.0), None)
    for spec in (quantised, continuous):
        assert (clip(spec, clip=None), clip(spec, clip=[-2, 2])) == (None, (-2.0, 2.0))
    with pytest.raises(Exception, match="dynamic_clip needs a range"):
        clip(continuous, dynamic_clip=0.9)


# ------------------------------------------------------------------ scored


@every
def test_fd_pixels_is_the_distance_of_the_two_gaussians(kind, tmp_path):
    """D (std_a - std_b)^2 for N(0, std_a^2 I) and N(0, std_b^2 I)."""
    data, std = Normal(kind), KINDS[kind][2]
    reference = make_reference(data, "train", Pixels(), pairwise=0, cache=str(tmp_path))
    samples = 0.5 * std * white(400, data.spec.dims).view(-1, *data.spec.shape).float()
    expected = data.spec.dims * (0.5 * std) ** 2
    for stored in (samples, data.spec.to_levels(samples)):
        found = sample_quality(stored, reference, Pixels())["fd_pixels"]
        assert found == pytest.approx(expected, rel=2e-3 if data.spec.levels != 32 else 2e-2)


@pytest.mark.parametrize("kind", ["continuous, std 5", "volumes", "16-bit grey", "5 channels"])
def test_the_bound_of_the_exact_denoiser_is_the_entropy(kind):
    """Of N(0, std^2), log(std sqrt(2 pi e)) nats per dimension, less the log of a bin for levels."""
    data, (_, levels, std, *_) = Normal(kind, n=max(100, 1000 // math.prod(KINDS[kind][0]))), KINDS[kind]
    spec, schedule = data.spec, CosineSchedule(100, half_bin=data.spec.half_bin)
    decoder = GaussianDecoder() if levels is None else DiscretizedGaussian(levels)
    variance = Analytic(posterior_variance(schedule.level(torch.arange(1, 101)), std).log())
    bound = VariationalBound(Chain(schedule), decoder)
    x0 = spec.from_levels(data.split("test").x).double()  # pyright: ignore[reportAttributeAccessIssue]
    unit = unit_of(spec.dims, levels)
    [result] = measure(
        FullEstimator(), [BoundVariant(bound)], gaussian_denoiser(spec.shape, std, variance),
        [Batch(x0, None, torch.arange(len(x0)))], len(x0), unit, torch.device("cpu"),
    )  # fmt: skip
    bin_width = 1.0 if levels is None else 2 / (levels - 1)
    entropy = math.log(std * math.sqrt(2 * math.pi * math.e) / bin_width)
    total = result.estimate.total
    assert total.mean == pytest.approx(spec.dims * entropy, abs=4 * total.stderr)
    assert 4 * total.stderr < 0.15 * abs(spec.dims * entropy)


# ------------------------------------------------------------------ drawn


@pytest.mark.parametrize("levels", [17, 256, 65536, None])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_pictures_are_grey_or_rgb(channels, levels):
    spec, grey = (DataSpec((n, 4, 6), levels, None) for n in (channels, 1))
    x = spec.as_stored(2 * torch.rand(3, channels, 4, 6, generator=torch.Generator().manual_seed(0)) - 1)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = -1.0, 1.0  # continuous data is scaled by its extent
    pixels = spec.to_pixels(x)
    parts = [DataSpec((1, 4, 6), 256, None).to_pixels(part) for part in x.split(1, dim=1)]
    if channels in (1, 3):
        assert torch.equal(pixels, torch.cat(parts, dim=1))
    else:
        assert torch.equal(pixels, torch.cat(parts, dim=3))
    assert grids.grid(pixels).mode == "RGB"
    assert torch.equal(grey.to_pixels(5 * x[:, :1]), pixels[:, :1, :, :6]) == (levels is None)


def test_a_sample_that_is_not_finite_has_a_picture_too():
    x = torch.full((2, 1, 4, 4), math.nan)
    assert DataSpec((1, 4, 4), None, None).to_pixels(x).dtype == torch.uint8


# ------------------------------------------------------------------ trained


@pytest.mark.slow
@every
def test_it_is_trained_validated_sampled_and_tested(kind, compose, tiny, tmp_path):
    """With the default callbacks and sample quality; vectors alone have no grids of samples."""
    data = Normal(kind, batch_size=32, eval_batch_size=100)
    decoder = "gaussian" if data.spec.levels is None else "discretized_gaussian"
    cache = f"callbacks.sample_quality.cache={tmp_path / 'cache'}"
    options = ("logger=none", "callbacks=sample_quality", "callbacks.sample_quality.num_samples=50", cache)
    config = compose(*tiny, *options, f"decoder={decoder}", run_dir=tmp_path)
    module = build.build_module(config, data.spec)
    callbacks = build.build_callbacks(config, data.spec, module.bound.chain)
    trainer = build.build_trainer(config, callbacks, build.build_loggers(config, tmp_path))
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert math.isfinite(metrics[f"test/{module.unit.metric}"])
    written = json.loads((tmp_path / "sample_quality.json").read_text())
    assert math.isfinite(written["fd_pixels"])
    grids = sorted((tmp_path / "samples").glob("*.png"))
    assert bool(grids) == data.spec.is_drawn == (len(data.spec.shape) > 1)
    for file in grids:
        with Image.open(file) as picture:
            assert picture.mode == "RGB"


@pytest.mark.slow
@pytest.mark.parametrize("std", [1.0, 5.0])
def test_continuous_data_by_the_commands(std, command, evaluate, tmp_path):
    """train.py, sample.py and evaluate.py of N(0, std^2): its standard deviation, its entropy."""
    network = ("model.width=64", "model.depth=2", "data.n_val=200", "data.n_test=500", "logger=none")
    steps = ("trainer.max_steps=1500", "trainer.val_check_interval=1500", "lr_schedule.warmup_steps=0")
    trained = command("data=gaussian", f"data.std={std}", "optimizer.lr=3e-3", *network, *steps)
    assert trained.code == 0, trained.err
    assert not (trained.folder / "samples").exists()
    checkpoint = f"checkpoint={trained.folder / 'checkpoints/last.ckpt'}"
    drawn = command(
        checkpoint, "n=2000", "batch_size=500", "features=pixels", name="sample", folder=tmp_path / "drawn"
    )
    assert drawn.code == 0, drawn.err
    with np.load(tmp_path / "drawn/samples.npz") as file:
        samples = file["samples"]
    assert (samples.dtype, samples.shape) == (np.float32, (2000, 2))
    assert samples.std() == pytest.approx(std, rel=0.1)
    assert np.abs(samples).max() > 2.5 * std
    quality = json.loads((tmp_path / "drawn/quality.json").read_text())
    assert quality["fd_pixels"] < 0.02 * std**2  # 2 (std_a - std_b)^2, within a tenth
    measured = evaluate(checkpoint, "estimator=stratified", "estimator.evaluations_per_example=20")
    assert measured.code == 0, measured.err
    result = json.loads((measured.folder / "evaluation.json").read_text())
    entropy = 2 * math.log(std * math.sqrt(2 * math.pi * math.e))
    error = result["test/nelbo_stderr"]
    assert entropy - 3 * error < result["test/nelbo"] < entropy + 0.2 + 3 * error
    assert 0.0 < result["test/nelbo_stderr_monte_carlo"] < 2.0 * error
