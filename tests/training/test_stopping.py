import os
import signal
import subprocess
import sys

import pytest

from dreamenv.training.stopping import stop_on_signal

BOTH = pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])

STOPPED_TWICE = """
import os, signal, sys
from dreamenv.training.stopping import stop_on_signal

kind = signal.Signals(int(sys.argv[1]))
with stop_on_signal() as stop:
    os.kill(os.getpid(), kind)
    assert stop()
    print("once", flush=True)
    os.kill(os.getpid(), kind)
    print("twice", flush=True)
"""


@BOTH
def test_a_signal_is_a_request(kind: signal.Signals) -> None:
    with stop_on_signal() as stop:
        assert not stop()
        os.kill(os.getpid(), kind)
        assert stop()
        assert stop()


@BOTH
def test_handlers_are_restored(kind: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    with stop_on_signal():
        assert signal.getsignal(kind) != before[kind]
        os.kill(os.getpid(), kind)
    assert {one: signal.getsignal(one) for one in before} == before


def test_handlers_are_restored_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), stop_on_signal():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


def test_requests_are_each_its_own() -> None:
    with stop_on_signal() as first:
        os.kill(os.getpid(), signal.SIGTERM)
    with stop_on_signal() as second:
        assert first()
        assert not second()


@BOTH
def test_a_second_signal_kills(kind: signal.Signals) -> None:
    command = [sys.executable, "-c", STOPPED_TWICE, str(int(kind))]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == -kind
    assert result.stdout == "once\n"
