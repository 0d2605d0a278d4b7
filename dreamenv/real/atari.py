"""Atari games as DIAMOND preprocesses them, on what ale-py and Gymnasium offer for it.

The screen is RGB, reduced by area interpolation; an action is held for `frame_skip` frames, of
which the last two are merged by their maximum. Both functions that open a game draw the same
pixels: the vectorised one in C++, the single one in Python, with the emulator within reach.
"""

from typing import Any

import gymnasium
import numpy as np
from ale_py import ALEInterface, LoggerMode, roms
from ale_py.env import AtariEnv
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import AtariPreprocessing, OrderEnforcing, TimeLimit

from dreamenv.environment import EnvironmentSpec, Preprocessing
from dreamenv.errors import GameError
from dreamenv.real import catalog

_FRAMES_PER_GAME = 108_000  # half an hour, as published; 27,000 steps at a frame skip of 4
_FRAMES_PER_SECOND = 60


def describe(env_id: str, size: tuple[int, int], sticky_actions: float) -> EnvironmentSpec:
    """Describes a game: its minimal action set, and colour frames of `size` (height, width).

    Raises:
        GameError: The game's ROM is missing.
    """
    actions = _open_emulator(env_id, sticky_actions).get_action_meanings()
    return EnvironmentSpec(
        id=env_id,
        obs_shape=(3, *size),
        action_meanings=tuple(actions),
        preprocessing=Preprocessing(source="atari", sticky_actions=sticky_actions),
    )


def open_vector(
    spec: EnvironmentSpec, num_envs: int, max_episode_steps: int | None
) -> AtariVectorEnv:
    """Opens `num_envs` games whose observations are uint8 [N, 1, H, W, 3]; rewards are raw.

    A lost life does not end an episode here: `AtariVectorEnv(episodic_life=True)` would start
    the whole game anew, and later lives would never be seen.

    Raises:
        GameError: The game is unknown or its ROM is missing.
    """
    preprocessing = spec.preprocessing
    _, height, width = spec.obs_shape
    return _AtariGames(
        _game(spec.id),
        num_envs,
        max_num_frames_per_episode=_step_limit(spec, max_episode_steps) * preprocessing.frame_skip,
        repeat_action_probability=preprocessing.sticky_actions,
        autoreset_mode=AutoresetMode.SAME_STEP,
        img_height=height,
        img_width=width,
        grayscale=False,
        stack_num=1,
        frameskip=preprocessing.frame_skip,
        maxpool=True,
        noop_max=preprocessing.noop_max + 1,  # ale-py draws from [0, noop_max)
        reward_clipping=False,
        use_fire_reset=False,
    )


class _AtariGames(AtariVectorEnv):
    """Seeds environment i with `seed + i`, as Gymnasium does, also where only some are reset."""

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environments of `options["reset_mask"]`, or all."""
        mask = (options or {}).get("reset_mask")
        if seed is not None and mask is not None:
            seed = seed + np.flatnonzero(mask)
        return super().reset(seed=seed, options=options)


def open_single(spec: EnvironmentSpec, max_episode_steps: int | None) -> gymnasium.Env[Any, Any]:
    """Opens one game whose observations are uint8 [H, W, 3]; `unwrapped.ale` is the emulator.

    Raises:
        GameError: The game is unknown or its ROM is missing.
    """
    preprocessing = spec.preprocessing
    _, height, width = spec.obs_shape
    game: gymnasium.Env[Any, Any] = AtariPreprocessing(
        _open_emulator(spec.id, preprocessing.sticky_actions),
        noop_max=preprocessing.noop_max,
        frame_skip=preprocessing.frame_skip,
        screen_size=(width, height),
        grayscale_obs=False,
    )
    game = OrderEnforcing(TimeLimit(game, _step_limit(spec, max_episode_steps)))
    game.metadata = {"render_fps": max(1, _FRAMES_PER_SECOND // preprocessing.frame_skip)}
    return game


def _step_limit(spec: EnvironmentSpec, max_episode_steps: int | None) -> int:
    return max_episode_steps or _FRAMES_PER_GAME // spec.preprocessing.frame_skip


def _open_emulator(env_id: str, sticky_actions: float) -> AtariEnv:
    ALEInterface.setLoggerMode(LoggerMode.Error)  # else the emulator prints a banner
    return AtariEnv(game=_game(env_id), frameskip=1, repeat_action_probability=sticky_actions)


def _game(env_id: str) -> str:
    """Returns ale-py's name of the game, such as `pong`, once its ROM is known to be there."""
    entry = catalog.find(env_id)
    if not catalog.is_atari(entry):
        raise GameError(f"{env_id}: its preprocessing is that of Atari, and it is none")
    game: str = entry.kwargs["game"]
    try:
        roms.get_rom_path(game)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise GameError(
            f"{env_id}: its ROM cannot be read ({reason}); reinstall ale-py or unset ALE_ROMS_DIR"
        ) from error
    return game
