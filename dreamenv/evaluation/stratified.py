"""How sure a figure of several games is, where each game was run with several seeds."""

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dreamenv.errors import DreamenvError, InputError

Numbers = npt.NDArray[np.float64]
Statistic = Callable[[Numbers], Numbers]
"""Makes [B, S] figures of B matrices [B, G, R]: scores of R runs of each of G games."""

_RESAMPLES = 10_000
_BATCH = 500  # resamples in memory at once
_LEVEL = 0.95


@dataclass(frozen=True)
class Estimates:
    """Figures with their 95% intervals.

    Attributes:
        values: [S].
        low: The lower ends, [S]; None where a game has fewer than two runs.
        high: The upper ends, likewise.
    """

    values: Numbers
    low: Numbers | None
    high: Numbers | None


def estimate(scores: Sequence[Sequence[float]], statistic: Statistic) -> Estimates:
    """Works figures out, with intervals by the stratified bootstrap (Agarwal et al., 2021).

    The runs of each game are resampled by themselves; the games stay the same. The resamples are
    always the same, too.

    Args:
        scores: Of the runs of each game. Games may have different numbers of runs.
        statistic: What is worked out. All games count the same to it: it sees the runs of each
            game repeated to a number that all games share.

    Raises:
        InputError: There is no game, or a game has no run.
        DreamenvError: SciPy is not installed.
    """
    if not scores or not all(scores):
        raise InputError("a game has no run, or there is no game; give each game a run")
    games = [np.asarray(game, np.float64) for game in scores]
    values = statistic(_matrices([game[None] for game in games]))[0]
    if any(len(game) < 2 for game in games):
        return Estimates(values, None, None)
    interval = (
        scipy_stats()
        .bootstrap(
            games,
            lambda *resampled, **_: statistic(_matrices(resampled)).T,
            vectorized=True,
            paired=False,
            method="percentile",
            n_resamples=_RESAMPLES,
            batch=_BATCH,
            confidence_level=_LEVEL,
            rng=np.random.default_rng(0),
        )
        .confidence_interval
    )
    return Estimates(values, interval.low, interval.high)


def scipy_stats() -> Any:
    """Imports `scipy.stats`, which is of an optional extra and comes without types.

    Raises:
        DreamenvError: It is not installed.
    """
    try:
        return importlib.import_module("scipy.stats")
    except ImportError as error:
        raise DreamenvError(
            f"SciPy cannot be used ({error}); install it with pip install 'dreamenv[benchmark]'"
        ) from error


def _matrices(games: Sequence[Numbers]) -> Numbers:
    """Repeats the runs of games, each [B, its runs], to as many for all: [B, G, R]."""
    runs = math.lcm(*(game.shape[-1] for game in games))
    return np.stack([np.repeat(game, runs // game.shape[-1], axis=-1) for game in games], axis=-2)
