import sys

import numpy as np
import pytest

from dreamenv.errors import DreamenvError, InputError
from dreamenv.evaluation.stratified import Numbers, estimate


def mean(scores: Numbers) -> Numbers:
    means: Numbers = scores.mean(axis=(-2, -1))
    return means[:, None]


def test_the_interval_of_a_mean_is_that_of_theory_with_any_numbers_of_runs() -> None:
    rng = np.random.default_rng(1)
    games = [rng.normal(place, 2, count) for place, count in enumerate((40, 60, 80, 120))]
    estimates = estimate([game.tolist() for game in games], mean)
    assert estimates.low is not None
    assert estimates.high is not None
    expected = 1.96 * np.sqrt(sum(game.var() / len(game) for game in games)) / len(games)
    assert estimates.values == pytest.approx(np.mean([game.mean() for game in games]))
    assert estimates.values - estimates.low == pytest.approx(expected, rel=0.05)
    assert estimates.high - estimates.values == pytest.approx(expected, rel=0.05)


def test_games_are_not_resampled() -> None:
    estimates = estimate([[0.0, 0.0], [10.0, 10.0]], mean)
    assert estimates.low is not None
    assert estimates.high is not None
    assert [*estimates.values, *estimates.low, *estimates.high] == [5, 5, 5]


def test_each_figure_has_its_own_interval() -> None:
    def both(scores: Numbers) -> Numbers:
        return np.stack([scores.min(axis=(-2, -1)), scores.max(axis=(-2, -1))], axis=-1)

    estimates = estimate([[1.0, 1.0], [2.0, 4.0]], both)
    assert estimates.low is not None
    assert estimates.high is not None
    assert estimates.values.tolist() == [1, 4]
    assert estimates.low.tolist() == [1, 2]
    assert estimates.high.tolist() == [1, 4]


def test_the_same_scores_give_the_same_interval() -> None:
    scores = np.random.default_rng(2).normal(size=(5, 3)).tolist()
    first, second = estimate(scores, mean), estimate(scores, mean)
    assert (first.low, first.high) == (second.low, second.high)


def test_a_game_with_one_run_leaves_no_interval() -> None:
    estimates = estimate([[1.0, 2.0, 3.0], [6.0]], mean)
    assert estimates.values.tolist() == [4]
    assert estimates.low is None
    assert estimates.high is None


@pytest.mark.parametrize("scores", [[], [[1.0], []]])
def test_nothing_has_no_figures(scores: list[list[float]]) -> None:
    with pytest.raises(InputError, match="give each game a run"):
        estimate(scores, mean)


def test_a_missing_scipy_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(DreamenvError, match=r"pip install 'dreamenv\[benchmark\]'"):
        estimate([[1.0, 2.0]], mean)
