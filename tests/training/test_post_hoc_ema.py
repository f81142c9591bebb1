"""Power-function averages of the weights, and averages of another length from their snapshots."""

import itertools

import numpy as np
import pytest
import torch
from lightning import Callback

from nelbo import torch_file
from nelbo.atomic_file import DamagedFileError
from nelbo.runs import ema_snapshots
from nelbo.runs.ema_snapshots import EMASnapshot
from nelbo.training.callbacks import PowerFunctionEMA
from nelbo.training.post_hoc_ema import (
    EMAProfile,
    _inner_product,
    average_of_length,
    post_hoc_coefficients,
    power_exponent,
    update_weight,
)

WIDTHS = (0.05, 0.1)
SETTINGS = ("callbacks=power_function_ema", "callbacks.samples=null", "optimizer.lr=0.05")


def direct_average(values, sigma_rel):
    """The average of values (T, D) by its definition: the integral of the density over each step."""
    u = np.arange(len(values) + 1) / len(values)
    return np.diff(u ** (power_exponent(sigma_rel) + 1)) @ values


def density(profile, t):
    gamma = power_exponent(profile.sigma_rel)
    return np.where(t <= profile.step, (gamma + 1) * t**gamma / profile.step ** (gamma + 1), 0.0)


# by the released code, training/phema.py of NVlabs/edm2
@pytest.mark.parametrize(
    ("sigma_rel", "gamma"),
    [(0.05, 16.972198602303447), (0.10, 6.937203937601809), (0.07, 11.244939447857924)],
)
def test_exponents_are_the_published_ones(sigma_rel, gamma):
    assert power_exponent(sigma_rel) == pytest.approx(gamma, rel=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.001, 0.02, 0.1, 0.25, 0.288])
def test_sigma_rel_is_the_standard_deviation_of_the_density(sigma_rel):
    gamma = power_exponent(sigma_rel)
    mean, square = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert (square - mean**2) ** 0.5 == pytest.approx(sigma_rel, rel=1e-6)


@pytest.mark.parametrize("sigma_rel", WIDTHS)
def test_updates_give_the_integral_of_the_density(sigma_rel):
    values = np.random.default_rng(0).standard_normal((50, 3))
    average, gamma = np.full(3, np.nan), power_exponent(sigma_rel)
    average = values[0] * update_weight(1, gamma)
    for step, value in enumerate(values[1:], start=2):
        average += update_weight(step, gamma) * (value - average)
    np.testing.assert_allclose(average, direct_average(values, sigma_rel), rtol=1e-12)


@pytest.mark.parametrize("a", [EMAProfile(30, 0.05), EMAProfile(100, 0.2)])
@pytest.mark.parametrize("b", [EMAProfile(30, 0.1), EMAProfile(70, 0.05), EMAProfile(100, 0.2)])
def test_inner_products_are_integrals(a, b):
    edges = np.linspace(0, 100, 1_000_001)
    t = (edges[1:] + edges[:-1]) / 2
    expected = (density(a, t) * density(b, t)).mean() * 100
    assert _inner_product(a, b) == pytest.approx(expected, rel=1e-5)
    assert _inner_product(b, a) == _inner_product(a, b)


def test_coefficients_are_the_published_ones():
    """Of the released code, for 8 snapshots of two widths and the width 0.07 at the last."""
    stored = [EMAProfile(4096 * i, width) for i in range(1, 9) for width in WIDTHS]
    expected = [
        *(3.8923e-12, -9.5613e-11, 1.738008e-08, -1.182257e-07, 2.2239824e-06, -9.1411604e-06),
        *(6.6088575e-05, -2.1443138302e-04, 8.8659745140e-04, -2.5444840587e-03, 7.2521780242e-03),
        *(-1.9405441994e-02, 4.2397913311e-02, -0.10864094698, 0.38708213040, 0.69312741477),
    ]
    actual = post_hoc_coefficients(stored, EMAProfile(8 * 4096, 0.07))
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-14)


def test_an_average_that_is_stored_is_returned():
    stored = [EMAProfile(100 * i, width) for i in range(1, 41) for width in WIDTHS]
    coefficients = post_hoc_coefficients(stored, EMAProfile(4000, 0.1))
    np.testing.assert_allclose(coefficients, [0.0] * 79 + [1.0], atol=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.07, 0.15, 0.25])
def test_error_of_another_length_falls_with_the_number_of_snapshots(sigma_rel):
    """Of the average of a random walk, in units of its distance to the stored average."""
    steps, target = 2048, EMAProfile(2048, sigma_rel)
    values = np.random.default_rng(0).standard_normal((steps, 32)).cumsum(axis=0)
    expected = direct_average(values, sigma_rel)
    unit = np.linalg.norm(expected - direct_average(values, 0.05))
    errors = []
    for count in (4, 8, 16, 32, 64):
        stored = [EMAProfile(steps * k // count, width) for k in range(1, count + 1) for width in WIDTHS]
        averages = np.array([direct_average(values[: p.step], p.sigma_rel) for p in stored])
        errors.append(np.linalg.norm(post_hoc_coefficients(stored, target) @ averages - expected) / unit)
    assert all(later < earlier / 1.8 for earlier, later in itertools.pairwise(errors)), errors
    assert errors[-1] < 0.005


class Record(Callback):
    """Records the weights after every step, (parameters,) in float64."""

    def __init__(self) -> None:
        self.raw = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step > len(self.raw):
            self.raw.append(flat(dict(pl_module.named_parameters())))


def flat(named) -> np.ndarray:
    return torch.cat([value.detach().flatten().double() for value in named.values()]).numpy()


def fitted(tiny_run, *overrides, steps=12, **options):
    record = Record()
    run = tiny_run(
        *SETTINGS,
        f"trainer.max_steps={steps}",
        "callbacks.power_function_ema.every_n_steps=2",
        *overrides,
        callbacks=[record],
        **options,
    )
    run.fit()
    run.raw = np.stack(record.raw)
    return run


def test_snapshots_and_checkpoints_have_the_averages(tiny_run):
    run = fitted(tiny_run, "callbacks.ema=null")
    snapshots = list(ema_snapshots.read_before(run.folder, 100))
    assert [snapshot.step for snapshot in snapshots] == [2, 4, 6, 8, 10, 12]
    checkpoint = torch_file.load(run.folder / "checkpoints/last.ckpt")
    snapshots.append(EMASnapshot.from_dict(checkpoint[ema_snapshots.KEY], "checkpoint"))
    for snapshot in snapshots:
        for width, average in zip(snapshot.sigma_rel, snapshot.averages, strict=True):
            expected = direct_average(run.raw[: snapshot.step], width)
            np.testing.assert_allclose(flat(average), expected, rtol=1e-5, atol=1e-6)


def test_average_of_another_length_is_near_the_direct_one(tiny_run):
    run = fitted(tiny_run)
    checkpoint = run.folder / "checkpoints/last.ckpt"
    average = average_of_length(checkpoint, 0.07)
    assert average.keys() == torch_file.load(checkpoint)["state_dict"].keys()
    expected = direct_average(run.raw, 0.07)
    unit = np.linalg.norm(expected - direct_average(run.raw, 0.05))
    assert np.linalg.norm(flat(average) - expected) < 0.2 * unit
    stored = average_of_length(checkpoint, 0.05)
    np.testing.assert_allclose(flat(stored), direct_average(run.raw, 0.05), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_accumulated_gradients_are_one_step(tiny_run):
    run = fitted(tiny_run, "trainer.accumulate_grad_batches=2", steps=4)
    assert [snapshot.step for snapshot in ema_snapshots.read_before(run.folder, 100)] == [2, 4]
    [*_, last] = ema_snapshots.read_before(run.folder, 100)
    np.testing.assert_allclose(flat(last.averages[0]), direct_average(run.raw, 0.05), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_resumed_run_writes_the_same_snapshots(tiny_run, tmp_path):
    whole = fitted(tiny_run, "trainer.val_check_interval=5", folder=tmp_path / "whole")
    previous = torch_file.load(whole.folder / "checkpoints/previous.ckpt")
    assert previous["global_step"] == 10
    run = tiny_run(
        *SETTINGS,
        "trainer.max_steps=12",
        "trainer.val_check_interval=5",
        "callbacks.power_function_ema.every_n_steps=2",
        folder=tmp_path / "resumed",
    )
    run.trainer.fit(
        run.module,
        datamodule=run.data,
        ckpt_path=whole.folder / "checkpoints/previous.ckpt",
        weights_only=True,
    )
    [resumed] = ema_snapshots.read_before(run.folder, 100)
    *_, expected = ema_snapshots.read_before(whole.folder, 100)
    assert resumed.step == expected.step == 12
    for one, other in zip(resumed.averages, expected.averages, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in expected.averages[0])


def test_a_resume_with_other_averages_is_refused():
    module = torch.nn.Linear(3, 2)

    def resume(content, sigma_rel=WIDTHS):
        PowerFunctionEMA("unused", sigma_rel).on_load_checkpoint(None, module, content)

    def checkpoint(named):
        return {ema_snapshots.KEY: EMASnapshot(2, list(WIDTHS), [dict(named)] * 2).to_dict()}

    own = checkpoint(module.named_parameters())
    with pytest.raises(ValueError, match=r"sigma_rel=\[0.2\].* has averages of \[0.05, 0.1\]"):
        resume(own, [0.2])
    with pytest.raises(ValueError, match="are of another network"):
        resume(checkpoint(torch.nn.Linear(1, 2).named_parameters()))
    with pytest.raises(ValueError, match="was trained without it"):
        resume({})
    resume(own)


@pytest.fixture
def stored(tmp_path):
    """A run folder with a checkpoint of step 4, and snapshots of the steps 2, 4 and 6."""
    for step in (2, 4, 6):
        averages = [{"a": torch.full((2,), float(step))}] * 2
        ema_snapshots.write(tmp_path, EMASnapshot(step, list(WIDTHS), averages))
    (tmp_path / "checkpoints").mkdir()
    torch_file.save(
        {ema_snapshots.KEY: EMASnapshot(4, list(WIDTHS), averages).to_dict()}, tmp_path / "checkpoints/a.ckpt"
    )
    return tmp_path


def test_a_checkpoint_uses_the_snapshots_before_it(stored):
    result = average_of_length(stored / "checkpoints/a.ckpt", 0.07)["a"]
    profiles = [EMAProfile(step, width) for step in (2, 4) for width in WIDTHS]
    values = [2.0, 2.0, 6.0, 6.0]  # of the checkpoint, not of the file of step 4
    expected = post_hoc_coefficients(profiles, EMAProfile(4, 0.07)) @ values
    torch.testing.assert_close(result, torch.full((2,), float(expected)))


def test_missing_snapshots_are_one_line_that_says_how_to_train(stored):
    checkpoint = stored / "checkpoints/a.ckpt"
    for path in (stored / ema_snapshots.FOLDER).iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"ema=0.07: .* has no snapshot before step 4 of .*: train with "):
        average_of_length(checkpoint, 0.07)
    torch_file.save({}, checkpoint)
    for path in (checkpoint, stored):
        with pytest.raises(ValueError, match=r"averages: train with callbacks=power_function_ema$"):
            average_of_length(path, 0.07)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"step": 2},
        {"step": 2, "sigma_rel": [0.05], "averages": []},
        {"step": 0, "sigma_rel": [0.05], "averages": [{"a": torch.zeros(1)}]},
        {"step": 2, "sigma_rel": [0.5], "averages": [{"a": torch.zeros(1)}]},
        {"step": 2, "sigma_rel": [0.05], "averages": [{"a": 1}]},
        {"step": 2, "sigma_rel": [0.05, 0.1], "averages": [{"a": torch.zeros(1)}, {"a": torch.zeros(2)}]},
    ],
)
def test_damaged_snapshots_are_refused_by_name(content, stored):
    path = stored / ema_snapshots.FOLDER / "step_00000002.pt"
    torch_file.save(content, path)
    with pytest.raises(DamagedFileError, match=r"step_00000002.pt does not have the power-function averages"):
        average_of_length(stored / "checkpoints/a.ckpt", 0.07)


def test_snapshots_of_another_network_are_refused(stored):
    averages = [{"a": torch.zeros(3)}] * 2
    ema_snapshots.write(stored, EMASnapshot(3, list(WIDTHS), averages))
    with pytest.raises(ValueError, match="snapshots of another network"):
        average_of_length(stored / "checkpoints/a.ckpt", 0.07)


def test_removing_keeps_the_snapshots_up_to_a_step(stored):
    ema_snapshots.remove_after(stored, 4)
    assert [snapshot.step for snapshot in ema_snapshots.read_before(stored, 100)] == [2, 4]
    ema_snapshots.remove_after(stored, 0)
    assert not list(ema_snapshots.read_before(stored, 100))
