"""The dream as Stable-Baselines3 knows vectorised environments."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Discrete
from gymnasium.utils import EzPickle
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices
from typing_extensions import Unpack

from dreamenv.dream.conversion import (
    action_meanings,
    check_options,
    context_option,
    observation_space,
    outward,
    to_actions,
    to_channels_last,
)
from dreamenv.dream.opening import DreamOptions, open_dream
from dreamenv.dream.rendering import Picture, frames_per_second, to_picture
from dreamenv.dream.step import DreamStep
from dreamenv.dream.transfer import ToHost
from dreamenv.errors import InputError, StateError

Frames = npt.NDArray[np.uint8]  # [N, H, W, k * C]
Infos = list[dict[str, Any]]


class OneBatchVecEnv(VecEnv):
    """Environments that are stepped as one batch: they share every attribute and every method."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Returns an attribute, once for each of the indices: they share it."""
        value = getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute that all share.

        Raises:
            AttributeError: There is no such attribute.
            InputError: Only some are named.
        """
        if len(set(self._get_indices(indices))) != self.num_envs:
            raise InputError(f"all environments share {attr_name}; set it for all of them")
        getattr(self, attr_name)
        setattr(self, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Calls a method that all share, and returns its result for each of the indices."""
        result = getattr(self, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],  # noqa: ARG002
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """Says that none is wrapped."""
        return [False for _ in self._get_indices(indices)]


class DreamVecEnv(OneBatchVecEnv, EzPickle):
    """N dreams for SB3: observations uint8 [N, H, W, k * C], rewards float32.

    A dream that ended begins anew within the step; its last observation is then in its info, as
    `terminal_observation`. `TimeLimit.truncated` in each info tells the horizon from an end that
    the world model predicted, so that SB3 bootstraps where it should.

    It pickles and copies by its arguments: what comes out has not begun. SB3 logs rewards and
    lengths of episodes where a `VecMonitor` is around it.

    Attributes:
        dream: The batched core.
        environment: The real environment that is dreamt of; None if that is not recorded.

    Args:
        name: Of the world model, such as `Breakout`.
        num_envs: N.
        render_mode: `rgb_array`, or None.
        **options: See `DreamOptions`.

    Raises:
        DreamenvError: There is no such world model, or an argument is out of range.
    """

    def __init__(
        self,
        name: str | None = None,
        num_envs: int = 1,
        *,
        render_mode: str | None = None,
        **options: Unpack[DreamOptions],
    ) -> None:
        EzPickle.__init__(self, name, num_envs, render_mode=render_mode, **options)
        if render_mode not in (None, "rgb_array"):
            raise InputError(f"render_mode is {render_mode!r}; it must be None or rgb_array")
        self.dream = open_dream(name, num_envs, AutoresetMode.SAME_STEP, **options)
        self.environment = self.dream.world_model.origin.environment
        self.render_mode = render_mode  # VecEnv asks for it
        actions = Discrete(self.dream.world_model.config.num_actions)
        VecEnv.__init__(self, num_envs, observation_space(self.dream), actions)
        self.metadata: dict[str, Any] = {
            "render_modes": ["rgb_array"],
            "render_fps": frames_per_second(self.environment),
        }
        self._to_host = ToHost(self.dream.device)
        self._step: DreamStep | None = None
        self._closed = False

    def reset(self) -> Frames:
        """Begins new dreams, with the seed and the options that `seed` and `set_options` left.

        Of the seeds, one for each dream, the first serves all of them. An option of a dream may
        be `context`, the number of the context that it begins from; then all dreams have it.

        Returns:
            uint8 [N, H, W, k * C].

        Raises:
            InputError: An option is unknown or out of range.
            StateError: They are closed.
        """
        self._check_open()
        obs = self.dream.reset(seed=self._seeds[0], contexts=self._contexts())
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        self._step = None
        return _to_frames(obs)

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Dreams one step, which `step_wait` then gives.

        Raises:
            InputError: The actions are of another shape, type or range; nothing has changed then.
            StateError: The dreams have not begun, are closed, or a step is under way.
        """
        self._check_open()
        if self._step is not None:
            raise StateError("a step is under way; call step_wait first")
        self._step = self.dream.step(to_actions(actions))

    def step_wait(self) -> tuple[Frames, npt.NDArray[np.float32], npt.NDArray[np.bool_], Infos]:
        """Returns observations, rewards float32 [N], dones bool [N], and infos.

        Raises:
            StateError: There is no step to wait for.
        """
        if self._step is None:
            raise StateError("there is no step to wait for; call step_async first")
        step, self._step = self._step, None
        obs, rewards, terminated, truncated = self._to_host(*outward(step))
        cut = truncated & ~terminated
        infos: Infos = [{"TimeLimit.truncated": bool(flag)} for flag in cut]
        dones = terminated | truncated
        ended = np.flatnonzero(dones)
        if len(ended):
            last = _to_frames(step.final_obs[torch.from_numpy(ended)])
            for row, frame in zip(ended, last, strict=True):
                infos[row]["terminal_observation"] = frame
                self.reset_infos[row] = {}
        return obs, rewards, dones, infos

    def close(self) -> None:
        """Ends it; nothing but `close` may be called then."""
        self._closed = True

    def get_images(self) -> Sequence[Picture | None]:
        """Returns the current frames, N of uint8 [H, W, 3]; `render` tiles them."""
        self._check_open()
        if self.render_mode is None:
            gymnasium.logger.warn("get_images is called, but no render_mode was given")
            return [None] * self.num_envs
        return [to_picture(frame) for frame in self.dream.state.frames[:, -1].cpu()]

    def get_action_meanings(self) -> list[str]:
        """Returns a name for each action, as ale-py's environments do."""
        return action_meanings(self.dream)

    def _contexts(self) -> torch.Tensor | None:
        for options in self._options:
            check_options(options, ("context",))
        given = [options.get("context") for options in self._options]
        named = [context for context in given if context is not None]
        if not named:
            return None
        if len(named) != self.num_envs:
            raise InputError("options name a context for some dreams; name one for all, or none")
        return context_option({"context": named}, self.num_envs)

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the dreams are closed; make others")


def _to_frames(obs: torch.Tensor) -> Frames:
    frames: Frames = to_channels_last(obs).cpu().numpy()
    return frames
