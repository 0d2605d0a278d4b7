from collections.abc import Callable

import pytest
import torch

from dreamenv.evaluation.timing import Stopwatch, Timing, alternate


class Clock:
    """Time that goes on only where somebody works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = ""

    def worker(self, name: str, seconds: Callable[[int], float]) -> Callable[[], None]:
        """Returns what works, the n-th time for so many seconds, n from 0."""

        def work() -> None:
            self.now += seconds(self.calls.count(name))
            self.calls += name

        return work

    @property
    def stopwatch(self) -> Stopwatch:
        return Stopwatch(lambda: None, lambda: self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_timing_has_the_median_and_percentiles_in_milliseconds() -> None:
    timing = Timing.of([number / 1000 for number in range(11)])
    assert (timing.p10, timing.median, timing.p90) == pytest.approx((1, 5, 9))
    assert timing.calls == 11
    assert timing.per_second == pytest.approx(200)


def test_quick_calls_take_turns_of_which_the_first_does_not_count(clock: Clock) -> None:
    # Where a turn begins the caches are full of the other's, and it takes longer.
    def seconds(name: str, warm: float) -> Callable[[int], float]:
        return lambda _: warm if clock.calls.endswith(name) else 1.0

    a, b = clock.worker("a", seconds("a", 0.1)), clock.worker("b", seconds("b", 0.2))
    ours, theirs = alternate([a, b], 30.0, clock.stopwatch)
    first_rounds, turns = clock.calls[:4], clock.calls[4:]
    assert first_rounds == "abab"
    assert len(turns) >= 30
    assert turns == "aaaaabbbbb" * (len(turns) // 10)
    assert (ours.median, theirs.median) == pytest.approx((100, 200))
    assert ours.calls == theirs.calls == 1 + 4 * len(turns) // 10


def test_slow_calls_take_turns_one_by_one(clock: Clock) -> None:
    a, b = clock.worker("a", lambda _: 1.0), clock.worker("b", lambda _: 2.0)
    ours, theirs = alternate([a, b], 8.0, clock.stopwatch)
    assert clock.calls == "ab" + "ababab"
    assert (ours.calls, theirs.calls) == (3, 3)
    assert (ours.median, theirs.median) == pytest.approx((1000, 2000))


def test_the_first_call_does_not_count_however_slow(clock: Clock) -> None:
    def seconds(times: int) -> float:
        return 60.0 if times == 0 else 20.0

    (timing,) = alternate([clock.worker("a", seconds)], 10.0, clock.stopwatch)
    assert clock.calls == "aa"
    assert timing == Timing(20_000, 20_000, 20_000, 1)


def test_three_take_turns_as_two_do(clock: Clock) -> None:
    workers = [clock.worker(name, lambda _: 1.0) for name in "abc"]
    assert len(alternate(workers, 5.0, clock.stopwatch)) == 3
    assert clock.calls == "abc" * 3


def test_a_call_ends_when_the_device_has_done_it() -> None:
    now, pending = 0.0, 0.0

    def launch() -> None:
        nonlocal pending
        pending += 3.0

    def wait() -> None:
        nonlocal now, pending
        now, pending = now + pending, 0.0

    pending = 100.0  # what was told to it before
    assert Stopwatch(wait, lambda: now).seconds(launch) == 3.0


def test_a_cpu_is_waited_for_by_nobody() -> None:
    assert Stopwatch.of(torch.device("cpu")).seconds(lambda: None) < 1
