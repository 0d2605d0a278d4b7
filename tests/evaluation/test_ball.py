import numpy as np
import pytest

from dreamenv.environment import EnvironmentSpec
from dreamenv.evaluation.ball import BUNDLED, Flags, Frames, ball_detector
from dreamenv.real import describe


def always(frames: Frames) -> Flags:
    return np.ones(len(frames), np.bool_)


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
    assert found.dtype == np.bool_
    assert found.tolist() == [False, True]
