"""What normalised scores of many games come to in one number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dreamenv.config import Config
from dreamenv.evaluation.stratified import Numbers, estimate, scipy_stats


@dataclass(frozen=True)
class Aggregate(Config):
    """A figure over games, with the 95% interval of the stratified bootstrap over their runs.

    Attributes:
        value: The figure.
        low: The lower end of the interval; None where a game has fewer than two runs.
        high: Its upper end, likewise.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Aggregates(Config):
    """The figures that Agarwal et al. (NeurIPS 2021) recommend, and those of older papers.

    All games count the same, however many runs they have.

    Attributes:
        games: Over how many games.
        runs: Over how many runs of them.
        mean: Of the games' scores, each the mean of its runs.
        median: Likewise.
        interquartile_mean: Of all runs but the best and the worst quarter.
        optimality_gap: How far runs fall short of human scores; what exceeds them counts nothing.
        human_or_above: How many games' scores are the human one or more, as papers count them.
    """

    games: int
    runs: int
    mean: Aggregate
    median: Aggregate
    interquartile_mean: Aggregate
    optimality_gap: Aggregate
    human_or_above: Aggregate


def aggregate(scores: Sequence[Sequence[float]]) -> Aggregates:
    """Works the figures out.

    Args:
        scores: The human-normalised scores of the runs of each game.

    Raises:
        InputError: There is no game, or a game has no run.
        DreamenvError: SciPy is not installed.
    """
    estimates = estimate(scores, _figures)
    count = len(estimates.values)
    lows = [None] * count if estimates.low is None else estimates.low.tolist()
    highs = [None] * count if estimates.high is None else estimates.high.tolist()
    parts = zip(estimates.values.tolist(), lows, highs, strict=True)
    return Aggregates(len(scores), sum(map(len, scores)), *(Aggregate(*part) for part in parts))


def _figures(scores: Numbers) -> Numbers:
    """Works out the figures [B, 5] of scores [B, G, R], in the order of `Aggregates`."""
    games = scores.mean(axis=-1)
    runs = scores.reshape(len(scores), -1)
    return np.stack(
        [
            games.mean(axis=-1),
            np.median(games, axis=-1),
            scipy_stats().trim_mean(runs, 0.25, axis=-1),
            1 - np.minimum(runs, 1).mean(axis=-1),
            (games >= 1).sum(axis=-1),
        ],
        axis=-1,
    )
