"""A project whose conditions are a mapping of tensors: trained, evaluated, sampled, from Python."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import nelbo
from nelbo.cond import Cond
from nelbo.data import Batch, CondSpec, DataModule, DataSpec
from nelbo.data.examples import TensorExamples

STD = 0.1
CONDITIONS = {"shift": CondSpec(null=-5.0), "signs": CondSpec(shape=(2,), null=0, dtype="int64")}


class Shifted(DataModule):
    """N(shift * signs, STD^2) in two dimensions, given a shift in [1, 2] and a sign of each dimension."""

    def __init__(self, n: int = 4000, conditions=None, **loading) -> None:
        super().__init__(**loading)
        self.n = n
        self.conditions = conditions or CONDITIONS

    @property
    def spec(self) -> DataSpec:
        return DataSpec((2,), None, None, cond=self.conditions)

    def read_split(self, name) -> TensorExamples:
        random = torch.Generator().manual_seed(("train", "val", "test").index(name))
        n = self.n if name == "train" else 200
        shift = 1 + torch.rand(n, generator=random, dtype=torch.float64)
        signs = 2 * torch.randint(2, (n, 2), generator=random, dtype=torch.int8) - 1
        x = shift[:, None] * signs + STD * torch.randn(n, 2, generator=random)
        return TensorExamples(x.float(), {"shift": shift, "signs": signs})


class Network(nn.Module):
    """A network that takes a mapping."""

    def __init__(self, shape, out_channels, num_classes, width: int = 32) -> None:
        super().__init__()
        assert num_classes is None, "there are no classes"
        self.layers = nn.Sequential(
            nn.Linear(6, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, out_channels)
        )

    def forward(self, x: torch.Tensor, c: torch.Tensor, cond: Cond | None = None) -> torch.Tensor:
        assert cond is not None
        assert not isinstance(cond, torch.Tensor)
        assert (cond["shift"].dtype, cond["signs"].dtype) == (torch.float32, torch.int64)
        return self.layers(torch.cat([x, c[:, None] / 1000, cond["shift"][:, None], cond["signs"]], dim=1))


HERE = f"{__name__}."


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Configuration files of the data and of the network."""
    folder = tmp_path_factory.mktemp("project")
    for group, content in {
        "data": f"_target_: {HERE}Shifted\nn: 4000\nbatch_size: 128\neval_batch_size: 200\nseed: ${{seed}}\n",
        "model": f"_target_: {HERE}Network\nwidth: 32\n",
    }.items():
        (folder / group).mkdir()
        (folder / group / "shifted.yaml").write_text(content)
    return folder


def chosen(project: Path) -> tuple[str, ...]:
    return ("--config-dir", str(project))


@pytest.fixture(scope="module")
def run(project, tiny, run_in_process, tmp_path_factory) -> SimpleNamespace:
    """Six steps of training, with sample quality."""
    folder = tmp_path_factory.mktemp("mapping")
    options = [option for option in tiny if not option.startswith("model")]
    code = run_in_process(
        "train", *chosen(project), *options, "data=shifted", "model=shifted", "decoder=gaussian",
        "conditional=true", "cond_dropout=0.2", "logger=none", "callbacks=sample_quality",
        "features=pixels", "callbacks.sample_quality.num_samples=50",
        f"callbacks.sample_quality.cache={folder / 'cache'}",
        folder=folder,
    )  # fmt: skip
    assert code == 0
    return SimpleNamespace(folder=folder, checkpoint=folder / "checkpoints/last.ckpt")


def test_training_measures_the_bound_and_the_samples(run):
    summary = json.loads((run.folder / "summary.json").read_text())
    assert math.isfinite(summary["test/nelbo"])
    assert math.isfinite(json.loads((run.folder / "sample_quality.json").read_text())["fd_pixels"])


def test_it_is_evaluated_without_classes(run, project, evaluate):
    ended = evaluate(
        *chosen(project), f"checkpoint={run.checkpoint}", "estimator=stratified", "max_examples=20"
    )
    assert ended.code == 0, ended.err
    content = json.loads((ended.folder / "evaluation.json").read_text())
    assert math.isfinite(content["test/nelbo"])
    assert "classes" not in content


def test_guided_samples_have_the_conditions_of_training_examples(run, project, command, tmp_path):
    ended = command(
        *chosen(project), f"checkpoint={run.checkpoint}", "n=6", "sampler.steps=2", "guidance=2",
        name="sample", folder=tmp_path / "guided",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    with np.load(ended.folder / "samples.npz") as file:
        assert file["samples"].shape == (6, 2)
        assert np.isfinite(file["samples"]).all()
        shift, signs = file["cond_shift"], file["cond_signs"]
    train = Shifted().split("train").fetch(torch.arange(4000), 0).cond
    assert isinstance(train, dict)
    for i in range(6):
        (row,) = np.flatnonzero(train["shift"].float().numpy() == shift[i])
        assert (train["signs"][row].numpy() == signs[i]).all()
    metadata = json.loads((ended.folder / "sampling.json").read_text())
    assert metadata["cond"] == "those of training examples"


def test_samples_of_one_given_condition(run, project, command, tmp_path):
    ended = command(
        *chosen(project), f"checkpoint={run.checkpoint}", "n=3", "sampler.steps=2",
        "cond={shift:1.5,signs:[1,-1]}", name="sample", folder=tmp_path / "given",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    with np.load(ended.folder / "samples.npz") as file:
        assert file["cond_shift"].tolist() == [1.5] * 3
        assert file["cond_signs"].tolist() == [[1, -1]] * 3


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        ("3", "cond=3: expected a mapping with the names shift, signs"),
        ("{shift:1}", "cond={'shift': 1}: expected a mapping with the names shift, signs"),
        ("{shift:a,signs:[1,1]}", "expected numbers, or lists of them"),
        ("{shift:null,signs:[1,1]}", "expected numbers, or lists of them"),
        ("{shift:1,signs:[1]}", "conditions must be a mapping of the shapes"),
    ],
)
def test_a_condition_of_another_kind_is_refused(cond, message, run, project, command, tmp_path):
    ended = command(
        *chosen(project), f"checkpoint={run.checkpoint}", "n=2", f"cond={cond}",
        name="sample", folder=tmp_path / "refused",
    )  # fmt: skip
    assert ended.code == 1
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_the_model_takes_a_mapping_from_python(run, project):
    model = nelbo.load(run.checkpoint, trust=[f"{HERE}Shifted", f"{HERE}Network"], device="cpu")
    batch: Batch = Shifted().take("test", 8)
    result = model.bound(batch.x0, cond=batch.cond, estimator="full")
    assert math.isfinite(result.total.mean)
    one = model.terms(batch.x0[:1], [1, 2], cond={"shift": 1.5, "signs": [1, 1]})
    assert torch.equal(one, model.terms(batch.x0[:1], [1, 2], cond={"shift": [1.5], "signs": [[1, 1]]}))
    xt = torch.zeros(3, 2)
    free = model.denoise(xt, 500).x0_hat
    nulls = {"shift": torch.full((3,), -5.0), "signs": torch.zeros(3, 2)}
    assert torch.equal(free, model.denoise(xt, 500, cond=nulls).x0_hat)
    assert torch.equal(model.sample(4, steps=2), model.sample(6, steps=2)[:4])
    with pytest.raises(ValueError, match="give cond=, a mapping of tensors"):
        model.bound(batch.x0)


@pytest.mark.parametrize("world_size", [1, 2])
def test_whole_mappings_are_dropped_with_the_given_probability(world_size, run, project, stub_trainer):
    model = nelbo.load(run.checkpoint, trust=[f"{HERE}Shifted", f"{HERE}Network"], device="cpu")
    module, batch = model.trained.module, Shifted().take("train", 4000)
    parts = []
    for rank in range(world_size):
        stub_trainer(module, world_size=world_size, rank=rank)
        rows = slice(rank * 4000 // world_size, (rank + 1) * 4000 // world_size)
        own = Batch(
            batch.x0[rows], {name: value[rows] for name, value in batch.cond.items()}, batch.index[rows]
        )
        parts.append(module.training_cond(own))
    shift, signs = (torch.cat([part[name] for part in parts]) for name in ("shift", "signs"))
    dropped = shift == -5.0
    assert dropped.double().mean().item() == pytest.approx(0.2, abs=0.03)
    assert torch.equal(dropped, (signs == 0).all(1))
    assert torch.equal(shift[~dropped], batch.cond["shift"][~dropped])


def test_other_conditions_change_the_fingerprint_and_a_wrong_spec_is_refused():
    one, other = Shifted(n=50), Shifted(n=50)
    examples = other.split("train")
    assert isinstance(examples, TensorExamples)
    assert isinstance(examples.cond, dict)
    examples.cond["signs"] = -examples.cond["signs"]
    assert one.fingerprint("train") != other.fingerprint("train")
    assert one.fingerprint("test") == other.fingerprint("test")
    wrong = Shifted(conditions={"shift": CondSpec(shape=(3,))})
    with pytest.raises(ValueError, match="the train split of Shifted: conditions must be a mapping"):
        wrong.split("train")
    with pytest.raises(ValueError, match="num_classes must be None"):
        DataSpec((2,), None, 3, cond=CONDITIONS)


@pytest.mark.slow
def test_samples_follow_their_conditions(project, command, tiny, tmp_path):
    options = [option for option in tiny if not option.startswith(("model", "trainer", "data"))]
    trained = command(
        *chosen(project), *options, "data=shifted", "model=shifted", "model.width=64", "decoder=gaussian",
        "conditional=true", "cond_dropout=0.1", "logger=none", "trainer.max_steps=1500",
        "trainer.val_check_interval=1500", "optimizer.lr=3e-3",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    checkpoint = f"checkpoint={trained.folder / 'checkpoints/last.ckpt'}"
    drawn = command(
        *chosen(project), checkpoint, "n=400", "guidance=1", name="sample", folder=tmp_path / "drawn"
    )
    assert drawn.code == 0, drawn.err
    with np.load(drawn.folder / "samples.npz") as file:
        gap = file["samples"] - file["cond_shift"][:, None] * file["cond_signs"]
    assert np.sqrt((gap**2).mean()) < 4 * STD  # 2.1 without the conditions
