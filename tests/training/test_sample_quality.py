"""Sample quality in training: weights, frequency, and errors before training."""

import json
from urllib.error import URLError

import pytest
import torch

from nelbo.diffusion.samplers import DDIM
from nelbo.diffusion.spacings import Trailing
from nelbo.evaluation.generation import generate, training_chain
from nelbo.evaluation.sample_metrics import make_reference, sample_quality
from nelbo.evaluation.sample_metrics.features import Pixels
from nelbo.training.callbacks import SampleQuality

ON = ("callbacks=sample_quality", "callbacks.sample_quality.num_samples=50", "optimizer.lr=0.05")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NELBO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def measured(monkeypatch):
    """At which steps the quality is measured."""
    steps, measure = [], SampleQuality._measure

    def remember(self, trainer, *arguments):
        steps.append(trainer.global_step)
        return measure(self, trainer, *arguments)

    monkeypatch.setattr(SampleQuality, "_measure", remember)
    return steps


def by_hand(run, index) -> dict[str, float]:
    """The quality of samples drawn in another order, with the weights that the module has now."""
    sampler, spacing = DDIM(steps=2, clip=(-1.0, 1.0)), Trailing()
    chain = training_chain(sampler, spacing, run.module.bound.chain)
    denoise = run.module.denoiser
    x0 = [generate(sampler, denoise, chain, (1, 8, 8), part) for part in index.split(7)]
    return sample_quality(torch.cat(x0), make_reference(run.data, "train", Pixels()), Pixels())


@pytest.mark.slow
def test_quality_is_that_of_the_averaged_weights(tiny_run):
    run = tiny_run(*ON)
    run.fit()
    expected = by_hand(run, torch.arange(50).flip(0))
    reported = run.trainer.callback_metrics
    for name, value in expected.items():
        assert float(reported[f"val/{name}"]) == pytest.approx(value, rel=1e-5), name
    raw = torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)["current_model_state"]
    run.module.load_state_dict({name.removeprefix("module."): value for name, value in raw.items()})
    assert by_hand(run, torch.arange(50))["fd_pixels"] != pytest.approx(expected["fd_pixels"], rel=1e-3)
    assert (run.folder / "metrics.csv").read_text().split("\n")[0].count("fd_pixels") == 1


def test_the_ledger_of_the_comparison_is_written(tiny_run):
    run = tiny_run(*ON, "callbacks.sample_quality.split=test", "callbacks.ema=null")
    run.fit()
    written = json.loads((run.folder / "sample_quality.json").read_text())
    assert written["step"] == 6
    assert written["fd_pixels"] == pytest.approx(float(run.trainer.callback_metrics["val/fd_pixels"]))
    ledger = written["ledger"]
    assert (ledger["reference"]["split"], ledger["reference"]["examples"]) == ("test", "180 of 180")
    assert (ledger["num_samples"], ledger["steps"], ledger["weights"]) == (50, 2, "raw")
    assert ledger["timesteps"] == "500 1000"


def test_the_ledger_has_the_levels_of_a_chain_in_continuous_time(tiny_run):
    run = tiny_run(
        *ON, "objective=vlb", "schedule.num_steps=null", "variance=fixed_large", "trainer.max_steps=1",
        "sampler.steps=105", "callbacks.sample_quality.num_samples=4", "callbacks.sample_quality.pairwise=0",
    )  # fmt: skip
    run.fit()
    if run.module.validated_at != 1:
        run.trainer.validate(run.module, datamodule=run.data, verbose=False)
    ledger = json.loads((run.folder / "sample_quality.json").read_text())["ledger"]
    assert ledger["steps"] == 105
    u = [float(word) for word in ledger["timesteps"].split()]
    assert u == pytest.approx(
        training_chain(DDIM(steps=105), Trailing(), run.module.bound.chain).t().tolist(), rel=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(("every", "expected"), [(1, [2, 4, 6, 7]), (2, [4, 7]), (3, [6, 7]), (9, [7])])
def test_quality_is_measured_every_few_validations_and_at_the_end(every, expected, tiny_run, measured):
    run = tiny_run(
        *ON, "trainer.max_steps=7", "trainer.val_check_interval=2", f"callbacks.sample_quality.every={every}"
    )
    run.fit()
    if run.module.validated_at != 7:  # as train.py does
        run.trainer.validate(run.module, datamodule=run.data, verbose=False)
    assert measured == expected


@pytest.mark.slow
def test_quality_is_measured_at_the_end_of_the_last_epoch(tiny_run, measured):
    run = tiny_run(
        *ON,
        "trainer.max_steps=-1",
        "trainer.max_epochs=2",
        "+trainer.limit_train_batches=4",
        "trainer.val_check_interval=4",
        "lr_schedule=constant",
        "callbacks.sample_quality.every=9",
    )
    run.fit()
    assert run.module.validated_at == 8
    assert measured == [8]


@pytest.mark.slow
def test_conditional_samples_are_measured(tiny_run):
    run = tiny_run(*ON, "conditional=true")
    run.fit()
    assert "val/fd_pixels" in run.trainer.callback_metrics


@pytest.mark.slow
def test_data_that_is_no_image_has_a_quality_too(tiny_run):
    run = tiny_run(*ON, "data=gaussian", "sampler.clip=null", "callbacks.sample_quality.pairwise=100")
    run.fit()
    assert run.trainer.callback_metrics["val/fd_pixels"] > 0


MISTAKES = {
    "callbacks.sample_quality.num_samples=3": "callbacks.sample_quality.num_samples=3 must be at least 4",
    "callbacks.sample_quality.every=0": "callbacks.sample_quality.every=0: expected an integer >= 1",
    "features=inception": "cannot be downloaded (<urlopen error no route>): set features.weights_path",
    "features=inception features.weights_path=/nonexistent": "/nonexistent: there is no such file",
    "features=module": "features=module: which one?",
    "callbacks.sample_quality.split=tset": "split=tset: expected one of train, val, test",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line_before_training(arguments, command, tiny, monkeypatch):
    def offline(*arguments, **options):
        raise URLError("no route")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline)
    ended = command(*tiny, "logger=none", "callbacks=sample_quality", *arguments.split())
    assert ended.code == 1
    assert ended.err.startswith("error: ")
    assert MISTAKES[arguments] in ended.err
    assert ended.err.count("\n") == 1
    assert not (ended.folder / "metrics.csv").exists()
