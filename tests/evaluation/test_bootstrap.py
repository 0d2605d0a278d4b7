import numpy as np
import pytest

from dreamenv.errors import InputError
from dreamenv.evaluation.bootstrap import Estimate, estimate_mean


def test_the_interval_of_many_normal_numbers_is_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    estimate = estimate_mean(values)
    assert estimate.mean == pytest.approx(values.mean())
    expected = 1.96 * values.std() / 20
    assert estimate.mean - estimate.low == pytest.approx(expected, rel=0.1)
    assert estimate.high - estimate.mean == pytest.approx(expected, rel=0.1)
    assert estimate.count == 400


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    estimates = [estimate_mean(rng.exponential(1.0, 50)) for _ in range(100)]
    covered = sum(estimate.low <= 1 <= estimate.high for estimate in estimates)
    assert 86 <= covered <= 100


def test_equal_values_leave_no_doubt() -> None:
    assert estimate_mean([4.0, 4.0, 4.0]) == Estimate(4, 4, 4, 3)


def test_weights_count() -> None:
    estimate = estimate_mean([0.0, 1.0], weights=[3.0, 1.0])
    assert estimate.mean == 0.25
    assert (estimate.low, estimate.high) == (0, 1)


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(3).normal(size=20)
    assert estimate_mean(values) == estimate_mean(values)


def test_it_reads_as_a_mean_with_its_interval() -> None:
    assert str(Estimate(1.234, 1, 2, 5)) == "1.23 [1.00, 2.00]"


@pytest.mark.parametrize(("values", "weights"), [([], None), ([1.0], [1.0, 2.0])])
def test_nothing_has_no_mean(values: list[float], weights: list[float] | None) -> None:
    with pytest.raises(InputError, match="there must be at least one value"):
        estimate_mean(values, weights)
