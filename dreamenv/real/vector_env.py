"""Many real environments at once, with one convention whatever steps them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError

Frames = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


class RealVectorEnv(VectorEnv[Frames, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """N real environments with observations uint8 [N, H, W, C], raw rewards and their scores.

    An environment that ends starts anew within the same step (`AutoresetMode.SAME_STEP`, named
    in `metadata`): `step` returns its new first frame, and its last one is in `info`. Beside
    what the environments themselves report, every `info` of `reset` and `step` has:

    - `score` (float64 [N]): the sum of the raw rewards of each game so far, over all its lives;
      where the game ended in this step, its final score.
    - `game_over` (bool [N]): whether the game itself ended in this step, by its rules or by the
      step limit.

    The `info` of a step that ended any episode also has:

    - `final_obs` (uint8 [N, H, W, C]): the last frame of each episode that ended; elsewhere the
      same as the observation.
    - `_final_obs` (bool [N]): which episodes ended.

    Where lives end episodes, the loss of one sets `terminated` while the game goes on: the
    observation is then both the last frame of the one episode and the first of the next (as in
    DIAMOND's published code). The last life is the game's own end. So the scores of whole games
    are `info["score"][info["game_over"]]`, in training as in tests.

    Attributes:
        environment: What the environments are.

    Args:
        env: Observations uint8 [N, ..., H, W, C], `...` being of size 1; actions from 0 to n - 1;
            autoreset in the same step.
        environment: What `env` was made from.
        lives_end_episodes: Whether the loss of a life ends an episode. `env` must then have
            `lives` in its `info`.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        environment: EnvironmentSpec,
        *,
        lives_end_episodes: bool,
    ) -> None:
        self.environment = environment
        self.num_envs = env.num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        channels, height, width = environment.obs_shape
        self.single_observation_space = Box(0, 255, (height, width, channels), np.uint8)
        self.single_action_space = Discrete(environment.num_actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._env = env
        self._lives_end_episodes = lives_end_episodes
        self._scores = np.zeros(self.num_envs)
        self._lives = np.zeros(self.num_envs, np.int32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frames, dict[str, Any]]:
        """Starts new games.

        Args:
            seed: Environment i is seeded with `seed + i`; all below 2**31, as ale-py has it.
            options: Passed on to the environments. `reset_mask` (bool [N]) says which of them
                to start anew; the others stay where they are.

        Returns:
            The first frames, uint8 [N, H, W, C], and the info.

        Raises:
            InputError: `seed` is negative or too large.
        """
        if seed is not None and not 0 <= seed <= 2**31 - self.num_envs:
            raise InputError(f"seed is {seed}; it must be from 0 to {2**31 - self.num_envs}")
        seed = None if seed is None else int(seed)  # ale-py takes no integers of numpy
        options = dict(options or {})  # some environments empty what they are given
        reset_mask = options.get("reset_mask", True)
        frames, info = self._env.reset(seed=seed, options=options)
        self._scores = np.where(reset_mask, 0.0, self._scores)
        if self._lives_end_episodes:
            self._lives = info["lives"]
        return self._own_frames(frames), self._with_scores(info, self._none())

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Frames, npt.NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Holds each of the actions, integers [N], for one step.

        Returns:
            The frames uint8 [N, H, W, C], the raw rewards float64 [N], terminated and truncated
            bool [N], and the info.

        Raises:
            InputError: `actions` are not N integers of the action space.
        """
        frames, rewards, terminated, truncated, info = self._env.step(self._checked(actions))
        obs = self._own_frames(frames)
        game_over = terminated | truncated
        life_lost = self._lose_lives(info, game_over)
        self._scores += rewards
        info = self._with_scores(info, game_over)
        self._scores[game_over] = 0
        if (game_over | life_lost).any():
            info["final_obs"] = self._final_obs(obs, info, game_over)
            info["_final_obs"] = game_over | life_lost
        return obs, rewards.astype(np.float64), terminated | life_lost, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environments."""
        self._env.close(**kwargs)

    def _checked(self, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Refuses what would leave ale-py's threads waiting for ever."""
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise InputError(
                f"actions are {actions.dtype} {list(actions.shape)}; "
                f"they must be integers [{self.num_envs}]"
            )
        if actions.min() < 0 or actions.max() >= self.environment.num_actions:
            raise InputError(
                f"actions are from {actions.min()} to {actions.max()}; "
                f"they must be from 0 to {self.environment.num_actions - 1}"
            )
        return actions.astype(np.int64)

    def _lose_lives(self, info: dict[str, Any], game_over: Flags) -> Flags:
        """Returns which games lost a life in this step and go on."""
        if not self._lives_end_episodes:
            return self._none()
        before, self._lives = self._lives, info["lives"]
        # Where the game is over, `lives` are those of the next one.
        lost: Flags = (self._lives < before) & ~game_over
        return lost

    def _with_scores(self, info: dict[str, Any], game_over: Flags) -> dict[str, Any]:
        return {**info, "score": self._scores.copy(), "game_over": game_over}

    def _final_obs(self, obs: Frames, info: dict[str, Any], game_over: Flags) -> Frames:
        final_obs = obs.copy()
        if game_over.any():
            final_obs[game_over] = self._own_frames(np.stack(info["final_obs"][game_over]))
        return final_obs

    def _own_frames(self, frames: Frames) -> Frames:
        """[N, ..., H, W, C] -> [N, H, W, C], in memory of its own."""
        channels, height, width = self.environment.obs_shape
        return frames.reshape(-1, height, width, channels).copy()

    def _none(self) -> Flags:
        return np.zeros(self.num_envs, np.bool_)
