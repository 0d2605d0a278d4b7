import pytest
import torch

from dreamenv.errors import ConfigError
from dreamenv.evaluation.detection import Detection
from dreamenv.evaluation.fidelity import DreamFidelity, FidelityConfig, measure_dream
from dreamenv.evaluation.open_loop import OpenLoop

HORIZONS = (1, 2, 3, 9)


def flags(*rows: str) -> torch.Tensor:
    return torch.tensor([[letter == "x" for letter in row] for row in rows])


def three_windows() -> OpenLoop:
    """Two of one episode and one of another, which is over after two of three steps."""
    return OpenLoop(
        within=flags("xxx", "xxx", "xx."),
        squared_errors=torch.tensor([[1.0, 4.0, 9.0], [3.0, 4.0, 1.0], [2.0, 1.0, 1e9]]),
        dreamt_signs=torch.tensor([[1, 2, 1], [1, 1, 0], [1, 2, 2]]),
        real_signs=torch.tensor([[1, 2, 2], [1, 1, 0], [1, 1, 2]]),
        dreamt_ends=flags("...", "..x", ".xx"),
        real_ends=flags("...", "...", ".x."),
        dreamt_balls=flags("x..", "xxx", "..x"),
        real_balls=flags("xx.", "xx.", "x.x"),
        near_balls=flags("x..", ".x.", "..x"),
        frames=torch.zeros(0, 3, 1, 8, 8, dtype=torch.uint8),
    )


def measure(*, has_detector: bool = True) -> DreamFidelity:
    return measure_dream(
        three_windows(),
        torch.tensor([1, 1, 3]),
        HORIZONS,
        levels=(5.0, 1.0),
        is_own=True,
        has_detector=has_detector,
    )


def test_errors_are_those_at_the_horizon() -> None:
    frames = measure().frames
    assert [frame.horizon for frame in frames] == list(HORIZONS)
    assert [frame.mean_squared_error for frame in frames] == [2.0, 3.0, 5.0, None]
    assert [frame.windows for frame in frames] == [3, 3, 2, 0]
    assert [frame.episodes for frame in frames] == [2, 2, 1, 0]


def test_balls_count_where_the_real_frame_has_one() -> None:
    figures = measure()
    assert figures.ball_at is not None
    assert figures.ball_up_to is not None
    assert [each.share for each in figures.ball_at] == [pytest.approx(2 / 3), 0.5, None, None]
    assert [each.frames for each in figures.ball_at] == [3, 2, 0, 0]
    assert [each.frames for each in figures.ball_up_to] == [3, 5, 5, 5]
    assert figures.ball_up_to[-1].share == pytest.approx(3 / 5)


def test_balls_near_the_real_one_are_fewer_of_the_same_frames() -> None:
    figures = measure()
    assert figures.ball_up_to is not None
    assert figures.ball_near_up_to is not None
    near = figures.ball_near_up_to
    assert [each.frames for each in near] == [each.frames for each in figures.ball_up_to]
    assert [each.share for each in near] == [pytest.approx(1 / 3), *[pytest.approx(2 / 5)] * 3]


def test_balls_where_the_real_frame_has_none_are_false() -> None:
    false = measure().false_ball_up_to
    assert false is not None
    # One frame at the second step, two more at the third, of which one has a ball.
    assert [each.frames for each in false] == [0, 1, 3, 3]
    assert [each.share for each in false] == [None, 0.0, pytest.approx(1 / 3), pytest.approx(1 / 3)]


def test_without_a_detector_nothing_is_said_of_balls() -> None:
    figures = measure(has_detector=False)
    assert figures.ball_at is figures.ball_up_to is None
    assert figures.ball_near_up_to is figures.false_ball_up_to is None


def test_rewards_and_ends_count_at_all_steps_of_the_episodes() -> None:
    outcomes = measure().outcomes
    assert outcomes.negative.counts == Detection(1, 1, 1)
    assert outcomes.zero.counts == Detection(4, 5, 5)
    assert outcomes.positive.counts == Detection(1, 2, 2)
    assert outcomes.end.counts == Detection(1, 2, 1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"horizons": ()}, "horizons"),
        ({"horizons": (0, 5)}, "horizons"),
        ({"horizons": (5, 5)}, "horizons"),
        ({"max_windows": 0}, "max_windows"),
        ({"pictured": 0}, "pictured"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        FidelityConfig(**settings)  # type: ignore[arg-type]
