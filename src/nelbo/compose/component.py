"""One component of ``conf/`` by its name, for use from Python."""

from typing import Any

import hydra
from hydra.utils import instantiate

from nelbo.compose.config import CONFIG_DIR, to_plain
from nelbo.compose.options import check_component
from nelbo.compose.trained import composing


def build_component(group: str, name: str, options: dict[str, Any], **supplied: Any) -> Any:
    """The object of ``conf/<group>/<name>.yaml``.

    Args:
        group: such as ``sampler``.
        name: of the choice.
        options: arguments that differ from the file.
        **supplied: arguments that no file contains, such as ``data_range``.

    Raises:
        ValueError: for a name that there is not, and for options that are unknown or out of range.
    """
    names = sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
    if name not in names:
        raise ValueError(f"{group}={name!r}: expected one of {', '.join(names)}")
    with composing():
        node = to_plain(hydra.compose(f"{group}/{name}"))[group]
        unknown = options.keys() - node.keys()
        if unknown:
            raise ValueError(f"{group}={name!r} has no argument {min(unknown)}")
        node |= options
        check_component(group, node)
        return instantiate(node, **supplied)
