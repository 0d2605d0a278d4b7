"""Whether there is a ball in a frame, for the games where it can be told."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dreamenv.environment import EnvironmentSpec
from dreamenv.zoo import breakout, pong

Frames = npt.NDArray[np.uint8]  # [N, C, H, W]
Flags = npt.NDArray[np.bool_]  # [N]

Detector = Callable[[Frames], Flags]
"""Tells of frames, uint8 [N, C, H, W], whether there is a ball in each, bool [N]."""

Detectors = Mapping[tuple[str, tuple[int, int, int]], Detector]
"""By the id of the environment and the shape C, H, W of its frames: detectors know pixels."""


def _flags(find: Callable[[Frames], tuple[Flags, Any]]) -> Detector:
    return lambda frames: find(frames)[0]


BUNDLED: Detectors = {
    ("ALE/Breakout-v5", (3, 64, 64)): _flags(breakout.find_ball),
    ("ALE/Pong-v5", (3, 64, 64)): _flags(pong.find_ball),
}


def ball_detector(environment: EnvironmentSpec, detectors: Detectors = BUNDLED) -> Detector | None:
    """Returns what finds the ball in frames of an environment, or None where nothing does."""
    return detectors.get((environment.id, environment.obs_shape))
