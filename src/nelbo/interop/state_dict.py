"""Detection, unwrapping and comparison of state dicts of unknown origin."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeGuard

from torch import Tensor

WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and DataParallel; of torch.compile


def format_list(names: Iterable[str], limit: int = 5) -> str:
    """Sorted names for a message: the first ``limit`` of them, and the number of the others."""
    ordered = sorted(names)
    more = [f"and {len(ordered) - limit} more"] if len(ordered) > limit else []
    return ", ".join(ordered[:limit] + more) or "nothing"


def is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Whether ``content`` is a non-empty dictionary of tensors."""
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(value, Tensor) for value in content.values())
    )


def looks_like(content: object) -> str:
    """Description of the content of a file, for an error message."""
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    if "nelbo" in content:
        return "a checkpoint of nelbo: use format=nelbo"
    if "time_embed.0.weight" in content:
        return "a network of improved-diffusion: use format=improved_diffusion"
    if "pytorch-lightning_version" in content:
        return "a Lightning checkpoint of another project"
    if content.keys() == {"state", "param_groups"}:
        return "the state of an optimizer"
    return f"a dictionary of {format_list(map(str, content), 3)}"


def differences(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Missing and unexpected names and differing shapes, for an error message; empty if there are none."""
    problems = {
        "missing": expected.keys() - given.keys(),
        "unexpected": given.keys() - expected.keys(),
        "of another shape": {
            f"{name} {list(given[name].shape)} for {list(expected[name].shape)}"
            for name in given.keys() & expected.keys()
            if given[name].shape != expected[name].shape
        },
    }
    return "; ".join(f"{what}: {format_list(names, 3)}" for what, names in problems.items() if names)


def without_wrappers(content: object) -> object:
    """A state dict without the prefixes of :data:`WRAPPERS`; other content unchanged."""
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        return content
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in content):
            return without_wrappers({name.removeprefix(prefix): value for name, value in content.items()})
    return content


def where_weights_are(content: object, first_layer: str) -> str | None:
    """How to extract a network from a larger checkpoint, for an error message.

    Args:
        content: of the file.
        first_layer: name of a weight of the network.

    Returns:
        One line with the code to run; None if there is no such network.
    """
    found = [
        (place, name.removesuffix(first_layer))
        for place, state in _state_dicts(content, "")
        for name in state
        if name == first_layer or name.endswith(f".{first_layer}")
    ]
    if not found:
        return None
    places = " and ".join(
        f"content{place}" + (f" ({prefix}...)" if prefix else "") for place, prefix in found
    )
    place, prefix = found[-1]
    rename = f"k.removeprefix('{prefix}'): v" if prefix else "k: v"
    chosen = f" if k.startswith('{prefix}')" if prefix else ""
    return (
        f"it contains the network as {places}: save the weights alone and read that file, "
        f"content = torch.load(PATH, weights_only=True); "
        f"torch.save({{{rename} for k, v in content{place}.items(){chosen}}}, 'weights.pt')"
    )


def _state_dicts(content: object, place: str) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    if is_state_dict(content):
        yield place, content
    elif isinstance(content, dict) and place.count("[") < 3:
        for name, value in content.items():
            yield from _state_dicts(value, f"{place}[{name!r}]")
