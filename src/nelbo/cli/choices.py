"""``${choices:}`` in the text of ``--help``: the groups of the configuration folders and their options."""

import textwrap

from omegaconf import OmegaConf

from nelbo.cli.project import searched_folders

COLUMNS = 80


def describe_choices() -> str:
    """A paragraph for each group, in lines of at most 80 columns."""
    names: dict[str, set[str]] = {}
    for folder in searched_folders():
        for path in folder.glob("*/*.yaml"):
            names.setdefault(path.parent.name, set()).add(path.stem)
    lines = (f"{group}: {', '.join(sorted(names[group]))}" for group in sorted(names))
    wrap = textwrap.TextWrapper(COLUMNS, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(map(wrap.fill, lines))


def register_choices() -> None:
    """Let ``hydra.help`` have them."""
    OmegaConf.register_new_resolver("choices", describe_choices, replace=True)
