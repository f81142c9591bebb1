"""``python -m nelbo export``, ``format=diffusers``, and the hub with a stub client."""

import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from nelbo.__main__ import main
from nelbo.cli.export import OF_THE_RUN
from nelbo.compose.build import build_module
from nelbo.compose.trained import load_model
from nelbo.data import DataSpec
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.parameterizations import Eps
from nelbo.diffusion.schedules import LinearSchedule
from nelbo.diffusion.variances import FixedLarge
from nelbo.interop import from_diffusers, to_diffusers
from nelbo.interop.formats import DiffusersFormat

diffusers = pytest.importorskip("diffusers")

TRAINED = (
    "model=unet_tiny",
    "schedule.num_steps=40",
    "variance=learned_range",
    "objective=hybrid",
    "timesteps=uniform",
    "logger=none",
)
FIXED = ("variance=fixed_large", "loss=simple", "logger=none")
DIGITS = DataSpec((1, 8, 8), levels=17, num_classes=10)


@pytest.fixture(scope="module")
def save_checkpoint(compose):
    """Saves a checkpoint of a U-Net for the digits, with averaged and raw weights."""

    def save(path, *overrides):
        config = compose(*TRAINED, *overrides)
        torch.manual_seed(0)
        module = build_module(config, DIGITS)

        def state() -> dict:
            return {
                f"denoiser.network.{name}": tensor + 0.05 * torch.randn_like(tensor)
                for name, tensor in module.denoiser.network.state_dict().items()
            }

        content = {
            "pytorch-lightning_version": "2.6.0",
            "global_step": 7,
            "state_dict": state(),
            "current_model_state": state(),
            "nelbo": {"config": module.config},
        }
        torch.save(content, path)
        return path

    return save


@pytest.fixture(scope="module")
def checkpoint(save_checkpoint, tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt")


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert main(["export", str(checkpoint), str(folder)]) == 0
    return folder


def failure(capfd, *arguments) -> str:
    assert main(["export", *map(str, arguments)]) == 1
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def refusal(path, weights="ema") -> str:
    with pytest.raises(ValueError, match=r".") as error:
        DiffusersFormat().read(path, weights)
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------ export, and back


def test_the_exported_folder_opens_and_samples(exported):
    pipeline = diffusers.DDPMPipeline.from_pretrained(exported)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=40).images
    assert [image.size for image in images] == [(8, 8)] * 2


def test_an_export_that_is_interrupted_leaves_nothing_behind(checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "new/model"

    def interrupted(weights, path, metadata):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", interrupted)
        assert main(["export", str(checkpoint), str(folder)]) == 130
    assert not list(folder.parent.iterdir())
    assert main(["export", str(checkpoint), str(folder)]) == 0
    assert (folder / "model_index.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_the_bound_is_the_same_after_export_and_back(weights, checkpoint, evaluate, tmp_path, capfd):
    folder = tmp_path / "model"
    assert main(["export", str(checkpoint), str(folder), "--weights", weights]) == 0
    assert capfd.readouterr().out == f"{folder}\nT = 40: pipeline(num_inference_steps=40) takes all steps\n"
    options = (f"weights={weights}", "estimator=stratified", "estimator.evaluations_per_example=4")
    results = []
    for source in ((f"checkpoint={checkpoint}",), (f"checkpoint={folder}", "format=diffusers")):
        ended = evaluate(*source, *options)
        assert ended.code == 0, ended.err
        results.append(json.loads((ended.folder / "evaluation.json").read_text()))
    for part in ("bpd", "L_0", "L_t", "L_T"):
        assert results[1][f"test/{part}"] == pytest.approx(results[0][f"test/{part}"], rel=1e-6)
    assert results[1]["ledger"] == results[0]["ledger"]


def test_the_folder_determines_the_kind_of_its_weights(exported, checkpoint):
    read = DiffusersFormat().read(exported, "ema")
    saved = torch.load(checkpoint, weights_only=True)
    assert (read.kind, read.step, read.parts) == ("ema", 7, {})
    of_the_model = {key: value for key, value in saved["nelbo"]["config"].items() if key not in OF_THE_RUN}
    assert read.config == of_the_model
    for name, tensor in read.network.items():
        assert torch.equal(tensor, saved["state_dict"][f"denoiser.network.{name}"]), name
    assert "has the other kind: use weights=ema" in refusal(exported, "raw")


def test_a_model_with_0_based_timesteps_is_exported_with_them(save_checkpoint, tmp_path):
    path = save_checkpoint(tmp_path / "last.ckpt", "c_noise.shift=-1")
    assert main(["export", str(path), str(tmp_path / "model")]) == 0
    loaded = load_model(tmp_path / "model", "format@checkpoint_format=diffusers").module
    level, x = loaded.bound.chain.level(torch.tensor([1, 40])), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        expected = load_model(path).module.denoiser(x, level)
        for denoiser in (loaded.denoiser, from_diffusers(tmp_path / "model").denoiser):
            assert denoiser.c_noise(level).tolist() == [0.0, 39 * 25.0]
            torch.testing.assert_close(denoiser(x, level).eps_hat, expected.eps_hat, rtol=0, atol=1e-5)


def test_export_of_a_conditional_model_warns_about_labels(save_checkpoint, tmp_path, capfd):
    path = save_checkpoint(tmp_path / "last.ckpt", "conditional=true")
    assert main(["export", str(path), str(tmp_path / "model")]) == 0
    assert "DDPMPipeline passes no class" in capfd.readouterr().out
    assert from_diffusers(tmp_path / "model").num_classes == 10


def test_models_that_cannot_be_exported_raise(finished_run, checkpoint, tmp_path, capfd):
    mlp = finished_run.folder / "checkpoints/last.ckpt"
    assert "no equivalent of the network MLP" in failure(capfd, mlp, tmp_path / "model")
    assert "there is no checkpoint file" in failure(capfd, tmp_path / "none.ckpt", tmp_path / "model")
    (tmp_path / "file").write_text("mine")
    assert "exists already" in failure(capfd, checkpoint, tmp_path)
    assert "expected OWNER/NAME" in failure(capfd, checkpoint, tmp_path / "model", "--push-to-hub", "name")
    assert not (tmp_path / "model").exists()


# ------------------------------------------------------------------ folders of others


@pytest.fixture
def theirs(tmp_path):
    """A folder of diffusers, with a network that differs from ours in options but not in shapes."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0, freq_shift=1, norm_eps=1e-6,
    ).eval()  # fmt: skip
    pipeline = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(300, variance_type="fixed_large"))
    pipeline.save_pretrained(tmp_path / "theirs")
    return SimpleNamespace(folder=tmp_path / "theirs", unet=unet)


def test_network_and_chain_of_the_folder_replace_those_of_the_experiment(theirs, compose):
    read = DiffusersFormat().read(theirs.folder, "ema")
    assert (read.kind, read.config, read.step) == ("ema", None, None)
    config = compose("logger=none")
    for name, node in read.parts.items():
        config[name] = node
    module = build_module(OmegaConf.create(OmegaConf.to_container(config)), DIGITS)
    denoiser = module.denoiser
    assert (denoiser.c_noise.scale, denoiser.c_noise.shift) == (1.0, -1.0)
    denoiser.network.load_state_dict(read.network)
    assert isinstance(denoiser.variance, FixedLarge)
    level = module.bound.chain.level(torch.tensor([1, 100, 300]))
    betas = torch.linspace(1e-4, 0.02, 300, dtype=torch.float64)
    torch.testing.assert_close(level.alpha_bar, (1 - betas).cumprod(0)[level.t - 1], rtol=1e-9, atol=0)
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        eps_hat = denoiser.eval()(x, level).eps_hat
        expected = theirs.unet(x, level.t - 1).sample
    torch.testing.assert_close(eps_hat, expected, rtol=0.0, atol=1e-5)


def test_weights_of_diffusers_do_not_load_into_the_plain_unet(theirs, compose):
    network = build_module(compose("model=unet_tiny", "logger=none"), DIGITS).denoiser.network
    assert not DiffusersFormat().read(theirs.folder, "ema").network.keys() & network.state_dict().keys()


def test_a_configuration_that_is_not_a_mapping_raises(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "model")
    (tmp_path / "model/nelbo.json").write_text('{"config": "cifar10"}')
    assert "the configuration in nelbo.json is not a mapping" in refusal(tmp_path / "model")


def test_a_missing_folder_raises(tmp_path):
    assert "there is no folder" in refusal(tmp_path / "none")
    assert "has neither model_index.json nor config.json" in refusal(tmp_path)


# ------------------------------------------------------------------ the hub


@pytest.fixture
def hub(monkeypatch, exported):
    """A stub client that records its calls."""
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append(("snapshot_download", name, set(allow_patterns)))
        return str(exported)

    def create_repo(name, exist_ok):
        asked.append(("create_repo", name, exist_ok))
        return f"https://hub/{name}"

    def upload_folder(repo_id, folder_path, commit_message):
        asked.append(("upload_folder", repo_id, sorted(path.name for path in folder_path.iterdir())))

    functions = (snapshot_download, create_repo, upload_folder)
    client = SimpleNamespace(**{function.__name__: function for function in functions}, asked=asked)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return client


def test_a_model_is_downloaded_by_name(hub, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = DiffusersFormat().read(Path("someone/model-32"), "ema")
    assert read.network.keys() == DiffusersFormat().read(exported, "ema").network.keys()
    ((function, name, files),) = hub.asked
    assert (function, name) == ("snapshot_download", "someone/model-32")
    written = {path.relative_to(exported).as_posix() for path in exported.glob("**/*.*")}
    assert written <= files
    (tmp_path / "someone/model-32").mkdir(parents=True)  # a folder of that name comes first
    assert "has neither model_index.json nor config.json" in refusal(Path("someone/model-32"))
    assert len(hub.asked) == 1


def test_a_model_is_pushed(hub, checkpoint, tmp_path, capfd):
    arguments = ["export", str(checkpoint), str(tmp_path / "model"), "--push-to-hub", "someone/model"]
    assert main(arguments) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "https://hub/someone/model"
    contents = ["model_index.json", "nelbo.json", "scheduler", "unet"]
    assert hub.asked == [("create_repo", "someone/model", True), ("upload_folder", "someone/model", contents)]


def test_no_network(hub, monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise ConnectionError("cannot reach the hub\n\nmany more lines")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    assert refusal(Path("someone/model")) == "someone/model cannot be fetched: cannot reach the hub"


def test_no_client(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refusal(Path("someone/model")) == (
        "someone/model cannot be fetched without huggingface_hub: pip install huggingface_hub"
    )


def test_a_folder_without_a_configuration_has_its_chain(tmp_path, compose):
    """The folder of :func:`to_diffusers` for a model without a configuration."""
    network = build_module(compose("model=unet_tiny", *FIXED), DIGITS).denoiser.network
    schedule = LinearSchedule(1000, logsnr_max="paper")
    to_diffusers(tmp_path / "model", Denoiser(network, Eps(), FixedLarge("beta_tilde")), schedule, (8, 8))
    read = DiffusersFormat().read(tmp_path / "model", "raw")
    assert (read.kind, read.config, read.parts["c_noise"]["shift"]) == ("raw", None, 0.0)
    assert read.parts["variance"]["first_step"] == "beta_tilde"
    assert math.isclose(read.parts["schedule"]["beta_end"], 0.02, rel_tol=1e-12)
