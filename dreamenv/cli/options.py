"""Kinds of options that several commands have."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from tyro.constructors import PrimitiveConstructorSpec

Number = TypeVar("Number", int, float)


def _with_commas(read: Callable[[str], Number]) -> PrimitiveConstructorSpec[Any]:
    """Numbers in one word, commas between them."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="N,N,...",
        instance_from_str=lambda words: tuple(read(number) for number in words[0].split(",")),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda numbers: [",".join(str(number) for number in numbers)],
    )


Counts = Annotated[tuple[int, ...], _with_commas(int)]
Levels = Annotated[tuple[float, ...], _with_commas(float)]
