"""Annotations of constructors. ``nelbo.compose.options`` checks the options of a configuration by them."""

from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, Len, Lt, MultipleOf, Predicate
from pydantic import Field

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
EvenInt = Annotated[int, Ge(2), MultipleOf(2)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
ImageSize = PositiveInt | Annotated[list[PositiveInt], Len(2, 2)]  # of squares, or [height, width]
Probability = Annotated[float, Ge(0), Lt(1)]
MIN_SIGMA_REL, MAX_SIGMA_REL = 0.001, 0.288  # of an average of the weights; that of the mean is 12^-1/2
SigmaRel = Annotated[float, Ge(MIN_SIGMA_REL), Le(MAX_SIGMA_REL)]
Seed = Annotated[int, Ge(0), Lt(2**32)]  # what NumPy and Lightning accept


def _is_no_file(path: str) -> bool:
    return not Path(path).expanduser().is_file()


Folder = Annotated[str, Predicate(_is_no_file), Field(description="a folder")]  # it need not exist
