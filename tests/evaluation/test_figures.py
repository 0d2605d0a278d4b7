import math

import numpy as np
import pytest

from dreamenv.evaluation.detection import Detection, Detections
from dreamenv.evaluation.figures import FrameError, Outcomes, Presence, Score


def test_errors_are_pooled_before_they_become_decibels() -> None:
    errors, episodes = np.array([1.0, 3.0, 8.0]), np.array([4, 4, 9])
    figure = FrameError.of(10, errors, episodes)
    assert (figure.horizon, figure.windows, figure.episodes) == (10, 3, 2)
    assert figure.mean_squared_error == 4.0
    assert figure.psnr == pytest.approx(10 * math.log10(255**2 / 4))
    # Resampled are episodes: only one of them, or both.
    assert figure.psnr_low == pytest.approx(10 * math.log10(255**2 / 8))
    assert figure.psnr_high == pytest.approx(10 * math.log10(255**2 / 2))


def test_a_dream_without_error_is_none_decibels() -> None:
    figure = FrameError.of(1, np.zeros(3), np.array([1, 2, 3]))
    assert figure.mean_squared_error == 0.0
    assert (figure.psnr, figure.psnr_low, figure.psnr_high) == (None, None, None)


def test_one_episode_has_no_interval() -> None:
    figure = FrameError.of(1, np.array([1.0, 4.0]), np.array([5, 5]))
    assert figure.psnr is not None
    assert (figure.psnr_low, figure.psnr_high) == (None, None)
    presence = Presence.of(1, np.array([1.0, 0.0]), np.array([5, 5]))
    assert presence == Presence(1, 2, 1, 0.5, None, None)


def test_nothing_has_no_figure() -> None:
    nothing, nowhere = np.zeros(0), np.zeros(0, np.int64)
    assert FrameError.of(50, nothing, nowhere) == FrameError(50, 0, 0, None, None, None, None)
    assert Presence.of(50, nothing, nowhere) == Presence(50, 0, 0, None, None, None)


def test_each_frame_counts_once_in_a_share() -> None:
    presence = Presence.of(5, np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1]))
    assert presence == Presence(5, 4, 2, 0.75, 0.0, 1.0)


def test_scores_are_named() -> None:
    negative, zero, positive, end = (Detection(1, 2, count) for count in (4, 5, 6, 7))
    outcomes = Outcomes.of(Detections((negative, zero, positive), end))
    assert outcomes.negative == Score(0.5, 0.25, negative)
    assert outcomes.end.counts == end
    assert Outcomes.from_dict(outcomes.to_dict(), "it") == outcomes
