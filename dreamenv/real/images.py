"""Frames of any environment with a discrete action space: its own images, or rendered ones."""

from contextlib import closing
from functools import partial
from typing import Any, Literal

import cv2
import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import AddRenderObservation, TransformAction

from dreamenv.environment import EnvironmentSpec, Preprocessing
from dreamenv.errors import GameError
from dreamenv.real import catalog

Frame = npt.NDArray[np.uint8]
Layout = Literal["HW", "HWC", "CHW"]

_CHANNELS = (1, 3, 4)


def describe(env_id: str, size: tuple[int, int]) -> EnvironmentSpec:
    """Describes an environment: its actions, and frames of `size` (height, width).

    The frames are its observations where those are images, else what it renders.

    Raises:
        GameError: The action space is not discrete, there are no images, or the environment
            or a package that it needs is missing.
    """
    catalog.find(env_id)
    with catalog.one_line_errors(env_id), closing(gymnasium.make(env_id)) as env:
        meanings = _action_meanings(env_id, env)
        rendered = _needs_rendering(env_id, env)
    with closing(_open(env_id, size, None, rendered=rendered)) as env:
        _, _, channels = env.frame_shape
    return EnvironmentSpec(
        id=env_id,
        obs_shape=(channels, *size),
        action_meanings=meanings,
        preprocessing=Preprocessing(source="render" if rendered else "observation"),
    )


def open_single(spec: EnvironmentSpec, max_episode_steps: int | None) -> gymnasium.Env[Frame, Any]:
    """Opens an environment whose observations are uint8 [H, W, C] and whose actions are [0, n).

    Raises:
        GameError: It cannot be opened, or it is not what `spec` says.
    """
    catalog.find(spec.id)
    _, height, width = spec.obs_shape
    rendered = spec.preprocessing.source == "render"
    return _open(spec.id, (height, width), max_episode_steps, rendered=rendered)


def open_vector(
    spec: EnvironmentSpec, num_envs: int, max_episode_steps: int | None
) -> "SyncVectorEnv[Frame, Any]":
    """Opens `num_envs` environments as `open_single` does; observations are uint8 [N, H, W, C].

    Raises:
        GameError: They cannot be opened, or they are not what `spec` says.
    """
    return SyncVectorEnv(
        [partial(open_single, spec, max_episode_steps)] * num_envs,
        copy=False,  # RealVectorEnv copies when it moves the channels
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


def image_layout(space: gymnasium.Space[Any]) -> Layout | None:
    """Returns the order of the axes of an image space, or None if `space` has no images.

    Images are uint8 boxes from 0 to 255 with 1, 3 or 4 channels. Where either end could be the
    channels, they are last.
    """
    if not isinstance(space, Box) or space.dtype != np.uint8:
        return None
    if space.low.any() or (space.high != 255).any():
        return None
    if len(space.shape) == 2:
        return "HW"
    if len(space.shape) != 3:
        return None
    if space.shape[2] in _CHANNELS:
        return "HWC"
    return "CHW" if space.shape[0] in _CHANNELS else None


class ResizedFrames(gymnasium.ObservationWrapper[Frame, Any, Frame]):
    """Images of an environment, resized by area, as uint8 [H, W, C].

    Attributes:
        frame_shape: H, W and C.

    Args:
        env: Its observations are images in `layout`.
        layout: The order of their axes.
        size: The height and width to give.
    """

    def __init__(
        self, env: gymnasium.Env[Frame, Any], layout: Layout, size: tuple[int, int]
    ) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, Box)
        channels = 1 if layout == "HW" else env.observation_space.shape[layout.index("C")]
        self.frame_shape = (*size, channels)
        self.observation_space = Box(0, 255, self.frame_shape, np.uint8)
        self._layout = layout

    def observation(self, observation: Frame) -> Frame:
        """Returns the image as a frame, uint8 [H, W, C]."""
        if self._layout == "CHW":
            observation = np.ascontiguousarray(observation.transpose(1, 2, 0))
        height, width, _ = self.frame_shape
        frame = cv2.resize(observation, (width, height), interpolation=cv2.INTER_AREA)
        # OpenCV drops the axis of a single channel.
        return frame.reshape(self.frame_shape).astype(np.uint8, copy=False)


def _open(
    env_id: str, size: tuple[int, int], max_episode_steps: int | None, *, rendered: bool
) -> ResizedFrames:
    render_mode = "rgb_array" if rendered else None
    with catalog.one_line_errors(env_id):
        env = gymnasium.make(env_id, max_episode_steps, render_mode=render_mode)
        if rendered:
            env = AddRenderObservation(env, render_only=True)
    layout = image_layout(env.observation_space)
    if layout is None:
        raise GameError(f"{env_id}: its observations are not images; describe it again")
    return ResizedFrames(_with_actions_from_zero(env_id, env), layout, size)


def _with_actions_from_zero(env_id: str, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    space = _discrete(env_id, env)
    if space.start == 0:
        return env
    return TransformAction(env, lambda action: action + space.start, Discrete(int(space.n)))


def _needs_rendering(env_id: str, env: gymnasium.Env[Any, Any]) -> bool:
    if image_layout(env.observation_space) is not None:
        return False
    if "rgb_array" in env.metadata.get("render_modes", ()):
        return True
    raise GameError(
        f"{env_id}: it gives no frames; dreamenv needs uint8 image observations from 0 to 255, "
        "or the render mode rgb_array"
    )


def _action_meanings(env_id: str, env: gymnasium.Env[Any, Any]) -> tuple[str, ...]:
    space = _discrete(env_id, env)
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    if meanings is not None:
        return tuple(meanings())
    return tuple(str(space.start + action) for action in range(space.n))


def _discrete(env_id: str, env: gymnasium.Env[Any, Any]) -> Discrete:
    if not isinstance(env.action_space, Discrete):
        raise GameError(f"{env_id}: its actions are {env.action_space}; dreamenv needs Discrete")
    return env.action_space
