"""``.env.example`` lists every variable that is read from the environment."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
READ = re.compile(
    r'environ(?:\.get\(|\[)"([A-Z_]+)"|oc\.env:([A-Z_]+)|^(?:TRACEBACK|FOLDER) = "([A-Z_]+)"', re.M
)
SET_BY_LAUNCHERS = {"LOCAL_RANK", "RANK", "WORLD_SIZE", "NETRC"}  # by torchrun and the like, and by the shell


def test_every_variable_is_listed():
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
    read = {name for path in sources for match in READ.findall(path.read_text()) for name in match if name}
    assert {"NELBO_DATA", "NELBO_CACHE", "WANDB_API_KEY", "HYDRA_FULL_ERROR"} <= read
    listed = set(re.findall(r"^(?:# )?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    assert read - SET_BY_LAUNCHERS <= listed
