"""Timing what is to be compared, side by side: A B A B, so that both meet the same machine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from typing_extensions import Self

from dreamenv.config import Config

Act = Callable[[], object]

_CALLS = 4  # of a turn, after a first that finds the caches full of another's


@dataclass(frozen=True)
class Timing(Config):
    """How long calls took.

    Attributes:
        median: In milliseconds, as the others.
        p10: The 10th percentile.
        p90: The 90th percentile.
        calls: How many were timed.
    """

    median: float
    p10: float
    p90: float
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Sums up the seconds of calls, of which there is at least one."""
        p10, median, p90 = (float(each) for each in np.percentile(seconds, (10, 50, 90)) * 1000)
        return cls(median, p10, p90, len(seconds))

    @property
    def per_second(self) -> float:
        """Calls a second, by the median."""
        return 1000 / self.median


@dataclass(frozen=True)
class Stopwatch:
    """Takes the time of calls.

    Attributes:
        wait: Waits until the device has done all that it was told to.
        now: Seconds since some moment.
    """

    wait: Callable[[], None]
    now: Callable[[], float] = time.perf_counter

    @classmethod
    def of(cls, device: torch.device) -> Self:
        """Returns the stopwatch for what a device computes."""
        if device.type == "cuda":
            return cls(partial(torch.cuda.synchronize, device))
        return cls(torch.mps.synchronize if device.type == "mps" else lambda: None)

    def seconds(self, act: Act) -> float:
        """Returns how long a call takes, with all that the device computes for it."""
        self.wait()
        started = self.now()
        act()
        self.wait()
        return self.now() - started


def alternate(acts: Sequence[Act], seconds: float, stopwatch: Stopwatch) -> list[Timing]:
    """Times calls in turn, A B A B, for about so many seconds in all.

    The first call of each, which allocates, does not count. A turn is then a few calls after one
    that does not count either; or one call, where calls are too slow for two rounds of that.

    Args:
        acts: What is called.
        seconds: How long, but for the first calls; the round at the end may take longer.
        stopwatch: Takes the time.

    Returns:
        How long the calls of each took; all of them are timed equally often.
    """
    for act in acts:
        stopwatch.seconds(act)
    started = stopwatch.now()
    taken = [[stopwatch.seconds(act)] for act in acts]
    while stopwatch.now() - started < seconds:
        # The quickest calls so far: others may have met a machine that was busy for a moment.
        is_slow = 2 * (1 + _CALLS) * sum(map(min, taken)) > seconds
        for act, times in zip(acts, taken, strict=True):
            times += _turn(act, is_slow, stopwatch)
    return [Timing.of(each) for each in taken]


def _turn(act: Act, is_slow: bool, stopwatch: Stopwatch) -> list[float]:
    if is_slow:
        return [stopwatch.seconds(act)]
    act()
    return [stopwatch.seconds(act) for _ in range(_CALLS)]
