"""Stopping a run from outside: what it has is kept first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dreamenv.errors import DreamenvError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(DreamenvError):  # noqa: N818
    """A run was asked to stop, and has kept what it needs to go on."""

    exit_code = 130  # what shells say of a command that was interrupted


class StopRequest:
    """Whether the run was asked to stop. Calling it answers."""

    def __init__(self) -> None:
        self._requested = False

    def __call__(self) -> bool:
        """Returns whether a signal has come."""
        return self._requested

    def _request(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._requested = True
        # A second signal is not to wait for the end of the step.
        for kind in _SIGNALS:
            signal.signal(kind, signal.SIG_DFL)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a request; a second one kills as usual."""
    request = StopRequest()
    before = {kind: signal.signal(kind, request._request) for kind in _SIGNALS}
    try:
        yield request
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
