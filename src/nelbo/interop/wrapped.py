"""State dicts inside of other things: prefixes of wrappers, and checkpoints with more than weights."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from nelbo.interop.file import is_state_dict

WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel and DataParallel; torch.compile


def without_wrappers(content: object) -> object:
    """A dictionary without the prefix that a wrapper gave to all of its names; anything else unchanged."""
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        return content
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in content):
            return without_wrappers({name.removeprefix(prefix): value for name, value in content.items()})
    return content


def where_weights_are(content: object, first_layer: str) -> str | None:
    """How to get at a network inside of a larger checkpoint, as part of an error message.

    Args:
        content: of the file.
        first_layer: a weight that the network has, by its whole name.

    Returns:
        What to do, in one line; None where there is no such network.
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
        f"it holds the network inside, as {places}: save the weights alone and read that file, "
        f"content = torch.load(PATH, weights_only=True); "
        f"torch.save({{{rename} for k, v in content{place}.items(){chosen}}}, 'weights.pt')"
    )


def _state_dicts(content: object, place: str) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    if is_state_dict(content):
        yield place, content
    elif isinstance(content, dict) and place.count("[") < 3:
        for name, value in content.items():
            yield from _state_dicts(value, f"{place}[{name!r}]")
