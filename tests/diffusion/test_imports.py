import subprocess
import sys

MODULES = """
import importlib, pkgutil, sys
import nelbo.diffusion
for module in pkgutil.walk_packages(nelbo.diffusion.__path__, "nelbo.diffusion."):
    importlib.import_module(module.name)
print(*sys.modules)
"""


def test_diffusion_imports_torch_only():
    result = subprocess.run([sys.executable, "-c", MODULES], capture_output=True, text=True, check=True)
    imported = set(result.stdout.split())
    ours = {name for name in imported if name.startswith("nelbo.")}
    assert "nelbo.diffusion.samplers.ddim" in ours
    assert {name for name in ours if not name.startswith("nelbo.diffusion")} == {
        "nelbo._lazy",
        "nelbo._torchvision",
        "nelbo.cond",
    }
    heavy = {"lightning", "hydra", "omegaconf", "wandb", "torchvision", "torchmetrics", "rich", "sklearn"}
    assert not heavy & imported
