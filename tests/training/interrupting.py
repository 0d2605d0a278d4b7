"""Interrupting a run at a chosen moment, as if it were killed there."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest


class Killed(BaseException):
    """What stands for SIGKILL: nothing catches it, and nothing is written after it."""


def kill() -> None:
    raise Killed


def interrupt(
    run: Callable[[], object], owner: Any, name: str, call: int, by: Callable[[], None]
) -> None:
    """Runs, and interrupts after the call of that number of the owner's function."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = itertools.count(1)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if next(calls) == call:
            by()
        return result

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, interrupted)
        run()
