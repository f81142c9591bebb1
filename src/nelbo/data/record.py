"""Description of the training data, as plain values for a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nelbo.data.spec import DataSpec

MOST_NAMES = 20  # in a message


@dataclass(frozen=True)
class DataRecord:
    """The data of a training run, sufficient to use a checkpoint without the data.

    Attributes:
        name: class of the data module.
        spec: shape, levels and class names.
        num_examples: examples in each split.
        class_counts: number of training examples of each class, in the order of the labels; None for data
            without classes.
        fingerprints: of all examples of each split, see ``DataModule.fingerprint``.
        root: absolute path of the folder of the data; None for data without a folder.
    """

    name: str
    spec: DataSpec
    num_examples: dict[str, int]
    class_counts: tuple[int, ...] | None
    fingerprints: dict[str, str]
    root: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint or JSON."""
        return _ADAPTER.dump_python(self, mode="json")

    @classmethod
    def from_dict(cls, content: object) -> "DataRecord":
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: if ``content`` is not a data record.
        """
        try:
            return _ADAPTER.validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"the data record is damaged ({where}: {first['msg']})") from error

    def differences(self, other: "DataRecord") -> list[str]:
        """Descriptions of the differences to ``other``; empty if there are none.

        The root is not compared: a copy in another folder is the same data.
        """
        mine, theirs = self.spec, other.spec
        found = []
        if mine.class_names != theirs.class_names:
            found.append(
                f"classes {format_names(mine.class_names)} became {format_names(theirs.class_names)}"
            )
        for name in ("shape", "levels", "cond"):
            before, after = getattr(mine, name), getattr(theirs, name)
            if before != after:
                found.append(f"{name} {before} became {after}")
        for split, count in self.num_examples.items():
            now = other.num_examples.get(split)
            if count != now:
                found.append(f"{count} {split} examples became {now}")
            elif self.fingerprints.get(split) != other.fingerprints.get(split):
                found.append(f"the {split} split has other content")
        return found


_ADAPTER = TypeAdapter(DataRecord)


def format_names(names: Sequence[str] | None) -> str:
    """Class names for a message, at most 20 of them."""
    if not names:
        return "none"
    more = [f"... ({len(names)} in all)"] if len(names) > MOST_NAMES else []
    return ", ".join([*names[:MOST_NAMES], *more])
