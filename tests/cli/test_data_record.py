"""What data a model had is stored with it, and compared with what there is now."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.__main__ import main
from nelbo.compose.trained import load_model
from nelbo.data import DataRecord
from nelbo.data.image_folder import ImageFolder
from tests.runs.test_folder_lock import hashes

OPTIONS = (
    "data=image_folder",
    "data.size=8",
    "data.batch_size=8",
    "conditional=true",
    "model=mlp",
    "model.width=16",
    "model.depth=1",
    "schedule.num_steps=10",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "lr_schedule.warmup_steps=0",
    "sampler.steps=2",
    "callbacks.samples.num_samples=4",
    "logger=none",
)
QUICK = ("estimator=full", "split=test", "by_class=true")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_in_process):
    """A conditional model of cats (dark) and dogs (bright): its folder and its images."""
    folder = tmp_path_factory.mktemp("trained")
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for name, level in (("cat", 50), ("dog", 200)):
            (folder / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = (level + random.integers(-20, 21, (8, 8, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{i}.png")
    code = run_in_process("train", *OPTIONS, f"data.root={folder}/images", folder=folder / "run")
    assert code == 0
    return folder


@pytest.fixture
def images(trained, tmp_path):
    """A copy of the images."""
    return shutil.copytree(trained / "images", tmp_path / "images")


def rename(images, old, new):
    for split in ("train", "val", "test"):
        (images / split / old).rename(images / split / new)


def last(folder):
    return folder / "run/checkpoints/last.ckpt"


@pytest.mark.slow
def test_the_checkpoint_holds_the_record_of_the_data(trained):
    content = torch.load(last(trained), weights_only=True)["nelbo"]["data"]
    record = DataRecord.from_dict(content)
    assert (record.name, record.root) == ("ImageFolder", str(trained / "images"))
    assert record.spec.class_names == ("cat", "dog")
    assert record.num_examples == {"train": 24, "val": 8, "test": 8}
    assert record.class_counts == (12, 12)
    assert DataRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert ImageFolder(root=trained / "images", size=8).record() == record


@pytest.mark.parametrize("damage", [{"num_examples": "many"}, {"spec": None}, {"class_counts": ["a"]}])
def test_a_damaged_record_is_rejected_in_one_line(trained, damage):
    content = torch.load(last(trained), weights_only=True)["nelbo"]["data"]
    with pytest.raises(ValueError, match="the data record is damaged") as caught:
        DataRecord.from_dict(content | damage)
    assert "\n" not in str(caught.value)


def test_a_model_is_read_where_its_images_are_not(trained):
    (trained / "images").rename(trained / "moved")
    try:
        assert load_model(last(trained)).spec.class_names == ("cat", "dog")
    finally:
        (trained / "moved").rename(trained / "images")


@pytest.mark.slow
@pytest.mark.parametrize("conditional", [True, False])
def test_samples_and_an_export_need_no_images(conditional, run_in_process, command, tmp_path):
    images = tmp_path / "images"
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for name in ("cat", "dog"):
            (images / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(images / split / name / f"{i}.png")
    options = [option for option in OPTIONS if not option.startswith(("model", "conditional"))]
    network = (
        "model=unet_tiny",
        "model.channels=32",
        "model.channel_mult=[1]",
        "model.attention_resolutions=[]",
    )
    options += [*network, f"conditional={conditional}"]
    assert run_in_process("train", *options, f"data.root={images}", folder=tmp_path / "run") == 0
    shutil.rmtree(images)
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    label = ("cond=dog",) if conditional else ()
    assert main(["export", str(checkpoint), str(tmp_path / "exported")]) == 0
    drawn = []
    for source in (
        [f"checkpoint={checkpoint}"],
        [f"checkpoint={tmp_path}/exported", "format@checkpoint_format=diffusers"],
    ):
        where = [*source, "n=4", "sampler.steps=2", *label]
        ended = command(*where, name="sample", folder=tmp_path / str(len(drawn)))
        assert ended.code == 0, ended.err
        drawn.append(sorted(path.read_bytes() for path in (tmp_path / str(len(drawn))).rglob("*.png")))
    assert len(drawn[0]) >= 4
    assert drawn[0] == drawn[1]
    missing = command(f"checkpoint={checkpoint}", *QUICK, name="evaluate", folder=tmp_path / "evaluation")
    assert (missing.code, missing.err.count("\n")) == (1, 1)
    assert str(images) in missing.err


@pytest.mark.slow
def test_labels_are_chosen_by_name_or_number(trained, command, tmp_path):
    options = ("n=2", "sampler.steps=2", "format=npz", f"checkpoint={last(trained)}")
    drawn = []
    for i, label in enumerate(("dog", "1")):
        ended = command(*options, f"cond={label}", name="sample", folder=tmp_path / str(i))
        assert ended.code == 0, ended.err
        drawn.append(np.load(tmp_path / str(i) / "samples.npz"))
    assert np.array_equal(drawn[0]["samples"], drawn[1]["samples"])
    assert drawn[0]["label"].tolist() == [1, 1]
    refused = command(*options, "cond=eel", name="sample", folder=tmp_path / "2")
    assert refused.err == "error: cond=eel: the model knows the classes cat, dog, or their numbers 0 to 1\n"


@pytest.mark.slow
def test_the_bound_does_not_depend_on_the_order_of_the_class_folders(trained, evaluate, images, monkeypatch):
    """Labels are matched by name where the data counts its classes in another order."""
    first = evaluate(f"checkpoint={last(trained)}", *QUICK)
    assert first.code == 0, first.err
    in_order = ImageFolder.classes.func
    reverse = property(lambda self: in_order(self)[::-1])
    monkeypatch.setattr(ImageFolder, "classes", reverse)
    assert ImageFolder(root=images, size=8).spec.class_names == ("dog", "cat")
    second = evaluate(f"checkpoint={last(trained)}", f"root={images}", *QUICK)
    before, after = (json.loads((run.folder / "evaluation.json").read_text()) for run in (first, second))
    assert after["classes"] == before["classes"]
    assert after["ledger"] == before["ledger"]


def test_a_renamed_class_is_refused_by_name(trained, evaluate, images):
    rename(images, "dog", "ant")
    ended = evaluate(f"checkpoint={last(trained)}", f"root={images}", *QUICK)
    assert ended.code == 1
    assert "the model has the classes cat, dog, and ImageFolder has the classes ant, cat" in ended.err


@pytest.mark.slow
def test_resume_names_changed_data_and_changes_nothing(trained, images, command, tmp_path):
    run = shutil.copytree(trained / "run", tmp_path / "copy")
    more = (f"resume={run}", f"data.root={images}", "trainer.max_steps=4")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    path = images / "train/cat/3.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    refused = command(*more, folder=run)
    assert refused.code == 1
    assert "the train split has other content" in refused.err
    assert str(images) in refused.err
    assert "allow_changed_data=true" in refused.err
    assert files == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    assert command(*more, "allow_changed_data=true", folder=run).code == 0
    kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["nelbo"]
    assert kept["data"]["fingerprints"]["train"] == ImageFolder(root=images, size=8).fingerprint("train")
    assert kept["config"]["allow_changed_data"] is False

    rename(images, "dog", "ant")
    refused = command(*more[:2], "trainer.max_steps=6", "allow_changed_data=true", folder=run)
    assert refused.code == 1
    assert "classes cat, dog became ant, cat" in refused.err


@pytest.mark.slow
def test_other_images_at_the_same_relative_root_are_refused(trained, command, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    run = tmp_path / "run"
    assert command(*OPTIONS, "data.root=images", folder=run).code == 0
    elsewhere = tmp_path / "elsewhere"
    for path in (trained / "images").rglob("*.png"):
        copy = elsewhere / path.relative_to(trained)
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - np.asarray(Image.open(path))).save(copy)
    files = hashes(run)
    monkeypatch.chdir(elsewhere)
    refused = command(f"resume={run}", "trainer.max_steps=4", "data.root=images", folder=run)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert f"(data.root was {trained}/images, and is {elsewhere}/images)" in refused.err
    assert hashes(run) == files
    # without the option it reads the images that it was trained on, wherever the command is started
    ended = command(f"resume={run}", "trainer.max_steps=4", folder=run)
    assert ended.code == 0, ended.err


@pytest.mark.slow
def test_resume_accepts_the_same_data_in_another_folder(trained, images, command, tmp_path):
    run = shutil.copytree(trained / "run", tmp_path / "copy")
    assert command(f"resume={run}", f"data.root={images}", "trainer.max_steps=4", folder=run).code == 0
