"""A mistake is one line on stderr that names its cause and what would be right, and exit code 1."""

import pytest
from PIL import Image

MISTAKES = {
    "schedule.num_step=3": "there is no option num_step in schedule (did you mean num_steps?)",
    "objectiv=simple": "there is no option objectiv (did you mean objective?); there are: ",
    "shedule=linear": "there is no option shedule (did you mean schedule?); there are: ",
    "logger=[csv,wandbb]": "there is no logger=wandbb (did you mean wandb?); there are: csv, mlflow, ",
    "loss=vbl": "there is no loss=vbl (did you mean vlb?); there are: edm, flow, hybrid, ",
    "loss=hybrid loss.wait=1": "no option wait in loss (did you mean weight?); there are: ",
    "callbacks.emma.decay=0": "no option decay in callbacks.emma",
    "schedule.num_steps=0": "schedule.num_steps=0: expected 1 to 100000 steps",
    "schedule.num_steps=-1": "schedule.num_steps=-1: expected 1 to 100000 steps",
    "schedule=linear schedule.num_steps=20": "use more than 20 steps, or schedule=cosine",
    "schedule.logsnr_max=papr": "schedule.logsnr_max=papr: expected a number or auto or paper",
    "schedule.offset=-1": "schedule.offset=-1 must not be negative",
    "variance.first_step=one": "variance.first_step=one: expected one of beta, beta_tilde",
    "decoder=discretized_gaussian data=gaussian": "use decoder=gaussian",
    "decoder=gaussian": "this data has 17 discrete levels: use decoder=discretized_gaussian",
    "loss=simple": "the loss Simple does not train the variance LearnedRange: add variance=fixed_large",
    "loss=hybrid variance=fixed_large": "and FixedLarge is fixed: add variance=learned_range",
    "model=unet_tiny data=gaussian": "the data has shape (2,): use model=mlp",
    "conditional=true data=patches": "conditional=true needs data with class labels or conditions",
    "timesteps=importance timesteps.floor=0": "timesteps.floor=0 must be inside (0, 1]",
    "val_estimator.evaluations_per_example=1": "evaluations_per_example=1: at least",
    "callbacks.ema.decay=1": "callbacks.ema.decay=1: expected a number >= 0 and < 1",
    "checkpoint_every=0": "checkpoint_every=0: expected an integer >= 1",
    "sampler.eta=2": "sampler.eta=2 must be inside [0, 1]",
    "data=mnist data.root=/nonexistent data.download=false": "set data.root (evaluate.py and sample.py: ",
    "data=image_folder data.root=/nonexistent": "data.root=/nonexistent: there is no such folder",
    "test_estimator=full test_estimator.seed=3": "test_estimator=... replaces all of its options by ",
    "parameterization=categorical decoder=gaussian data=gaussian model=mlp": "use parameterization=v",
    "callbacks.ema=null callbacks.ema.decay=0.9": "callbacks.ema=... replaces all of its options",
    "optimizer=muon optimizer.momentum=1.5": "optimizer.momentum=1.5: expected a number >= 0 and < 1",
    "optimizer=muon optimizer.betas=[2,0.9]": "optimizer.betas=",
    "model=conv_dit_mnist data=gaussian": "model=conv_dit_* needs images (C, H, W); the data has shape (2,)",
    "data.batch_size=100000": "data.batch_size=100000 is larger than the training set of 1437 examples",
    "sampler.steps=0": "sampler.steps=0: at least 1 step is needed",
    "spacing=optimal": "spacing=optimal needs the costs of steps measured on a trained model: evaluate.py",
    "schedule.num_steps=abc": "schedule.num_steps=abc: expected an integer",
    "trainer.max_steps=abc": "trainer.max_steps=abc: expected an integer >= 1 or -1",
    "seed=x": "seed=x: expected an integer >= 0",
    "schedule.num_steps=1e3": "schedule.num_steps=1000.0: expected an integer",
    "trainer.log_every_n_steps=0": "trainer.log_every_n_steps=0: expected an integer >= 1",
    "trainer.precision=bf16-true": "trainer.precision=bf16-true: expected one of 32-true, bf16-mixed",
    "trainer.precision=64": "trainer.precision=64: expected one of 32-true, bf16-mixed, 16-mixed",
    "trainer.precision=16-mixed optimizer.fused=true": "add optimizer.fused=false, or use trainer.precision=",
    "schedule=rectified_flow": "has nothing to learn: add variance=fixed_large",
    "schedule=rectified_flow schedule.num_steps=100 variance=fixed_large c_noise=logsnr": "c_noise: "
    "LogSNRConditioning is infinite at the last timestep, which has no signal: use c_noise=timestep",
    "schedule.num_steps=null": "CosineSchedule is in continuous time (schedule.num_steps=null), where the ",
    "trainer.max_steps=-1": "lr_schedule=cosine needs the number of steps",
    "compile=maybe": "compile=maybe: expected true or false",
    "estimator@val_estimator=importance": "val_estimator: ImportanceEstimator goes through the data several",
    "optimizer.lr=-1": "optimizer.lr=-1: expected a number > 0",
}


def is_refused(ended, expected: str) -> None:
    assert ended.code == 1
    assert expected in ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, "more than one line"
    assert not (ended.folder / "metrics.csv").exists(), "training had begun"


@pytest.mark.parametrize(
    "arguments",
    [
        # types and ranges are tested without the command, in test_options.py
        pytest.param(arguments, marks=[pytest.mark.slow] if ": expected" in said else [])
        for arguments, said in MISTAKES.items()
    ],
)
def test_invalid_options_are_reported_in_one_line(arguments, command, tiny):
    small = [option for option in tiny if not option.startswith(("model", "val_estimator"))]
    is_refused(command("logger=none", *small, *arguments.split()), MISTAKES[arguments])


@pytest.mark.parametrize("mistake", ["schedule.num_steps=true", "shedule=linear"])
def test_an_invalid_option_leaves_no_folder(mistake, command):
    ended = command("logger=none", mistake)
    is_refused(ended, mistake.split("=")[0])
    assert not ended.folder.exists()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_broken_image_is_named_before_training(in_memory, split, command, tmp_path):
    for name in ("train", "val", "test"):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    broken = tmp_path / split / "5.png"
    broken.write_bytes(b"not an image")
    ended = command(
        "logger=none",
        "data=image_folder",
        f"data.root={tmp_path}",
        f"data.in_memory={in_memory}",
        "data.size=8",
        "data.batch_size=8",
        "model=mlp",
        "model.width=8",
        "trainer.max_steps=1",
    )
    is_refused(ended, f"cannot read the image {broken}: ")


def test_internal_error_message_includes_exception_type(command):
    def job(config):
        raise KeyError("surprise")

    ended = command(job=job)
    assert ended.code == 1
    assert ended.err == "error: KeyError: 'surprise' (HYDRA_FULL_ERROR=1 shows where)\n"


def test_long_error_message_is_shortened(command):
    def job(config):
        raise RuntimeError(
            "CppCompileError: g++ failed\n" + "note: template argument\n" * 5000 + "use compile=false"
        )

    ended = command(job=job)
    assert ended.err.startswith("error: RuntimeError: CppCompileError: g++ failed note: ")
    assert ended.err.endswith("use compile=false (HYDRA_FULL_ERROR=1 shows all of it)\n")
    assert len(ended.err) < 600
    assert ended.err.count("\n") == 1


def test_successful_job_prints_no_error(command):
    ended = command(job=lambda config: None)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_full_error_variable_raises_the_traceback(command, monkeypatch):
    def job(config):
        raise ValueError("here")

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="here"):
        command(job=job)


def test_a_folder_that_holds_a_run_is_not_trained_into_again(finished_run, command):
    before = contents(finished_run.folder)
    ended = command("seed=5", "schedule=linear", folder=finished_run.folder)
    assert ended.code == 1
    assert "already holds a run: choose another hydra.run.dir" in ended.err
    assert contents(finished_run.folder) == before


@pytest.mark.parametrize("name", ["evaluate", "sample"])
def test_no_other_command_writes_into_the_folder_of_a_run(name, finished_run, command):
    """Nor does Hydra, whose own files say what the run was made with."""
    before = contents(finished_run.folder)
    checkpoint = finished_run.folder / "checkpoints/last.ckpt"
    ended = command(f"checkpoint={checkpoint}", name=name, folder=finished_run.folder)
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "already holds " in ended.err
    assert contents(finished_run.folder) == before


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("data.root=we(ir)d,[x]", "Hydra cannot parse this value"),
        ("outputs/a/last.ckpt", "expected name=value, such as checkpoint=FILE"),
    ],
)
def test_unparsable_option_is_reported_with_quoted_example(given, expected, command):
    ended = command(given)
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert ended.err.startswith(f"error: {given}: {expected}")


def test_empty_resume_value_is_refused(command):
    ended = command("resume=")
    assert ended.code == 1
    assert ended.err.startswith("error: resume= names no run")


def test_too_many_devices_are_refused(command, tiny):
    ended = command(*tiny, "logger=none", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=4096")
    assert ended.code == 1
    assert "4096 devices are too many for a machine of" in ended.err
