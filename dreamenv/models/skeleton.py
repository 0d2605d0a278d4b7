"""Building networks for weights that are read from a file: no memory, and no random numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_INITIALISERS = frozenset({"normal_", "uniform_", "orthogonal_", "xavier_uniform_"})


@contextmanager
def skeleton() -> Iterator[None]:
    """Networks that are built inside have parameters with shapes and nothing else."""
    with torch.device("meta"), _WithoutChance():
        yield


class _WithoutChance(TorchFunctionMode):
    """Leaves random numbers out.

    To draw them on the meta device, torch imports its compiler, for about a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func.__name__ in _INITIALISERS:
            return args[0] if args else named["tensor"]
        return (torch.empty if func is torch.randn else func)(*args, **named)
