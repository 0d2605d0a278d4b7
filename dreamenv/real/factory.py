"""Making a real environment from an id, or again from what was recorded of it."""

from typing import Any

import gymnasium
from gymnasium.spaces import Discrete
from gymnasium.vector import VectorEnv

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import GameError, InputError
from dreamenv.real import catalog
from dreamenv.real.single_env import RealEnv
from dreamenv.real.vector_env import RealVectorEnv

# atari.py and images.py are imported where they are needed: they bring ale-py and OpenCV, and
# the command line must answer --help at once.


def describe(
    env_id: str, size: int | tuple[int, int] = 64, *, sticky_actions: float = 0.0
) -> EnvironmentSpec:
    """Finds out what there is to know of an environment, enough to make it again.

    Args:
        env_id: An Atari game (`ALE/Pong-v5`) or any other Gymnasium id with a Discrete action
            space; `package:Id-v0` imports `package` first.
        size: The height and width of a frame, or one number for both.
        sticky_actions: The probability that the emulator repeats the last action. Only Atari.

    Returns:
        The specification, with the published preprocessing where the game is Atari. To change
        the frame skip or the no-ops, use `dataclasses.replace` on it.

    Raises:
        GameError: There is no such environment, or dreamenv cannot learn from it.
        InputError: `size` is below 1, or `sticky_actions` is given for another game than Atari.
    """
    height_width = (size, size) if isinstance(size, int) else size
    if min(height_width) < 1:
        raise InputError(f"size is {size}; it must be at least 1")
    if catalog.is_atari(catalog.find(env_id)):
        from dreamenv.real import atari

        return atari.describe(env_id, height_width, sticky_actions)
    if sticky_actions:
        raise InputError(f"sticky_actions is {sticky_actions}; {env_id} is not Atari and has none")
    from dreamenv.real import images

    return images.describe(env_id, height_width)


def make_vector(
    environment: EnvironmentSpec | str,
    num_envs: int,
    *,
    training: bool,
    max_episode_steps: int | None = None,
) -> RealVectorEnv:
    """Makes `num_envs` real environments: Atari on all cores, others one after the other.

    Args:
        environment: What `describe` gave, or an id to be described with its defaults.
        num_envs: How many.
        training: Whether the loss of a life ends an episode (Atari; no effect elsewhere).
        max_episode_steps: The steps after which a game is truncated, over all its lives. By
            default 108,000 frames for Atari, and what is registered for others.

    Returns:
        The environments; seed them with `reset(seed=...)`.

    Raises:
        GameError: They cannot be made, or are not what the specification says.
        InputError: A number is below 1.
    """
    _require_positive(num_envs=num_envs, max_episode_steps=max_episode_steps)
    spec = _resolve(environment)
    env: VectorEnv[Any, Any, Any]
    if spec.preprocessing.source == "atari":
        from dreamenv.real import atari

        env = atari.open_vector(spec, num_envs, max_episode_steps)
    else:
        from dreamenv.real import images

        env = images.open_vector(spec, num_envs, max_episode_steps)
    _require_match(spec, env.single_observation_space, env.single_action_space)
    return RealVectorEnv(env, spec, lives_end_episodes=_lives_end_episodes(spec, training))


def make_single(
    environment: EnvironmentSpec | str,
    *,
    training: bool,
    max_episode_steps: int | None = None,
) -> RealEnv:
    """Makes one real environment; arguments and errors are those of `make_vector`.

    Its frames are those of `make_vector`, channels last. A seed gives another course of the game
    than there: the two draw their random numbers differently.
    """
    _require_positive(max_episode_steps=max_episode_steps)
    spec = _resolve(environment)
    env: gymnasium.Env[Any, Any]
    if spec.preprocessing.source == "atari":
        from dreamenv.real import atari

        env = atari.open_single(spec, max_episode_steps)
    else:
        from dreamenv.real import images

        env = images.open_single(spec, max_episode_steps)
    _require_match(spec, env.observation_space, env.action_space)
    return RealEnv(env, spec, lives_end_episodes=_lives_end_episodes(spec, training))


def _resolve(environment: EnvironmentSpec | str) -> EnvironmentSpec:
    return describe(environment) if isinstance(environment, str) else environment


def _lives_end_episodes(spec: EnvironmentSpec, training: bool) -> bool:
    return training and spec.preprocessing.source == "atari"


def _require_positive(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise InputError(f"{name} is {number}; it must be at least 1")


def _require_match(
    spec: EnvironmentSpec, frames: gymnasium.Space[Any], actions: gymnasium.Space[Any]
) -> None:
    """Refuses an environment that has changed since it was described."""
    channels, height, width = spec.obs_shape
    if frames.shape is None or frames.shape[-3:] != (height, width, channels):
        raise GameError(
            f"{spec.id}: its frames (height, width, channels) are {frames.shape}, "
            f"not {(height, width, channels)} as recorded; describe it again"
        )
    if not isinstance(actions, Discrete) or actions.n != spec.num_actions:
        raise GameError(
            f"{spec.id}: its actions are {actions}, not {spec.num_actions} as recorded; "
            "describe it again"
        )
