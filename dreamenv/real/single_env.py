"""One real environment, with the spaces and the conventions of a dream's `DreamEnv`."""

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError

Frame = npt.NDArray[np.uint8]


class RealEnv(gymnasium.Env[Frame, np.int64]):
    """A real environment with observations uint8 [H, W, C], raw rewards and its score in `info`.

    Every `info` of `reset` and `step` has:

    - `score` (float): the sum of the raw rewards of the game so far, over all its lives.
    - `game_over` (bool): whether the game itself ended here, by its rules or by the step limit.

    Where lives end episodes, the loss of one sets `terminated` while the game goes on: the next
    `reset` without a seed gives the frame at which the life was lost once more, as the first of
    the new episode, and steps nothing (as DIAMOND's published code does). The last life is the
    game's own end. `reset(seed=...)` always starts a new game.

    `render` gives the frame that the agent sees.

    Attributes:
        environment: What the environment is.
        game: The environment underneath, without wrappers. For Atari, `game.ale` is the
            emulator, with its RAM and its full screen.

    Args:
        env: Observations uint8 [H, W, C], actions from 0 to n - 1.
        environment: What `env` was made from.
        lives_end_episodes: Whether the loss of a life ends an episode. `env` must then have
            `lives` in its `info`.
    """

    def __init__(
        self,
        env: gymnasium.Env[Frame, Any],
        environment: EnvironmentSpec,
        *,
        lives_end_episodes: bool,
    ) -> None:
        channels, height, width = environment.obs_shape
        self.environment = environment
        self.game = env.unwrapped
        self.observation_space = Box(0, 255, (height, width, channels), np.uint8)
        self.action_space = Discrete(environment.num_actions)
        self.render_mode = "rgb_array"
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": env.metadata.get("render_fps", 30),
        }
        self._env = env
        self._lives_end_episodes = lives_end_episodes
        self._lives = 0
        self._life_lost = False
        self._score = 0.0
        self._frame: Frame | None = None
        self._info: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Starts a new game, or goes on with the game in which a life was just lost.

        Returns:
            The first frame, uint8 [H, W, C], and the info.
        """
        seed = None if seed is None else int(seed)  # ale-py takes no integers of numpy
        super().reset(seed=seed)
        if self._life_lost and seed is None:
            self._life_lost = False
            return self.render(), dict(self._info)
        self._frame, info = self._env.reset(seed=seed, options=options)
        self._score = 0.0
        self._life_lost = False
        self._remember(info, game_over=False)
        return self.render(), dict(self._info)

    def step(self, action: int | np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Holds `action` for one step.

        Returns:
            The frame uint8 [H, W, C], the raw reward, terminated, truncated, and the info.

        Raises:
            InputError: `action` is none of the action space.
        """
        if not self.action_space.contains(action):
            raise InputError(f"action is {action!r}; it must be in {self.action_space}")
        self._frame, reward, terminated, truncated, info = self._env.step(action)
        self._score += float(reward)
        game_over = terminated or truncated
        lives_before = self._lives
        self._remember(info, game_over=game_over)
        self._life_lost = self._lives < lives_before and not game_over
        terminated = terminated or self._life_lost
        return self.render(), float(reward), terminated, truncated, dict(self._info)

    def render(self) -> Frame:
        """Returns the current frame, uint8 [H, W, C]."""
        if self._frame is None:
            raise gymnasium.error.ResetNeeded("call reset before render")
        return self._frame.copy()

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _remember(self, info: dict[str, Any], *, game_over: bool) -> None:
        self._info = {**info, "score": self._score, "game_over": game_over}
        self._lives = info["lives"] if self._lives_end_episodes else 0
