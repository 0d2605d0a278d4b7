"""Where the ball is in a frame, for the games where it can be told."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dreamenv.environment import EnvironmentSpec
from dreamenv.zoo import breakout, pong
from dreamenv.zoo.spots import Spots

Frames = npt.NDArray[np.uint8]  # [N, C, H, W]
Flags = npt.NDArray[np.bool_]  # [N]
Places = npt.NDArray[np.float64]  # [N]

NEAR = 4.0
"""In pixels of a frame of 64x64: about the way that a fast ball flies in one step."""


class Balls(NamedTuple):
    """The balls of N frames.

    Attributes:
        there: bool [N], whether there is one.
        x: float64 [N], its centre, in pixels; where there is none, it means nothing.
        y: Likewise.
    """

    there: Flags
    x: Places
    y: Places

    def near(self, others: "Balls") -> Flags:
        """Returns bool [N]: whether both are there, less than `NEAR` from each other."""
        close: Flags = np.hypot(self.x - others.x, self.y - others.y) < NEAR
        return self.there & others.there & close


Detector = Callable[[Frames], Balls]
"""Finds the ball in each of the frames, uint8 [N, C, H, W]."""

Detectors = Mapping[tuple[str, tuple[int, int, int]], Detector]
"""By the id of the environment and the shape C, H, W of its frames: detectors know pixels."""


def _balls(find: Callable[[Frames], tuple[Flags, Spots]]) -> Detector:
    def detect(frames: Frames) -> Balls:
        there, spots = find(frames)
        return Balls(there, spots.x, spots.y)

    return detect


BUNDLED: Detectors = {
    ("ALE/Breakout-v5", (3, 64, 64)): _balls(breakout.find_ball),
    ("ALE/Pong-v5", (3, 64, 64)): _balls(pong.find_ball),
}


def ball_detector(environment: EnvironmentSpec, detectors: Detectors = BUNDLED) -> Detector | None:
    """Returns what finds the ball in frames of an environment, or None where nothing does."""
    return detectors.get((environment.id, environment.obs_shape))
