import numpy as np
import pytest

from dreamenv.evaluation.aggregates import Aggregate, aggregate


def test_each_figure_is_what_it_says() -> None:
    scores = [[0.0, 0.2], [0.3, 0.5], [0.9, 1.3], [1.5, 3.5]]
    figures = aggregate(scores)
    assert (figures.games, figures.runs) == (4, 8)
    assert figures.mean.value == pytest.approx((0.1 + 0.4 + 1.1 + 2.5) / 4)
    assert figures.median.value == pytest.approx((0.4 + 1.1) / 2)
    assert figures.interquartile_mean.value == pytest.approx((0.3 + 0.5 + 0.9 + 1.3) / 4)
    assert figures.optimality_gap.value == pytest.approx((1 + 0.8 + 0.7 + 0.5 + 0.1) / 8)
    assert figures.human_or_above.value == 2


def test_a_game_at_the_human_score_counts_and_one_below_does_not() -> None:
    assert aggregate([[1.0], [0.999], [0.5, 1.5]]).human_or_above.value == 2


def test_a_game_counts_as_much_as_another_with_more_runs() -> None:
    many = aggregate([[0.0, 0.0, 0.0], [0.8, 0.8]])
    assert many.mean.value == pytest.approx(0.4)
    assert many.median.value == pytest.approx(0.4)
    assert many.interquartile_mean.value == pytest.approx(0.4)
    assert many.optimality_gap.value == pytest.approx(0.6)
    assert (many.games, many.runs) == (2, 5)


def test_intervals_hold_the_figures_and_are_of_the_runs_of_each_game() -> None:
    scores = np.random.default_rng(0).normal(0.5, 0.3, (10, 5)).tolist()
    figures = aggregate(scores)
    for each in (figures.mean, figures.median, figures.interquartile_mean, figures.optimality_gap):
        assert each.low is not None
        assert each.high is not None
        assert each.low < each.value < each.high
    still = aggregate([[0.25, 0.25], [1.5, 1.5]])
    assert still.mean == Aggregate(0.875, 0.875, 0.875)
    assert still.human_or_above == Aggregate(1, 1, 1)


def test_one_run_of_a_game_leaves_figures_without_intervals() -> None:
    assert aggregate([[0.5], [1.5]]).mean == Aggregate(1, None, None)
