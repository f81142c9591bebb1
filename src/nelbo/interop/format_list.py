"""Names in one line of an error."""

from collections.abc import Iterable


def format_list(names: Iterable[str], limit: int = 5) -> str:
    """The first few of some names, sorted, and how many more there are."""
    ordered = sorted(names)
    more = [f"and {len(ordered) - limit} more"] if len(ordered) > limit else []
    return ", ".join(ordered[:limit] + more) or "nothing"
