"""``.env.example`` lists every variable that is read from the environment."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
READ = re.compile(
    r'environ(?:\.get\(|\[)"([A-Z_]+)"|oc\.env:([A-Z_]+)|^(?:TRACEBACK|FOLDER) = "([A-Z_]+)"', re.M
)
# by torchrun and SLURM, and by the shell
LAUNCHERS = "TORCHELASTIC_ERROR_FILE RANK WORLD_SIZE GROUP_WORLD_SIZE MASTER_ADDR MASTER_PORT NETRC"
SET_BY_LAUNCHERS = set(LAUNCHERS.split())
SET_BY_SLURM = re.compile("SLURM_.*")


def test_every_variable_is_listed():
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
    read = {name for path in sources for match in READ.findall(path.read_text()) for name in match if name}
    assert {"NELBO_DATA", "NELBO_CACHE", "WANDB_API_KEY", "HYDRA_FULL_ERROR"} <= read
    listed = set(re.findall(r"^(?:# )?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    assert {name for name in read - SET_BY_LAUNCHERS if not SET_BY_SLURM.match(name)} <= listed
