"""A scripted game of one grey level that grows, and two ways in which it is over."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete

from dreamenv.environment import EnvironmentSpec
from dreamenv.real import describe

Frame = npt.NDArray[np.uint8]

PAID = 7.0  # raw, so that it differs from its sign


class Climb(gymnasium.Env[Frame, np.int64]):
    """All pixels are of one level, 1 at first and higher by 1 at every step.

    Action 0 costs `PAID`, 2 is paid as much, 1 nothing.

    Args:
        top: The level at which the game ends.
    """

    observation_space = Box(0, 255, (4, 4), np.uint8)
    action_space = Discrete(3)

    def __init__(self, top: int = 255, **_: Any) -> None:
        self._top = top

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._level = 1
        return self._frame(), {}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        self._level += 1
        return self._frame(), PAID * (int(action) - 1), self._level == self._top, False, {}

    def _frame(self) -> Frame:
        return np.full((4, 4), self._level, np.uint8)


@contextmanager
def climb(*, top: int = 255, limit: int | None = None) -> Iterator[EnvironmentSpec]:
    """Registers the game: it ends at the top, or is cut after so many steps."""
    gymnasium.register("Test/Climb-v0", Climb, max_episode_steps=limit, kwargs={"top": top})
    try:
        yield describe("Test/Climb-v0", 4)
    finally:
        del gymnasium.registry["Test/Climb-v0"]
