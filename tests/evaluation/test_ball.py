import numpy as np
import pytest

from dreamenv.environment import EnvironmentSpec
from dreamenv.evaluation.ball import BUNDLED, NEAR, Balls, Frames, ball_detector
from dreamenv.real import describe


def always(frames: Frames) -> Balls:
    return Balls(np.ones(len(frames), np.bool_), np.zeros(len(frames)), np.zeros(len(frames)))


def test_balls_are_near_each_other_below_a_distance() -> None:
    there = np.ones(4, np.bool_)
    balls = Balls(there, np.full(4, 10.0), np.full(4, 20.0))
    others = Balls(
        there, 10 + np.array([NEAR - 0.01, NEAR, 2.8, 2.9]), 20 - np.array([0, 0, 2.8, 2.9])
    )
    assert balls.near(others).tolist() == [True, False, True, False]


def test_a_ball_is_near_no_other_where_one_of_them_is_not_there() -> None:
    nowhere = np.zeros(4)
    balls = Balls(np.array([True, True, False, False]), nowhere, nowhere)
    others = Balls(np.array([True, False, True, False]), nowhere, nowhere)
    assert balls.near(others).tolist() == [True, False, False, False]


def test_a_detector_is_found_by_environment_and_shape() -> None:
    spec = EnvironmentSpec("Test/Ball-v0", (1, 8, 8), ("NOOP",))
    larger = EnvironmentSpec("Test/Ball-v0", (1, 16, 16), ("NOOP",))
    detectors = {("Test/Ball-v0", (1, 8, 8)): always}
    assert ball_detector(spec, detectors) is always
    assert ball_detector(larger, detectors) is None
    assert ball_detector(spec) is None


@pytest.mark.parametrize("game", ["Breakout", "Pong"])
def test_the_bundled_ones_tell_of_their_game(game: str) -> None:
    detector = ball_detector(describe(f"ALE/{game}-v5", (64, 64)))
    assert detector is BUNDLED[f"ALE/{game}-v5", (3, 64, 64)]
    ground = (0, 0, 0) if game == "Breakout" else (144, 72, 17)
    frames = np.zeros((2, 3, 64, 64), np.uint8)
    frames[:] = np.array(ground, np.uint8)[:, None, None]
    frames[1, :, 40:42, 30] = 200
    found = detector(frames)
    assert found.there.dtype == np.bool_
    assert found.there.tolist() == [False, True]
    assert (found.x[1], found.y[1]) == (30.0, 40.5)
