"""The public API: what ``import nelbo`` offers, and that its numbers are those of the commands."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object

import nelbo
from nelbo import torch_file
from nelbo.compose.build import build_module
from nelbo.compose.trained import TrainedModel, composing
from nelbo.data import DataSpec, Digits
from nelbo.data.to_stored import to_stored
from nelbo.diffusion import DDIM, Chain, CosineSchedule, DiscretizedGaussian, VariationalBound, diffuse
from nelbo.evaluation.estimators import ImportanceEstimator, StratifiedEstimator
from nelbo.interop.formats import CheckpointFormat, Weights

ROOT = Path(__file__).parents[1]
FLAT = {
    "diffusion": (
        "schedule", "parameterization", "variance", "decoder", "loss", "timesteps", "sampler", "spacing"
    ),
    "models": ("model",),
    "data": ("data",),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(finished_run) -> Path:
    return finished_run.folder / "checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def model(checkpoint) -> nelbo.Model:
    return nelbo.load(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def conditional(compose, tiny) -> nelbo.Model:
    """An untrained conditional model."""
    return untrained(compose(*tiny, "conditional=true", "cond_dropout=0.1"))


def untrained(config) -> nelbo.Model:
    """A model of the digits with random weights."""
    spec = Digits().spec
    module = build_module(config, spec).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    weights = Weights(module.denoiser.network.state_dict(), None, "raw", 0.0, None)
    return nelbo.Model(TrainedModel(module, spec, config, weights, Path("unused")), torch.device("cpu"))


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    """Level indices (12, 1, 8, 8)."""
    return Digits().split("test").fetch(torch.arange(12), 0).x0


# ------------------------------------------------------------------------------------ imports


def test_importing_the_package_imports_no_library():
    heavy = ("torch", "numpy", "hydra", "omegaconf", "lightning", "rich", "pyarrow")
    code = f"import sys, nelbo; print([name for name in {heavy} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout == "[]\n", ended.stderr
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "package", [nelbo, nelbo.diffusion, nelbo.models, nelbo.data], ids=lambda p: p.__name__
)
def test_every_exported_name_is_there(package):
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize(("package", "groups"), FLAT.items())
def test_every_component_of_conf_has_a_flat_import(package, groups):
    missing = []
    for group in groups:
        for file in (ROOT / "conf" / group).glob("*.yaml"):
            target = yaml.safe_load(file.read_text()).get("_target_")
            if target is not None:
                component = get_object(target)
                if getattr(getattr(nelbo, package), component.__name__, None) is not component:
                    missing.append(target)
    assert missing == []


# ------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (("estimator.target_stderr=0.5", "estimator.seed=3"), {"target_stderr": 0.5, "seed": 3}),
        pytest.param(
            ("estimator=full", "steps=16", "spacing=quadratic", "clip=true"),
            {"estimator": "full", "steps": 16, "spacing": "quadratic", "clip": True},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["importance", "full"],
)
def test_the_bound_is_that_of_evaluate_bit_for_bit(options, arguments, evaluate, checkpoint, model):
    ended = evaluate(f"checkpoint={checkpoint}", "max_examples=30", "device=cpu", *options)
    assert ended.code == 0, ended.err
    expected = json.loads((ended.folder / "evaluation.json").read_text())
    data = Digits()
    data.subset("test", 30)
    result = model.bound(data.split("test").fetch(torch.arange(30), 0).x0, **arguments)
    assert result.bpd == expected["test/bpd"]
    assert result.stderr == expected["test/bpd_stderr"]
    assert result.total.mc_stderr == expected["test/bpd_stderr_monte_carlo"]
    assert (result.L_0.mean, result.L_T.mean) == (expected["test/L_0"], expected["test/L_T"])
    drawn = result.L_t.count > 0
    for name in ("t", "mean", "contribution"):
        rows = [row[name] for row in expected["steps"][1:]]
        assert getattr(result.L_t, name)[drawn].tolist() == rows
    assert result.per_example.mean() == pytest.approx(result.bpd, rel=1e-12)
    of_the_data = {"data", "fingerprint"}
    assert {name: value for name, value in result.ledger.to_dict().items() if name not in of_the_data} == {
        name: tuple(value) if name == "clip" and value else value
        for name, value in expected["ledger"].items()
        if name not in of_the_data
    }


def test_samples_are_those_of_sample_bit_for_bit(command, checkpoint, model, tmp_path):
    options = ("sampler.steps=3", "n=5", "seed=4", "format=npz", "device=cpu")
    ended = command(f"checkpoint={checkpoint}", *options, name="sample", folder=tmp_path / "samples")
    assert ended.code == 0, ended.err
    with np.load(ended.folder / "samples.npz") as file:
        expected = file["samples"]
    samples = model.sample(5, steps=3, seed=4)
    assert np.array_equal(model.spec.to_levels(samples).numpy(), expected)
    assert torch.equal(model.sample(2, sampler=DDIM(steps=3, data_range=(-1, 1)), seed=4), samples[:2])
    assert len(model.bound(samples, estimator="stratified").per_example) == 5  # they are images of the model


def test_an_estimator_that_has_made_its_measurement_is_refused(model, digits):
    estimator = ImportanceEstimator(target_stderr=1.0, pilot_evaluations=36)
    model.bound(digits, estimator=estimator)
    with pytest.raises(ValueError, match="ImportanceEstimator has made its measurement: a new one is needed"):
        model.bound(digits, estimator=estimator)
    again = StratifiedEstimator()
    assert model.bound(digits, estimator=again).bpd == model.bound(digits, estimator=again).bpd


def test_batches_have_examples(model, digits):
    for call in (lambda: model.sample(2, steps=2, batch_size=0), lambda: model.bound(digits, batch_size=0)):
        with pytest.raises(ValueError, match="batch_size=0: expected an integer of at least 1"):
            call()


def test_a_timestep_in_a_list_is_that_of_all_examples(model, digits):
    x0 = model.spec.from_levels(digits)
    assert torch.equal(model.denoise(x0, [300]).x0_hat, model.denoise(x0, 300).x0_hat)


def test_an_option_that_training_does_not_have_is_refused(checkpoint):
    class NoConfiguration(CheckpointFormat):
        def pick(self, content, path, weights):
            return Weights({}, None, weights, None)

    options = {"experiment": "ddpm_cifar10", "options": "model.chanels=64"}
    with pytest.raises(ValueError, match=r"trained_with: .*model\.chanels.*; expected options of train\.py"):
        nelbo.load(checkpoint, checkpoint_format=NoConfiguration(), **options)


def test_values_and_level_indices_are_the_same_images(model, digits):
    images = model.spec.from_levels(digits)
    same = [digits, digits.numpy(), digits.long(), images, images.double().numpy(), images.half()]
    bounds = {model.bound(x, estimator="stratified").bpd for x in same}
    assert len(bounds) == 1


@pytest.mark.slow
def test_the_terms_of_all_timesteps_add_up_to_the_bound(model, digits):
    T = model.chain.num_steps
    terms = model.terms(digits, range(1, T + 1))
    result = model.bound(digits, estimator="full")
    total = terms.sum(1).double().mean().item() + result.L_T.mean
    assert total == pytest.approx(result.bpd, abs=8 * result.total.mc_stderr)


def test_a_term_depends_on_its_image_and_timestep_alone(model, digits):
    terms = model.terms(digits, [1, 500])
    assert terms.shape == (12, 2)
    torch.testing.assert_close(model.terms(digits[:3], 500), terms[:3, 1])
    assert not torch.equal(model.terms(digits, 500, seed=1), terms[:, 1])


def test_predictions_have_gradients_of_the_input_alone(model, digits):
    x0 = model.spec.from_levels(digits)
    level = model.chain.level(torch.full((12,), 300))
    xt = diffuse(x0, torch.zeros_like(x0), level).requires_grad_()
    prediction = model.denoise(xt, 300)
    torch.testing.assert_close(prediction.x0_hat, model.denoiser(xt, level).x0_hat)
    prediction.x0_hat.sum().backward()
    assert xt.grad is not None
    assert not model.denoise(xt.detach(), 300).x0_hat.requires_grad


def test_terms_and_predictions_of_continuous_time_are_at_u(compose, tiny, digits):
    options = ("schedule=linear_logsnr", "schedule.num_steps=null", "variance=fixed_large")
    continuous = untrained(compose(*tiny, *options))
    x0 = continuous.spec.from_levels(digits)
    u = (torch.arange(64) + 0.5) / 64
    terms = continuous.terms(digits, u)
    assert terms.shape == (12, 64)
    assert torch.equal(continuous.terms(digits, u[3].item()), terms[:, 3])
    result = continuous.bound(digits, estimator="stratified")
    L_t = terms.double().mean().item()
    assert L_t == pytest.approx(result.L_t.contribution.sum(), rel=0.1)
    L_0 = continuous.terms(digits, 0.0).double()
    assert L_0.mean().item() == pytest.approx(result.L_0.mean, abs=4 * L_0.std().item() / 12**0.5)
    level = continuous.chain.schedule.level(torch.full((12,), 0.25, dtype=torch.float64))
    expected = continuous.denoiser(x0, level).x0_hat
    torch.testing.assert_close(continuous.denoise(x0, 0.25).x0_hat, expected)
    with pytest.raises(ValueError, match="t=7: the model is in continuous time, expected u from 0 to 1"):
        continuous.terms(digits, 7)


def test_continuous_data_has_a_bound_in_nats(compose, tiny):
    config = compose(*tiny, "data=gaussian")
    spec = DataSpec((2,), None, None)
    weights = Weights({}, None, "raw", 0.0, None)
    trained = TrainedModel(build_module(config, spec).eval(), spec, config, weights, Path("unused"))
    gaussian = nelbo.Model(trained, torch.device("cpu"))
    result = gaussian.bound(torch.randn(50, 2), estimator="stratified")
    assert str(result).split(" (")[0].endswith("nats")
    with pytest.raises(ValueError, match=r"in nats: use total\.mean"):
        _ = result.bpd


# ------------------------------------------------------------------------------------ classes


def test_classes_are_given_by_name_number_or_index(conditional, digits):
    def bound(cond):
        return conditional.bound(digits, cond=cond, estimator="stratified").bpd

    expected = bound(torch.full((12,), 3))
    assert bound(3) == bound("3") == bound(["3"] * 12) == bound(np.full(12, 3)) == expected
    assert bound(4) != expected
    in_turn = conditional.sample(12, steps=2)
    assert torch.equal(in_turn, conditional.sample(12, steps=2, cond=torch.arange(12) % 10))
    alternating = conditional.sample(12, steps=2, cond=torch.arange(12) % 2)
    assert torch.equal(alternating, conditional.sample(12, steps=2, cond=[0, 1]))
    seven = bound(7)
    for given in (np.int64(7), np.array(7), torch.tensor(7)):
        assert bound(given) == seven
        assert torch.equal(conditional.sample(2, steps=2, cond=given), conditional.sample(2, steps=2, cond=7))
    without = conditional.denoise(torch.zeros(1, 1, 8, 8), 5)
    index = conditional.trained.module.null
    level = conditional.chain.level(torch.tensor([5]))
    assert torch.equal(
        without.x0_hat, conditional.denoiser(torch.zeros(1, 1, 8, 8), level, torch.tensor([index])).x0_hat
    )


def test_the_repr_of_a_model_is_one_line(model, checkpoint):
    shown = repr(model)
    assert "\n" not in shown
    assert shown.startswith(f"Model('{checkpoint}', MLP with ")
    assert shown.endswith("parameters, data (1, 8, 8), ema weights, cpu)")


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        (None, "the model is conditional: give cond="),
        ("seven", "cond=seven: the model knows the classes 0, 1"),
        ([1, 2], "cond has 2 classes for 12 images"),
        (torch.full((12,), 10), "cond must be class indices"),
        (torch.zeros(12), "cond must be class indices"),
        (torch.tensor(0.5), "cond=0.5: expected a class, or one for each image"),
    ],
)
def test_classes_that_cannot_work_are_refused(cond, message, conditional, digits):
    with pytest.raises(ValueError, match=message):
        conditional.bound(digits, cond=cond)


# ------------------------------------------------------------------------------------ bad input

EIGHT_BIT = DataSpec((3, 4, 6), levels=256, num_classes=None)
BYTES = torch.arange(72, dtype=torch.uint8).reshape(1, 3, 4, 6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([BYTES], "must be a tensor or an array, not a list"),
        (
            BYTES.float(),
            r"torch.float32 values of 0 to 71: expected integers from 0 to 255, or floats in \[-1",
        ),
        (BYTES.double() / 255, r"between the 256 levels .* values in \[0, 1\] are 2 \* images - 1"),
        (BYTES.short() + 200, "values of 200 to 271"),
        (BYTES > 3, "torch.bool is not a type"),
        (BYTES[0], r"shape \(3, 4, 6\): the model needs \(N, 3, 4, 6\)"),
        (BYTES.permute(0, 2, 3, 1), r"move the channels first"),
        (torch.zeros(1, 3, 8, 8), r"shape \(1, 3, 8, 8\): the model needs \(N, 3, 4, 6\)"),
        (BYTES[:0], "there are none"),
        (torch.full((1, 3, 4, 6), torch.nan), "not finite"),
    ],
)
def test_images_of_another_kind_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        to_stored(images, EIGHT_BIT)


def test_the_terms_of_a_bound_refuse_level_indices_and_other_sizes():
    bound = VariationalBound(Chain(CosineSchedule(4)), DiscretizedGaussian(256), shape=(3, 4, 6))

    def terms(x0):
        return bound.terms(lambda xt, level, cond: pytest.fail("nothing is evaluated"), x0, torch.zeros_like)

    with pytest.raises(ValueError, match=r"x0 has values of 0 to 71: expected \[-1, 1\]"):
        terms(BYTES.float())
    with pytest.raises(ValueError, match=r"x0 is torch\.uint8: expected floats"):
        terms(BYTES)
    with pytest.raises(
        ValueError, match=r"x0 has shape \(1, 3, 8, 8\): expected a batch of shape \(3, 4, 6\)"
    ):
        terms(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model, x: model.sample(2, sampler="euler"),
            "sampler='euler': expected one of ancestral, ddim",
        ),
        (lambda model, x: model.sample(2, steps=0), r"sampler.steps=0: at least 1"),
        (lambda model, x: model.sample(2, steps=1001), "1000"),
        (lambda model, x: model.sample(0), "at least one sample"),
        (lambda model, x: model.sample(2, cond=3), "cond=3, but the model was trained without conditions"),
        (lambda model, x: model.sample(2, guidance=2.0), "guidance=2.0, but the model was trained without"),
        (lambda model, x: model.terms(x, 0), "t=0: expected integers from 1 to 1000"),
        (lambda model, x: model.terms(x, 1.5), "t=1.5: expected integers from 1 to 1000"),
        (lambda model, x: model.denoise(x.float(), [1, 2]), "t has 2 timesteps for 12 examples"),
        (
            lambda model, x: model.bound(x, estimator="full", target_stderr=0.1),
            "has no argument target_stderr",
        ),
        (lambda model, x: model.bound(x, seed=-1), "estimator.seed=-1"),
    ],
)
def test_arguments_that_cannot_work_are_refused(call, message, model, digits):
    with pytest.raises(ValueError, match=message):
        call(model, digits)


# ------------------------------------------------------------------------------------ load


def test_a_run_folder_is_read_inside_of_a_running_hydra_application(finished_run, model):
    with composing():
        running = GlobalHydra.instance().hydra
        again = nelbo.load(finished_run.folder, device="cpu")
        assert GlobalHydra.instance().hydra is running
    assert again.trained.path == model.trained.path


def test_a_foreign_class_is_refused_unless_it_is_trusted(checkpoint, tmp_path):
    content = torch_file.load(checkpoint)
    content["nelbo"]["config"]["model"]["_target_"] = "torch.nn.Identity"
    torch_file.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"model._target_=torch.nn.Identity is not a component of conf/"):
        nelbo.load(tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="do not fit the network"):  # the class is called
        nelbo.load(tmp_path / "foreign.ckpt", trust="torch.nn.Identity")


def test_what_cannot_be_loaded_is_named(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint file .*missing\.ckpt"):
        nelbo.load(tmp_path / "missing.ckpt")
    with pytest.raises(ValueError, match="weights=best: expected one of ema, raw"):
        nelbo.load(checkpoint, weights="best")
    with pytest.raises(ValueError, match="says itself how it was trained"):
        nelbo.load(checkpoint, experiment="mnist")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(
        ValueError, match="is not a checkpoint of nelbo; it looks like a dictionary of weight"
    ):
        nelbo.load(tmp_path / "other.pt")


OPENAI = (
    "data=patches",
    "data.size=16",
    "schedule.num_steps=100",
    "model.channels=32",
    "model.num_heads=2",
    "model.channel_mult=[1,2]",
    "model.num_res_blocks=1",
    "model.attention_resolutions=[8]",
)


def test_weights_of_improved_diffusion_are_detected(improved_diffusion_golden, tmp_path):
    golden = improved_diffusion_golden("cosine_learned_range")
    file = tmp_path / "published.pt"
    torch.save(golden.weights, file)
    with pytest.raises(ValueError, match="does not say how it was trained: name it, such as experiment="):
        nelbo.load(file)
    loaded = nelbo.load(file, experiment="iddpm_cifar10_hybrid", options=OPENAI, device="cpu")
    reference = nelbo.interop.from_improved_diffusion(golden.weights, **golden.flags)
    xt, t = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16), torch.tensor([1, 90])
    with torch.no_grad():
        expected = reference.denoiser(xt, reference.chain.level(t)).eps_hat
    torch.testing.assert_close(loaded.denoise(xt, t).eps_hat, expected)


@pytest.mark.slow
def test_a_folder_of_diffusers_is_detected(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    size = {"sample_size": 32, "block_out_channels": [32, 64], "layers_per_block": 1}
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    unet = diffusers.UNet2DModel(**size, **blocks)
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    loaded = nelbo.load(tmp_path / "pipeline", experiment="ddpm_cifar10", device="cpu")
    xt, t = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32), torch.tensor([1, 700])
    with torch.no_grad():
        expected = unet(xt, t - 1).sample
    torch.testing.assert_close(loaded.denoise(xt, t).eps_hat, expected, rtol=0, atol=1e-5)
