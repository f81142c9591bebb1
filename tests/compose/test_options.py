"""Every option is checked by name, type, range and nullability before anything is built."""

import pytest
import yaml
from omegaconf import OmegaConf

from nelbo.compose.options import check_options, expected

COMPOSED = {}

# (choices of groups) option=value: what the message says after it
REFUSED = {
    "callbacks.validation_bound=null": "the bound is what a run reports",
    "trainer.num_sanity_val_steps=1": "expected 0",
    "trainer.num_sanity_val_steps=2": "expected 0",
    "trainer.limit_train_batches=0": "not supported; for a quick trial use trainer.max_steps",
    "trainer.limit_val_batches=0.0": "not supported; for a quick trial use",
    "trainer.limit_val_batches=0": "not supported; for a quick trial use",
    "trainer.limit_test_batches=0": "not supported; for a quick trial use",
    "trainer.limit_test_batches=1": "max_examples.train, max_examples.val and max_examples.test",
    "trainer.max_epochs=0": "expected an integer >= 1, -1 or null",
    "trainer.devices=1.5": "expected an integer >= 1, -1, auto or a non-empty list",
    "trainer.strategy=ddp_spawn": "expected auto, ddp or as trainer=fsdp sets it",
    "trainer.max_steps=true": "expected an integer >= 1 or -1",
    "trainer.gradient_clip_val=-1": "expected a number >= 0 or null",
    "callbacks.samples.num_samples=-1": "expected an integer >= 0",
    "callbacks.samples.num_samples=-3": "expected an integer >= 0",
    "callbacks.ema.decay=null": "expected a number >= 0 and < 1",
    "data.batch_size=null": "expected an integer >= 1",
    "data.batch_size=true": "expected an integer >= 1",
    "data=image_folder data.size=0": "expected an integer >= 1",
    "optimizer.lr=null": "expected a number > 0",
    "optimizer.lr=true": "expected a number > 0",
    "optimizer.betas=[0.9]": "expected a list of 2 (each a number >= 0 and < 1)",
    "schedule.offset=null": "expected a number",
    "schedule.num_steps=true": "expected an integer",
    "schedule.num_steps='10'": "expected an integer",
    "lr_schedule.warmup_steps=-4": "expected an integer >= 0",
    "model.channels=7": "expected an integer >= 2 and a multiple of 2",
    "model.dropout=.nan": "expected a number >= 0 and < 1",
    "model.dropout=1.0": "expected a number >= 0 and < 1",
    "model.num_classes=3": "not an option; other options determine it",
    "model._target_=my.Net": "cannot be imported",
    "model=mlp model.width=0": "expected an integer >= 2",
    "model=mlp model.depth=-1": "expected an integer >= 1",
    "seed=-1": "expected an integer >= 0",
    "seed=true": "expected an integer >= 0",
    "conditional=2": "expected true or false",
    "max_examples.test=0": "expected an integer >= 1 or null",
    "max_examples=100": "expected options: max_examples.train, max_examples.val, max_examples.test",
    "val_estimator=full": "expected options; what is chosen has its group before it",
}
REFUSED_BY = {
    "evaluate": {
        "max_examples=0": "expected an integer >= 1 or null",
        "importance_samples=0": "expected an integer >= 1",
        "likelihood=ode likelihood.ode.dequantization_samples=0": "expected an integer >= 1",
        "likelihood=ode likelihood.ode.solver=rk4": "not an option; other options determine it",
        "steps=true": "expected an integer >= 1 or null",
        "by_class=null": "expected true or false",
        "split=dev": "expected one of train, val, test",
        "estimator.target_stderr=0": "expected a number > 0",
    },
    "sample": {
        "guidance=-2": "expected a number >= 0 or null",
        "n=0": "expected an integer >= 1",
        "grid=-1": "expected an integer >= 0",
        "trajectory=movie": "expected one of none, gif, strip",
        "sampler.clip=[1]": "sampler.clip=[1]: expected ",
    },
}
CASES = [("train", case, message) for case, message in REFUSED.items()] + [
    (command, case, message) for command, cases in REFUSED_BY.items() for case, message in cases.items()
]


def changed(compose, command, case):
    """The configuration with the last option of a case set, and the option as a message names it."""
    *groups, option = case.split(" ")
    key = (command, *groups)
    if key not in COMPOSED:
        COMPOSED[key] = compose(*groups, command=command)
    config = COMPOSED[key].copy()
    name, _, text = option.partition("=")
    OmegaConf.update(config, name, yaml.safe_load(text), force_add=True)
    return config, option.replace("'", "").replace(".nan", "nan")


@pytest.mark.parametrize(("command", "case", "message"), CASES)
def test_a_wrong_value_is_named(command, case, message, compose):
    config, option = changed(compose, command, case)
    with pytest.raises(ValueError, match="=") as refusal:
        check_options(config, command)
    assert str(refusal.value).startswith(f"{option}: ")
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("schedule.offst", "there is no option offst in schedule (did you mean offset?)"),
        ("sead", "there is no option sead (did you mean seed?)"),
        ("callbacks.own.x", "callbacks.own is no component: it has no _target_"),
        ("max_examples.valid", "there is no option valid in max_examples (did you mean val?)"),
    ],
)
def test_an_unknown_name_is_refused(name, message, compose):
    config = changed(compose, "train", "seed=0")[0]
    OmegaConf.update(config, name, 1, force_add=True)
    with pytest.raises(ValueError, match="no ") as refusal:
        check_options(config, "train")
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize("command", ["train", "evaluate", "sample"])
def test_the_defaults_are_accepted(command, compose):
    check_options(compose(command=command), command)


def test_a_missing_argument_is_named(compose):
    config = changed(compose, "train", "model=mlp seed=0")[0]
    OmegaConf.set_struct(config, False)
    del config.model["width"]
    with pytest.raises(ValueError, match=r"^model.width: missing; expected an integer >= 2"):
        check_options(config, "train")


def test_a_network_of_ones_own_is_checked_by_its_annotations(compose):
    config = changed(compose, "train", "seed=0")[0]
    OmegaConf.set_struct(config, False)
    config.model = {"_target_": f"{__name__}.Own", "width": True, "anything": "goes"}
    with pytest.raises(ValueError, match=r"^model.width=true: expected an integer$"):
        check_options(config, "train")
    config.model.width = 3
    check_options(config, "train")


class Own:
    def __init__(self, shape, out_channels, num_classes, width: int, anything): ...


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (float | None, "a number or null"),
        (tuple[float, float], "a list of 2 (each a number)"),
        (list[str], "a list (each a string)"),
        (bool, "true or false"),
    ],
)
def test_what_is_expected_in_words(annotation, words):
    assert expected(annotation) == words


def test_a_file_is_no_folder(compose, tmp_path):
    file = tmp_path / "images.zip"
    file.touch()
    config = changed(compose, "train", "data=image_folder seed=0")[0]
    config.data.root = str(file)
    with pytest.raises(ValueError, match=rf"^data.root={file}: expected a folder$"):
        check_options(config, "train")
