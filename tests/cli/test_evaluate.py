"""``python evaluate.py``: what it leaves behind, on short chains, with other variances, and refuses."""

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from nelbo.data.digits import Digits
from nelbo.data.examples import TensorExamples
from nelbo.runs.run_folder import read_run

ROOT = Path(__file__).parents[2]
EXAMPLES = 180  # in each held-out split of the digits
QUICK = ("estimator=stratified", "estimator.evaluations_per_example=4")
BITS = 64 * math.log(2)


@pytest.fixture
def checkpoint(finished_run, tmp_path) -> Path:
    """A copy, for what is measured is kept beside it."""
    copy = tmp_path / "model.ckpt"
    copy.write_bytes((finished_run.folder / "checkpoints/last.ckpt").read_bytes())
    return copy


def result_of(ended) -> dict:
    assert ended.code == 0, ended.err
    return json.loads((ended.folder / "evaluation.json").read_text())


def examples(folder: Path) -> torch.Tensor:
    """(N, columns) of examples.parquet."""
    table = pq.read_table(folder / "examples.parquet")
    return torch.stack([torch.tensor(column.to_numpy()) for column in table.columns], dim=1)


@pytest.mark.slow
def test_seed_is_that_of_the_measurement(evaluate, checkpoint, tmp_path):
    options = (f"checkpoint={checkpoint}", *QUICK, "max_examples=8")
    results = {
        given: result_of(evaluate(*options, *given, folder=tmp_path / f"measured{number}"))
        for number, given in enumerate(((), ("seed=0",), ("seed=5",), ("estimator.seed=5",)))
    }
    default, zero, five, of_estimator = (
        (result["test/bpd"], result["ledger"]["seed"]) for result in results.values()
    )
    assert default == zero
    assert five == of_estimator
    assert (zero[1], five[1]) == (0, 5)
    assert five[0] != zero[0]


def test_evaluation_writes_bound_and_ledger(evaluate, checkpoint):
    ended = evaluate(f"checkpoint={checkpoint}", "estimator.target_stderr=0.5")
    result = result_of(ended)
    parts = [result[f"test/{part}"] for part in ("L_0", "L_t", "L_T")]
    assert sum(parts) == pytest.approx(result["test/bpd"], rel=1e-12)
    whole, chance, data_set = (result[f"test/bpd_stderr{end}"] for end in ("", "_monte_carlo", "_data_set"))
    assert chance > 0
    # of the little that this network knows about any example, nothing may be left beside chance
    assert data_set**2 == pytest.approx(max(whole**2 - chance**2, 0.0), abs=1e-9)
    shares = [value for name, value in result.items() if name.startswith("test/share/")]
    assert sum(shares) == pytest.approx(1.0)
    assert result["network_evaluations"] == result["ledger"]["num_evaluations"]
    expected = {
        "data": "Digits",
        "split": "test",
        "num_examples": EXAMPLES,
        "T": 1000,
        "K": 1000,
        "weights": "ema",
        "precision": "float32",
        "clip": None,
        "variance": "LearnedRange",
    }
    assert {name: result["ledger"][name] for name in expected} == expected
    assert result["ledger"]["stderr"] / BITS == pytest.approx(whole)
    assert result["checkpoint"] == str(checkpoint)
    assert result["step"] == 6
    assert "variational bound, bits/dim" in ended.out
    assert "reverse variance, bits/dim" in ended.out
    assert sorted(path.name for path in checkpoint.parent.glob("model*")) == ["model.ckpt"]


def test_rate_and_distortion_agree_with_step_table(evaluate, checkpoint):
    result = result_of(evaluate(f"checkpoint={checkpoint}", *QUICK))
    rows = result["steps"]
    assert rows[0]["rate"] == pytest.approx(result["test/L_t"] + result["test/L_T"])
    assert rows[-1]["rate"] == pytest.approx(result["test/L_T"])
    assert all(a["rate"] >= b["rate"] for a, b in pairwise(rows))
    assert sum(row["contribution"] for row in rows) == pytest.approx(result["test/L_0"] + result["test/L_t"])
    assert all(0 < row["rmse"] < 255 for row in rows if row["t"] > 1)


def test_example_bounds_average_to_the_bound(evaluate, checkpoint):
    ended = evaluate(f"checkpoint={checkpoint}", *QUICK)
    result = result_of(ended)
    table = pq.read_table(ended.folder / "examples.parquet")
    assert table.column_names == ["L_0", "t_2_10", "t_11_100", "t_101_1000", "L_T"]
    assert table.num_rows == EXAMPLES
    totals = examples(ended.folder).sum(1) / BITS
    assert totals.mean().item() == pytest.approx(result["test/bpd"])
    assert result["test/bpd_stderr"] == pytest.approx(totals.std().item() / EXAMPLES**0.5)


def test_class_bounds_average_to_the_bound(evaluate, checkpoint):
    ended = evaluate(f"checkpoint={checkpoint}", *QUICK, "max_examples=120", "by_class=true")
    result = result_of(ended)
    classes = result["classes"]
    assert [row["class"] for row in classes] == list(range(10))
    assert sum(row["count"] for row in classes) == 120
    for part in ("bpd", "L_0", "L_t", "L_T"):
        mean = sum(row["count"] * row[part] for row in classes) / 120
        assert mean == pytest.approx(result[f"test/{part}"], rel=1e-9)
    # against the labels as the data itself has them
    data = Digits()
    data.subset("test", 120)
    batch = next(iter(data.test_dataloader()))
    threes = examples(ended.folder)[batch.cond == 3].sum(1) / BITS
    assert classes[3]["bpd"] == pytest.approx(threes.mean().item())
    assert classes[3]["bpd_stderr"] == pytest.approx(threes.std().item() / len(threes) ** 0.5)
    assert "by class, bits/dim" in ended.out


def test_inseparable_error_is_reported_as_total(evaluate, checkpoint):
    """That of a single draw of L_t: in the terminal, in the file and on the page."""
    options = ("estimator=stratified", "estimator.evaluations_per_example=3", "max_examples=20")
    ended = evaluate(f"checkpoint={checkpoint}", *options)
    result = result_of(ended)
    assert result["test/bpd_stderr"] > 0
    assert [name for name in result if "monte_carlo" in name or "data_set" in name] == []
    assert [line for line in ended.out.split("\n") if line.startswith(("MC error", "data error"))] == []
    assert "this estimator does not separate them" in " ".join(ended.out.split())
    assert "of the error, " not in (ended.folder / "report.html").read_text()


@pytest.mark.slow
def test_data_without_classes_has_no_bound_by_class(evaluate, checkpoint, monkeypatch):
    monkeypatch.setattr("nelbo.data.digits.TensorExamples", lambda x, label: TensorExamples(x))
    assert "classes" not in result_of(evaluate(f"checkpoint={checkpoint}", *QUICK, "max_examples=5"))
    refused = evaluate(f"checkpoint={checkpoint}", *QUICK, "by_class=true")
    assert (refused.code, refused.err) == (1, "error: by_class=true, but Digits has no classes\n")
    assert not (refused.folder / "evaluation.json").exists()


def test_one_example_has_no_error_and_still_a_report(evaluate, checkpoint):
    ended = evaluate(f"checkpoint={checkpoint}", *QUICK, "max_examples=1")
    assert result_of(ended)["test/bpd_stderr"] is None
    assert (ended.folder / "report.html").exists()
    run = read_run(ended.folder)
    assert run.final("test/bpd") == pytest.approx(result_of(ended)["test/bpd"])
    assert run.final("test/bpd_stderr") is None


@pytest.mark.slow
def test_bound_does_not_depend_on_batch_size(evaluate, checkpoint):
    results = [
        result_of(evaluate(f"checkpoint={checkpoint}", *QUICK, "data=digits", f"data.eval_batch_size={size}"))
        for size in (512, 50)
    ]
    first, second = ({k: v for k, v in r.items() if isinstance(v, float)} for r in results)
    assert first == pytest.approx(second, rel=1e-5)


def test_a_subset_is_drawn_from_the_whole_split(evaluate, checkpoint):
    ended = evaluate(f"checkpoint={checkpoint}", *QUICK, "max_examples=20")
    assert result_of(ended)["ledger"]["num_examples"] == 20
    assert len(examples(ended.folder)) == 20


@pytest.mark.slow
def test_training_measures_its_test_split_as_evaluation_does(evaluate, checkpoint, finished_run):
    """The same estimator, seed and weights."""
    summary = json.loads((finished_run.folder / "summary.json").read_text())
    result = result_of(evaluate(f"checkpoint={checkpoint}", *QUICK))
    for part in ("bpd", "L_0", "L_t", "L_T"):
        assert result[f"test/{part}"] == pytest.approx(summary[f"test/{part}"], rel=1e-5)
    again = evaluate(f"checkpoint={checkpoint}", *QUICK).folder
    one, two = examples(finished_run.folder), examples(again)
    assert (one - two).abs().max() < 1e-3 * one.max()


# ------------------------------------------------------------------ chains and variances


@pytest.mark.parametrize(
    "spacing",
    [
        "even",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("trailing", "quadratic", "uniform_logsnr")),
    ],
)
def test_shorter_chain_has_its_own_bound(spacing, evaluate, checkpoint):
    ended = evaluate(f"checkpoint={checkpoint}", "estimator=full", f"spacing={spacing}", "steps=5")
    result = result_of(ended)
    assert (result["ledger"]["K"], result["ledger"]["T"]) == (5, 1000)
    assert len(result["ledger"]["timesteps"].split()) == len(result["steps"]) == 5
    assert result["network_evaluations"] == (5 + 1 + 4) * EXAMPLES  # L_0 twice, and each other step


@pytest.mark.slow
def test_sweep_over_number_of_steps(evaluate, checkpoint, tmp_path):
    ended = evaluate(
        f"checkpoint={checkpoint}", "estimator=full", "spacing=even,quadratic", "steps=2,3",
        f"hydra.sweep.dir={tmp_path / 'sweep'}", "max_examples=5", "-m",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = [json.loads((tmp_path / f"sweep/{job}/evaluation.json").read_text()) for job in range(4)]
    assert [result["ledger"]["K"] for result in found] == [2, 3, 2, 3]


@pytest.mark.slow
def test_optimal_chain_is_measured_once_and_cached(evaluate, checkpoint, monkeypatch):
    monkeypatch.setattr("nelbo.compose.shorter_chain.EXAMPLES", 2)
    options = (f"checkpoint={checkpoint}", "spacing=optimal", "estimator=full")
    first = result_of(evaluate(*options, "steps=4"))
    kept = checkpoint.with_name("model.ema.learnedrange.step_costs.npz")
    written = kept.stat().st_mtime_ns
    again = result_of(evaluate(*options, "steps=4"))
    assert again["test/bpd"] == first["test/bpd"]
    assert kept.stat().st_mtime_ns == written
    even = result_of(evaluate(f"checkpoint={checkpoint}", "estimator=full", "steps=4"))
    assert first["test/bpd"] < even["test/bpd"]
    # other weights, other costs: they are not taken for those of this model
    raw = evaluate(*options, "steps=4", "weights=raw")
    assert result_of(raw)["ledger"]["weights"] == "raw"
    assert checkpoint.with_name("model.raw.learnedrange.step_costs.npz").is_file()


@pytest.mark.slow
def test_analytic_variance_is_measured_once_and_cached(evaluate, checkpoint):
    first = result_of(evaluate(f"checkpoint={checkpoint}", *QUICK, "variance=analytic"))
    kept = checkpoint.with_name("model.ema.moments.npz")
    content = kept.read_bytes()
    assert list(first["variances"]) == ["Analytic", "LearnedRange", "FixedSmall", "FixedLarge"]
    assert first["variances"]["Analytic"]["test/bpd"] == first["test/bpd"]
    # no fixed one is better, up to the error of the moments: the first has 64 draws of 64 dimensions, so 2%
    # or 0.002 bits/dim of L_0. fixed_large is as good while the network knows nothing
    for name in ("FixedSmall", "FixedLarge"):
        other = first["variances"][name]
        assert other["difference"] > -3 * (0.002 + other["difference_stderr"])
    kept.write_bytes(content[:100])
    with pytest.warns(UserWarning, match=r"model\.ema\.moments\.npz is damaged: it is measured again"):
        again = result_of(evaluate(f"checkpoint={checkpoint}", *QUICK, "variance=analytic"))
    assert again["test/bpd"] == first["test/bpd"]
    assert kept.read_bytes() != content[:100]


@pytest.mark.slow
def test_additional_variances_agree_with_separate_evaluations(evaluate, checkpoint):
    together = result_of(evaluate(f"checkpoint={checkpoint}", *QUICK))["variances"]
    for option, name in (("fixed_small", "FixedSmall"), ("fixed_large", "FixedLarge")):
        alone = result_of(evaluate(f"checkpoint={checkpoint}", *QUICK, f"variance={option}"))
        assert alone["ledger"]["variance"] == name
        assert alone["test/bpd"] == pytest.approx(together[name]["test/bpd"], rel=1e-6)


@pytest.mark.slow
def test_ledger_names_clipping_and_decoder(evaluate, checkpoint):
    plain = result_of(evaluate(f"checkpoint={checkpoint}", *QUICK))
    options = ("clip=true", "decoder=discretized_gaussian", "decoder.cdf=tanh")
    other = result_of(evaluate(f"checkpoint={checkpoint}", *QUICK, *options))
    assert other["ledger"]["clip"] == [-1.0, 1.0]
    assert other["ledger"]["decoder"] == "discretized Gaussian, 17 levels, tanh CDF"
    assert other["test/bpd"] != plain["test/bpd"]


@pytest.mark.slow
def test_a_published_model_is_measured_through_an_experiment(evaluate, tmp_path, improved_diffusion_golden):
    """A small network of that project; the bound of a few patches is that of the model built by its flags."""
    from nelbo.data.patches import Patches
    from nelbo.diffusion.bound import VariationalBound
    from nelbo.diffusion.decoders import DiscretizedGaussian
    from nelbo.evaluation.bound_variant import BoundVariant
    from nelbo.evaluation.estimators import StratifiedEstimator
    from nelbo.evaluation.measure import measure
    from nelbo.evaluation.units import unit_of
    from nelbo.interop import from_improved_diffusion

    golden = improved_diffusion_golden("cosine_learned_range")
    file = tmp_path / "published.pt"
    torch.save(golden.weights, file)
    published = (f"checkpoint={file}", "format=improved_diffusion")
    is_refused(evaluate(*published), "does not say how it was trained: name it, such as experiment=")
    hybrid = "experiment=iddpm_cifar10_hybrid"
    is_refused(evaluate(*published, hybrid), "do not fit the network of its configuration: missing: ")

    flags = (
        "data=patches",
        "data.size=16",
        "schedule.num_steps=100",
        "model.channels=32",
        "model.num_heads=2",
        "model.channel_mult=[1,2]",
        "model.num_res_blocks=1",
        "model.attention_resolutions=[8]",
    )
    tiny = ("estimator.evaluations_per_example=3", "estimator.control_variate=false")
    result = result_of(
        evaluate(*published, hybrid, f"trained_with={json.dumps(flags)}", "estimator=stratified", *tiny)
    )
    model = from_improved_diffusion(golden.weights, **golden.flags)
    data, bound = Patches(size=16), VariationalBound(model.chain, DiscretizedGaussian(256))
    n = len(data.split("test"))
    batch = data.take("test", n)
    [expected] = measure(
        StratifiedEstimator(3), [BoundVariant(bound)], model.denoiser, [batch], n, unit_of(3 * 16 * 16, 256)
    )
    in_bits = expected.estimate.total.mean / (3 * 16 * 16 * math.log(2))
    assert result["test/bpd"] == pytest.approx(in_bits, rel=1e-5)


@pytest.mark.slow
def test_two_processes_measure_the_same_bound_as_one(checkpoint, tmp_path):
    results = []
    for devices in (1, 2):
        folder = tmp_path / f"of{devices}"
        options = ("device=cpu", f"devices={devices}", "estimator.target_stderr=0.5", "variance=analytic")
        command = [
            sys.executable,
            "evaluate.py",
            f"checkpoint={checkpoint}",
            f"hydra.run.dir={folder}",
            *options,
        ]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("variational bound") == 1
        results.append(json.loads((folder / "evaluation.json").read_text()))
    one, two = ({k: v for k, v in r.items() if isinstance(v, float | int)} for r in results)
    assert one == pytest.approx(two, rel=1e-5)
    assert not (tmp_path / "of2/.pl_hydra_local_rank=1/evaluation.json").exists()


# ------------------------------------------------------------------ wrong input

MISTAKES = {
    "": "which model? checkpoint=outputs/",
    "checkpoint={model} steps=1001": "steps=1001: the schedule has only 1000 timesteps",
    "checkpoint={model} steps=0": "steps=0: expected an integer >= 1 or null",
    "checkpoint={model} spacing=optimal steps=2000": "steps=2000: the schedule has only 1000 timesteps",
    "checkpoint={model} spacing=optimal": "spacing= needs the number of steps of the chain, such as steps=16",
    "checkpoint={model} spacing=optimum": "there is no spacing=optimum (did you mean optimal?)",
    "checkpoint={model} data=patches": "the model is for data of shape (1, 8, 8) with 17 levels, and Patches "
    "has shape (3, 32, 32) with 256 levels",
    "checkpoint={model} data=gaussian": "Gaussian has shape (2,) with continuous levels",
    "checkpoint={model} model=unet_ddpm": "the network is the checkpoint's",
    "checkpoint={model} data=digits model=mlp": "the network is the checkpoint's",
    "checkpoint={model} decoder=gaussian": "use decoder=discretized_gaussian",
    "checkpoint={model} split=tset": "split=tset: expected one of train, val, test",
    "checkpoint={model} weights=avg": "weights=avg: expected one of ema, raw",
    "checkpoint={model} experiment=mnist": "says itself how it was trained: leave it out",
    "checkpoint={model} format=improved_diffusion": "a checkpoint of nelbo: use format=nelbo",
    "checkpoint={model} max_examples=0": "max_examples=0: expected an integer >= 1 or null",
    "checkpoint={model} +schedule=linear": "evaluate.py has no option schedule",
    "checkpoint={model} schedule=linear": "evaluate.py has no option schedule",
    "checkpoint={model} steps=many": "steps=many: expected an integer >= 1 or null",
    "checkpoint={model} devices=3": "devices=3 do not share a batch of 512 evenly",
    "checkpoint={model} device=tpu": "device=tpu: expected one of auto, cpu, cuda",
    "checkpoint={model} devices=0": "devices=0: expected an integer >= 1",
    "checkpoint={model} estimator.target_stderr=0": "estimator.target_stderr=0: expected a number > 0",
    "checkpoint={model} spacin=optimal": "there is no option spacin (did you mean spacing?)",
    "checkpoint={model} estimatr=full": "there is no option estimatr (did you mean estimator?)",
    "checkpoint={model} target_stderr=0.2": "no option target_stderr (did you mean estimator.target_stderr?)",
    "checkpoint=/nonexistent.ckpt": "there is no checkpoint file /nonexistent.ckpt",
}


def is_refused(ended, expected: str) -> None:
    assert ended.code == 1
    assert expected in ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, "more than one line"
    assert not (ended.folder / "evaluation.json").exists()
    assert not (ended.folder / "bound.parquet").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        # types and ranges are tested without the command, in test_options.py; several processes take long
        pytest.param(
            arguments, marks=[pytest.mark.slow] if ": expected" in said or "devices=" in arguments else []
        )
        for arguments, said in MISTAKES.items()
    ],
)
def test_invalid_evaluation_options_are_refused_before_writing(arguments, evaluate, checkpoint):
    is_refused(evaluate(*arguments.format(model=checkpoint).split()), MISTAKES[arguments])
    assert [path.name for path in checkpoint.parent.glob("model*")] == ["model.ckpt"]


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def bad_checkpoints(good: Path, folder: Path):
    """A name for each, what is wrong with the file, and what is said of it."""
    content = torch.load(good, weights_only=True)

    def altered(change) -> dict:
        state = dict(content["state_dict"])
        change(state)
        return {**content, "state_dict": state}

    first = next(iter(content["state_dict"]))
    yield "truncated", good.read_bytes()[: good.stat().st_size // 2], "is it whole?"
    yield "empty", b"", "is it whole?"
    yield "another project", {"model": {"w": torch.zeros(2)}}, "is not a checkpoint of nelbo"
    yield "code", {"nelbo": Code(folder / "touched")}, "or one with code in it, and is not loaded"
    yield (
        "missing keys",
        altered(lambda state: state.pop(first)),
        f"missing: {first.rpartition('network.')[2]}",
    )
    yield (
        "extra keys",
        altered(lambda s: s.update({"denoiser.network.more": torch.zeros(1)})),
        "unexpected: more",
    )
    yield "other shapes", altered(lambda s: s.update({first: torch.zeros(1)})), "of another shape: "


@pytest.mark.parametrize("number", range(7))
def test_a_bad_checkpoint_is_one_line_and_its_code_is_not_run(number, evaluate, checkpoint, tmp_path):
    _, content, expected = list(bad_checkpoints(checkpoint, tmp_path))[number]
    bad = tmp_path / "bad.ckpt"
    if isinstance(content, bytes):
        bad.write_bytes(content)
    else:
        torch.save(content, bad)
    before = bad.read_bytes()
    is_refused(evaluate(f"checkpoint={bad}"), expected)
    assert bad.read_bytes() == before
    assert not (tmp_path / "touched").exists()


def test_another_number_of_levels_is_refused(evaluate, checkpoint, monkeypatch):
    from nelbo.data.digits import Digits

    finer = Digits().spec.__class__(shape=(1, 8, 8), levels=256, num_classes=10)
    monkeypatch.setattr("nelbo.data.fashion_mnist.FashionMNIST.spec", property(lambda self: finer))
    ended = evaluate(f"checkpoint={checkpoint}", "data=fashion_mnist")
    is_refused(ended, "with 17 levels, and FashionMNIST has shape (1, 8, 8) with 256 levels")


def test_a_folder_that_holds_an_evaluation_is_not_written_into(evaluate, checkpoint):
    first = evaluate(f"checkpoint={checkpoint}", *QUICK)
    before = (first.folder / "evaluation.json").read_bytes()
    second = evaluate(f"checkpoint={checkpoint}", *QUICK, folder=first.folder)
    assert second.code == 1
    assert "already holds evaluation.json: choose another hydra.run.dir" in second.err
    assert (first.folder / "evaluation.json").read_bytes() == before


@pytest.mark.slow
def test_exported_model_has_the_same_bound(evaluate, tmp_path, run_in_process, tiny):
    """As a user does it: train with all defaults but a small network, export, evaluate the folder."""
    from nelbo.__main__ import main

    small = [option for option in tiny if not option.startswith("model")]
    network = ("model.channels=32", "model.channel_mult=[1]", "model.attention_resolutions=[]")
    assert run_in_process("train", *small, *network, folder=tmp_path / "run") == 0
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    assert main(["export", str(checkpoint), str(tmp_path / "exported")]) == 0
    before = result_of(evaluate(f"checkpoint={checkpoint}", *QUICK))
    after = result_of(evaluate(f"checkpoint={tmp_path / 'exported'}", "format=diffusers", *QUICK))
    assert after["test/bpd"] == pytest.approx(before["test/bpd"], rel=1e-4)


@pytest.mark.parametrize("data", [(), ("data=gaussian",)])
def test_a_folder_for_data_without_files_is_refused(evaluate, checkpoint, data):
    name = "Gaussian" if data else "Digits"
    refused = evaluate(f"checkpoint={checkpoint}", *data, "root=datasets")
    assert refused.err == f"error: root=datasets: {name} reads no files from a folder: leave out root\n"


def test_load_model_needs_no_command(checkpoint):
    from hydra.core.global_hydra import GlobalHydra

    from nelbo.compose.trained import load_model, read_data

    GlobalHydra.instance().clear()  # what a command before this one may have left
    averaged, raw = load_model(checkpoint), load_model(str(checkpoint), "weights=raw")
    assert (averaged.weights.kind, raw.weights.kind) == ("ema", "raw")
    assert not averaged.module.training
    assert len(read_data(averaged).split("test")) == EXAMPLES
    pairs = zip(averaged.module.parameters(), raw.module.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    with pytest.raises(ValueError, match="there is no"):
        load_model(checkpoint.with_name("missing=,.ckpt"))


@pytest.mark.slow
def test_an_average_of_another_length_is_measured_from_its_snapshots(command, evaluate, tiny):
    snapshots = ("callbacks=power_function_ema", "callbacks.power_function_ema.every_n_steps=2")
    run = command(*tiny, "logger=none", *snapshots)
    assert run.code == 0, run.err
    checkpoint = f"checkpoint={run.folder / 'checkpoints/last.ckpt'}"
    found = evaluate(checkpoint, "ema=0.07", *QUICK)
    assert result_of(found)["ledger"]["weights"] == "ema_0.07"
    assert "averaged weights (sigma_rel 0.07)" in (found.folder / "report.html").read_text()
    assert result_of(found)["test/bpd"] != result_of(evaluate(checkpoint, *QUICK))["test/bpd"]
    refused = evaluate(checkpoint, "ema=0.07", "weights=raw")
    assert (refused.code, refused.err) == (1, "error: ema=0.07 is an average: leave out weights=raw\n")


@pytest.mark.parametrize("value", ["0", "0.3", "long"])
def test_a_length_out_of_range_is_refused(evaluate, checkpoint, value):
    refused = evaluate(f"checkpoint={checkpoint}", f"ema={value}")
    assert refused.err == f"error: ema={value}: expected a number >= 0.001 and <= 0.288 or null\n"


def test_a_length_without_snapshots_is_refused(evaluate, checkpoint):
    refused = evaluate(f"checkpoint={checkpoint}", "ema=0.1")
    remedy = "train with callbacks=power_function_ema"
    assert refused.err == f"error: ema=0.1: {checkpoint} has no power-function averages: {remedy}\n"
