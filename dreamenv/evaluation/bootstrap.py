"""The mean of a few numbers, and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dreamenv.config import Config
from dreamenv.errors import InputError

_RESAMPLES = 10_000
_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate(Config):
    """A mean with the 95% interval of the percentile bootstrap (Efron 1979).

    Attributes:
        mean: Of the values.
        low: The lower end of the interval.
        high: Its upper end.
        count: How many values there are.
    """

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def estimate_mean(
    values: Sequence[float] | npt.NDArray[np.floating],
    weights: Sequence[float] | npt.NDArray[np.floating] | None = None,
) -> Estimate:
    """Estimates the mean of what the values were drawn from.

    Args:
        values: One for each thing that was drawn by itself, such as an episode.
        weights: How much each counts, such as its steps; all the same if None. They are resampled
            with their values.

    Returns:
        The (weighted) mean of the values, with its interval. The resamples are always the same.

    Raises:
        InputError: There are no values, or not as many weights.
    """
    numbers = np.asarray(values, np.float64)
    shares = np.ones_like(numbers) if weights is None else np.asarray(weights, np.float64)
    if numbers.ndim != 1 or numbers.size == 0 or shares.shape != numbers.shape:
        raise InputError(
            f"values are {list(numbers.shape)} and weights {list(shares.shape)}; there must be at "
            f"least one value, and a weight for each"
        )
    rng = np.random.default_rng(0)
    drawn = rng.integers(numbers.size, size=(_RESAMPLES, numbers.size))
    means = (numbers * shares)[drawn].sum(axis=1) / shares[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    mean = float(np.average(numbers, weights=shares))
    return Estimate(mean, float(low), float(high), numbers.size)
