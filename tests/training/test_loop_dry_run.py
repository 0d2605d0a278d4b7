import time

import pytest

from dreamenv.training import loop_dry_run


def test_a_short_step_is_timed_without_its_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lengths = 0.0, iter([4.0, 1.0, 2.0, 3.0])

    def act() -> None:
        nonlocal now
        now += next(lengths)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert loop_dry_run._time(act, 3) == 2.0


def test_a_long_step_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lengths = 0.0, iter([90.0])

    def act() -> None:
        nonlocal now
        now += next(lengths)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert loop_dry_run._time(act, 3) == 90.0
