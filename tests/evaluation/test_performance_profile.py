import numpy as np
import pytest

from dreamenv.evaluation.performance_profile import THRESHOLDS, profile


def test_it_tells_the_share_of_runs_above_each_threshold() -> None:
    curve = profile([[0.1, 0.6], [0.5, 2.5]], thresholds=(0.0, 0.1, 0.5, 1.0, 2.5))
    assert curve.thresholds == (0.0, 0.1, 0.5, 1.0, 2.5)
    assert curve.shares == (1.0, 0.75, 0.5, 0.25, 0.0)


def test_games_count_the_same_with_any_numbers_of_runs() -> None:
    assert profile([[0.0], [1.0, 1.0, 1.0]], thresholds=(0.5,)).shares == (0.5,)


def test_its_band_is_over_runs_and_takes_two_of_each_game() -> None:
    scores = np.random.default_rng(0).normal(1, 0.5, (6, 4)).tolist()
    curve = profile(scores)
    assert curve.low is not None
    assert curve.high is not None
    assert all(np.array(curve.low) <= curve.shares)
    assert all(np.array(curve.high) >= curve.shares)
    assert max(np.subtract(curve.high, curve.low)) > 0.1
    alone = profile([*scores, [1.0]])
    assert (alone.low, alone.high) == (None, None)


def test_it_reaches_from_random_play_to_twice_the_human_score() -> None:
    assert (THRESHOLDS[0], THRESHOLDS[-1]) == (0, 2)
    assert 1.0 in THRESHOLDS


def test_its_figure_has_the_curve_its_band_and_those_of_others() -> None:
    curve, other = profile([[0.5, 1.5], [0.2, 0.4]]), profile([[1.0]])
    axes = curve.to_figure("mine", {"theirs": other}).axes[0]
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.lines}
    assert set(drawn) == {"mine", "theirs"}
    assert drawn["mine"] == pytest.approx(np.array(curve.shares))
    assert drawn["theirs"] == pytest.approx(np.array(other.shares))
    assert len(axes.collections) == 1
    assert not other.to_figure("theirs", {}).axes[0].collections
