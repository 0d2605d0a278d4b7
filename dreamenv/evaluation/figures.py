"""Figures that pool many frames or steps, each with what it is of."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from dreamenv.config import Config
from dreamenv.evaluation.bootstrap import Estimate, estimate_mean
from dreamenv.evaluation.detection import Detection, Detections
from dreamenv.evaluation.psnr import psnr

Numbers = npt.NDArray[np.float64]  # [N]
Places = npt.NDArray[np.int64]  # [N]


@dataclass(frozen=True)
class FrameError(Config):
    """How far dreamt frames are from the real ones after a number of steps.

    The squared error is the mean over the pixels of a frame, and then over the windows; the PSNR
    is that of this mean. The 95% interval is of resampled episodes, since windows of one episode
    are alike.

    Attributes:
        horizon: The number of steps.
        windows: How many windows go on so far.
        episodes: How many episodes they are of. Of fewer than two there is no interval.
        mean_squared_error: Of levels from 0 to 255; None without windows.
        psnr: In dB; None without windows, and without any error.
        psnr_low: The lower end of its interval, likewise.
        psnr_high: The upper end, likewise.
    """

    horizon: int
    windows: int
    episodes: int
    mean_squared_error: float | None
    psnr: float | None
    psnr_low: float | None
    psnr_high: float | None

    @classmethod
    def of(cls, horizon: int, squared_errors: Numbers, episodes: Places) -> Self:
        """Pools the errors [N] of windows of those episodes, int64 [N]."""
        estimate = _estimate(squared_errors, episodes)
        if estimate is None:
            return cls(horizon, 0, 0, None, None, None, None)
        known = estimate.count > 1
        return cls(
            horizon=horizon,
            windows=len(squared_errors),
            episodes=estimate.count,
            mean_squared_error=estimate.mean,
            psnr=psnr(estimate.mean),
            psnr_low=psnr(estimate.high) if known else None,
            psnr_high=psnr(estimate.low) if known else None,
        )


@dataclass(frozen=True)
class Presence(Config):
    """How often a ball is in dreamt frames, of those where the real frame has one, or has none.

    It counts anywhere, or only near the real one. The 95% interval is of resampled episodes.

    Attributes:
        horizon: After how many steps.
        frames: How many such frames there are.
        episodes: How many episodes they are of. Of fewer than two there is no interval.
        share: The share of them whose dreamt frame has such a ball; None where there are none.
        low: The lower end of its interval.
        high: The upper end.
    """

    horizon: int
    frames: int
    episodes: int
    share: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, horizon: int, found: Numbers, episodes: Places) -> Self:
        """Pools what was found in dreamt frames, 0 or 1 [N], of those episodes, int64 [N]."""
        estimate = _estimate(found, episodes)
        if estimate is None:
            return cls(horizon, 0, 0, None, None, None)
        known = estimate.count > 1
        return cls(
            horizon=horizon,
            frames=len(found),
            episodes=estimate.count,
            share=estimate.mean,
            low=estimate.low if known else None,
            high=estimate.high if known else None,
        )


@dataclass(frozen=True)
class Score(Config):
    """Precision and recall, and what they are of.

    Attributes:
        precision: The share of the predictions that were right; None where there were none.
        recall: The share of what was there that was predicted; None where nothing was.
        counts: The numbers of steps.
    """

    precision: float | None
    recall: float | None
    counts: Detection

    @classmethod
    def of(cls, counts: Detection) -> Self:
        """Works out the shares."""
        return cls(counts.precision, counts.recall, counts)


@dataclass(frozen=True)
class Outcomes(Config):
    """How well rewards of each sign and ends are told, taking the likeliest.

    Attributes:
        negative: Rewards below 0.
        zero: No reward.
        positive: Rewards above 0.
        end: Ends of episodes by the game's own rules.
    """

    negative: Score
    zero: Score
    positive: Score
    end: Score

    @classmethod
    def of(cls, detections: Detections) -> Self:
        """Names the scores."""
        return cls(*(Score.of(detection) for detection in (*detections.rewards, detections.end)))


def _estimate(values: Numbers, episodes: Places) -> Estimate | None:
    """Estimates the mean of values [N] by resampling their episodes; None without values."""
    if len(values) == 0:
        return None
    _, index, counts = np.unique(episodes, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=values) / counts
    return estimate_mean(means, counts.astype(np.float64))
