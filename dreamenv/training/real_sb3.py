"""Real games as Stable-Baselines3 knows vectorised environments."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete

from dreamenv.dream.sb3 import OneBatchVecEnv
from dreamenv.padding import PADDING_LEVEL
from dreamenv.training.real_games import Flags, RealGames

Stacks = npt.NDArray[np.uint8]  # [N, H, W, k * C]
Infos = list[dict[str, Any]]


class RealVecEnv(OneBatchVecEnv):
    """N real games for SB3: observations uint8 [N, H, W, k * C], rewards float32.

    It is to real games what `DreamVecEnv` is to dreams: where an episode ended, its last
    observation is in its info, as `terminal_observation`, and `TimeLimit.truncated` tells a limit
    of steps from an end. An observation is the last k frames of an episode, oldest first, and mid
    grey before the first of them, as `StackingPolicy` has it.

    Args:
        games: The games. They are stepped by nobody else.
        frame_stack: k.

    Attributes:
        stacks: uint8 [N, H, W, k * C], the current observations. Never written to again.
    """

    def __init__(self, games: RealGames, frame_stack: int) -> None:
        channels, height, width = games.environment.obs_shape
        space = Box(0, 255, (height, width, frame_stack * channels), np.uint8)
        self.render_mode = None  # VecEnv asks for it
        super().__init__(games.num_envs, space, Discrete(games.environment.num_actions))
        self._games = games
        self._channels = channels
        self._actions: npt.NDArray[np.int64] | None = None
        self.stacks = self._first_stacks()

    def reset(self) -> Stacks:
        """Begins new games; the first seed that `seed` left is that of all games from then on."""
        self._games.restart(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        self.stacks = self._first_stacks()
        return self.stacks

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Takes the actions, integers [N], of the step that `step_wait` does."""
        self._actions = actions

    def step_wait(self) -> tuple[Stacks, npt.NDArray[np.float32], Flags, Infos]:
        """Returns observations, rewards float32 [N], dones bool [N], and infos.

        Raises:
            InputError: The actions are of another shape, type or range.
        """
        assert self._actions is not None
        step = self._games.step(self._actions)
        reached = np.concatenate([self.stacks[..., self._channels :], step.reached], axis=-1)
        cut = step.truncated & ~step.terminated
        infos: Infos = [{"TimeLimit.truncated": bool(flag)} for flag in cut]
        for row in np.flatnonzero(step.ended):
            infos[row]["terminal_observation"] = reached[row]
            self.reset_infos[row] = {}
        self.stacks = reached
        if step.ended.any():
            self.stacks = np.where(_rows(step.ended), self._first_stacks(), reached)
        return self.stacks, step.rewards, step.ended, infos

    def close(self) -> None:
        """Leaves the games to whoever made them."""

    def get_images(self) -> Sequence[Any]:
        """Returns nothing to render for any game."""
        return [None] * self.num_envs

    def _first_stacks(self) -> Stacks:
        """Returns the observations of episodes that begin with what the games show."""
        shape = self.num_envs, *(self.observation_space.shape or ())
        stacks = np.full(shape, PADDING_LEVEL, np.uint8)
        stacks[..., -self._channels :] = self._games.frames
        return stacks


def _rows(mask: Flags) -> Flags:
    return mask[:, None, None, None]
