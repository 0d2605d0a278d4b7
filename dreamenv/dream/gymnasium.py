"""The dream as Gymnasium knows environments: one, or many at once."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Discrete
from gymnasium.utils import EzPickle
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor
from typing_extensions import Unpack

from dreamenv.dream.conversion import (
    action_meanings,
    check_options,
    context_option,
    observation_space,
    outward,
    to_actions,
    to_channels_last,
    to_mask,
)
from dreamenv.dream.core import DEFAULT_HORIZON, as_horizon
from dreamenv.dream.opening import DreamOptions, open_dream
from dreamenv.dream.rendering import DEFAULT_FPS, Picture, Window, frames_per_second, to_picture
from dreamenv.dream.seeding import to_seed
from dreamenv.dream.state import DreamState
from dreamenv.dream.step import DreamStep
from dreamenv.dream.transfer import ToHost
from dreamenv.errors import InputError, StateError

Frame = npt.NDArray[np.uint8]  # [H, W, k * C]
Output = Literal["numpy", "torch"]


@dataclass(frozen=True, eq=False)
class ClonedState:
    """What `DreamEnv.clone_state` gives, and `DreamEnv.restore_state` takes.

    Attributes:
        dream: The state of the dream.
        rng: The state of its generator, where that was asked for.
    """

    dream: DreamState
    rng: Tensor | None = None


class DreamEnv(gymnasium.Env[Frame, np.int64], EzPickle):
    """One dream: observations uint8 [H, W, k * C], rewards -1, 0 or 1.

    An end that the world model predicts terminates an episode, the horizon truncates it. `options`
    of a reset may have `context`, the number of the context to begin from.

    It pickles and copies by its arguments: what comes out has not begun.

    Attributes:
        dream: The batched core, of one dream.
        environment: The real environment that is dreamt of; None if that is not recorded.

    Args:
        name: Of the world model, such as `Breakout`.
        render_mode: `rgb_array` or `human`, or None.
        **options: See `DreamOptions`.

    Raises:
        DreamenvError: There is no such world model, or an argument is out of range.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - so Gymnasium declares it
        "render_modes": ["human", "rgb_array"],
        "render_fps": DEFAULT_FPS,
    }

    def __init__(
        self,
        name: str | None = None,
        *,
        render_mode: str | None = None,
        **options: Unpack[DreamOptions],
    ) -> None:
        EzPickle.__init__(self, name, render_mode=render_mode, **options)
        _check_render_mode(render_mode, self.metadata["render_modes"])
        self.dream = open_dream(name, 1, AutoresetMode.DISABLED, **options)
        self.environment = self.dream.world_model.origin.environment
        self.observation_space = observation_space(self.dream)
        self.action_space = Discrete(self.dream.world_model.config.num_actions)
        fps = frames_per_second(self.environment)
        self.metadata = {**self.metadata, "render_fps": fps}
        self.render_mode = render_mode
        title = f"dreamenv: {name or (self.environment and self.environment.id) or 'a dream'}"
        self._window = Window(title, fps) if render_mode == "human" else None
        self._to_host = ToHost(self.dream.device)
        self._closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Begins a new dream.

        Args:
            seed: Of all chance to come.
            options: `context` (an integer): the number of the context to begin from.

        Returns:
            The last frame of the context, uint8 [H, W, k * C], and an empty info.

        Raises:
            InputError: An option is unknown or out of range.
            StateError: It is closed.
        """
        self._check_open()
        check_options(options, ("context",))
        contexts = context_option(options, 1)
        seed = None if seed is None else to_seed(seed)
        obs = self.dream.reset(seed=seed, contexts=contexts)
        super().reset(seed=seed)
        self._show()
        return _first(obs), {}

    def step(self, action: int | np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Dreams one step.

        Returns:
            The frame uint8 [H, W, k * C], the reward, terminated, truncated, and an empty info.

        Raises:
            InputError: `action` is none of the action space; nothing has changed then.
            StateError: The dream has not begun, has ended, or is closed.
        """
        self._check_open()
        if self.dream.state.ended:
            raise StateError("the dream has ended; call reset to begin another")
        if not self.action_space.contains(action):
            raise InputError(f"action is {action!r}; it must be in {self.action_space}")
        step = self.dream.step(torch.tensor([int(action)]))
        self._show()
        obs, reward, terminated, truncated = self._to_host(*outward(step))
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> Picture | None:
        """Returns the current frame, uint8 [H, W, 3], where the render mode is `rgb_array`.

        Raises:
            StateError: The dream has not begun, or is closed.
        """
        self._check_open()
        if self.render_mode is None:
            gymnasium.logger.warn("render is called, but no render_mode was given to make")
            return None
        picture = self._picture()
        return picture if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Closes the window, if there is one. Nothing but `close` may be called then."""
        self._closed = True
        if self._window is not None:
            self._window.close()

    def clone_state(self, include_rng: bool = False) -> ClonedState:
        """Copies the state of the dream, as ale-py's environments do theirs.

        Args:
            include_rng: Whether chance takes the same course once more after `restore_state`.

        Raises:
            StateError: The dream has not begun, or is closed.
        """
        self._check_open()
        rng = self.dream.generator.get_state() if include_rng else None
        return ClonedState(self.dream.snapshot(), rng)

    def restore_state(self, state: ClonedState) -> None:
        """Goes on from a copied state.

        Raises:
            InputError: It is that of another dream.
            StateError: The environment is closed.
        """
        self._check_open()
        if not isinstance(state, ClonedState):
            raise InputError(f"state is a {type(state).__name__}; it must be what clone_state gave")
        before = self.dream.generator.get_state()
        if state.rng is not None:
            self._set_chance(state.rng)
        try:
            self.dream.restore(state.dream)
        except InputError:
            self.dream.generator.set_state(before)
            raise
        self._show()

    def get_action_meanings(self) -> list[str]:
        """Returns a name for each action, as ale-py's environments do."""
        return action_meanings(self.dream)

    def _set_chance(self, rng: Tensor) -> None:
        try:
            self.dream.generator.set_state(rng)
        except (RuntimeError, TypeError):
            raise InputError(
                f"state has chance of another kind than {self.dream.device}; restore it where it "
                f"was cloned"
            ) from None

    def _show(self) -> None:
        if self._window is not None:
            self._window.show(self._picture())

    def _picture(self) -> Picture:
        return to_picture(self.dream.state.frames[0, -1])

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the dream is closed; make another")


class DreamVectorEnv(VectorEnv[Any, Any, Any], EzPickle):
    """N dreams: observations uint8 [N, H, W, k * C], rewards -1, 0 or 1.

    Its conventions are those of `gymnasium.vector.SyncVectorEnv` over N of `DreamEnv`, but that
    one seed serves all dreams, and that they begin anew within the step where nothing else is
    asked for. `options` of a reset may have `reset_mask` (bool [N]: the dreams that begin anew)
    and `context` (an integer, or N: the number of the context that each begins from).

    With `output="torch"` everything is given as tensors on the device, and no step waits for it:
    actions may be tensors there, rewards are float32; with `SAME_STEP` every info of a step has
    `final_obs` (uint8 [N, H, W, k * C], elsewhere the same as the observation) and `_final_obs`
    (bool [N]); with `DISABLED` a dream that has ended stands still until it is reset.

    It pickles and copies by its arguments: what comes out has not begun.

    Attributes:
        dream: The batched core.
        environment: The real environment that is dreamt of; None if that is not recorded.
        autoreset_mode: When a dream that ended begins anew.

    Args:
        name: Of the world model, such as `Breakout`.
        num_envs: N.
        autoreset_mode: When a dream that ended begins anew.
        max_episode_steps: A limit of a registration with Gymnasium; it and the horizon both hold.
            As in `gymnasium.make`, -1 is none.
        output: Arrays of numpy, or tensors on the device.
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
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        output: Output = "numpy",
        render_mode: str | None = None,
        **options: Unpack[DreamOptions],
    ) -> None:
        EzPickle.__init__(
            self,
            name,
            num_envs,
            autoreset_mode=autoreset_mode,
            max_episode_steps=max_episode_steps,
            output=output,
            render_mode=render_mode,
            **options,
        )
        _check_render_mode(render_mode, ["rgb_array"])
        if output not in get_args(Output):
            raise InputError(f"output is {output!r}; it must be 'numpy' or 'torch'")
        if max_episode_steps not in (None, -1):
            horizon = as_horizon(options.get("horizon", DEFAULT_HORIZON))
            options["horizon"] = min(horizon or max_episode_steps, max_episode_steps)
        self.dream = open_dream(name, num_envs, autoreset_mode, **options)
        self.autoreset_mode = self.dream.autoreset
        self.environment = self.dream.world_model.origin.environment
        self.num_envs = num_envs
        self.single_observation_space = observation_space(self.dream)
        self.single_action_space = Discrete(self.dream.world_model.config.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": frames_per_second(self.environment),
            "autoreset_mode": self.autoreset_mode,
        }
        self.render_mode = render_mode
        self._output = output
        self._to_host = ToHost(self.dream.device)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins new dreams.

        Args:
            seed: Of all chance to come.
            options: `reset_mask` and `context`, as above.

        Returns:
            The observations of all dreams, uint8 [N, H, W, k * C], and an empty info.

        Raises:
            InputError: An option is unknown or of another shape, type or range; or a seed, which
                is that of all dreams, is given with a mask.
            StateError: It is closed, or only some begin anew, and the others have not begun.
        """
        self._check_open()
        check_options(options, ("context", "reset_mask"))
        contexts = context_option(options, self.num_envs)
        mask = to_mask(options["reset_mask"]) if options and "reset_mask" in options else None
        seed = None if seed is None else to_seed(seed)
        obs = self.dream.reset(seed=seed, mask=mask, contexts=contexts)
        super().reset(seed=seed)
        return self._give(to_channels_last(obs)), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Dreams one step.

        Args:
            actions: N integers, in an array or a tensor.

        Returns:
            The observations uint8 [N, H, W, k * C], the rewards float64 [N], terminated and
            truncated bool [N], and the info. With `SAME_STEP` the info of a step in which any
            dream ended has `final_obs`, `final_info`, and where they are, `_final_obs` and
            `_final_info`.

        Raises:
            InputError: The actions are of another shape, type or range; nothing has changed then.
            StateError: The dreams have not begun, are closed, or one has ended and nothing but
                `reset` begins it anew.
        """
        self._check_open()
        if self.autoreset_mode is AutoresetMode.DISABLED and self._output == "numpy":
            self._check_none_ended()
        step = self.dream.step(to_actions(actions))
        return self._tensors(step) if self._output == "torch" else self._arrays(step)

    def render(self) -> tuple[Picture, ...] | None:
        """Returns the current frames, N of uint8 [H, W, 3], where a render mode was given."""
        self._check_open()
        if self.render_mode is None:
            gymnasium.logger.warn("render is called, but no render_mode was given to make_vec")
            return None
        return tuple(to_picture(frame) for frame in self.dream.state.frames[:, -1].cpu())

    def get_action_meanings(self) -> list[str]:
        """Returns a name for each action, as ale-py's environments do."""
        return action_meanings(self.dream)

    def close_extras(self, **kwargs: Any) -> None:
        """Nothing is held open."""

    def _tensors(self, step: DreamStep) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        info = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            info["final_obs"] = to_channels_last(step.final_obs)
            info["_final_obs"] = step.terminated | step.truncated
        return *outward(step), info

    def _arrays(self, step: DreamStep) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        obs, rewards, terminated, truncated = self._to_host(*outward(step))
        ended, info = terminated | truncated, {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            info = self._final_info(step.final_obs, ended)
        return obs, rewards.astype(np.float64), terminated, truncated, info

    def _final_info(self, final_obs: Tensor, ended: npt.NDArray[np.bool_]) -> dict[str, Any]:
        frames = np.full(self.num_envs, None, object)
        rows = np.flatnonzero(ended)
        last = to_channels_last(final_obs[torch.from_numpy(rows)]).cpu().numpy()
        for row, frame in zip(rows, last, strict=True):
            frames[row] = frame
        return {
            "final_obs": frames,
            "_final_obs": ended.copy(),
            "final_info": {},
            "_final_info": ended.copy(),
        }

    def _give(self, obs: Tensor) -> Any:
        return obs if self._output == "torch" else obs.cpu().numpy()

    def _check_none_ended(self) -> None:
        ended = self.dream.state.ended.cpu().numpy()
        if ended.any():
            raise StateError(
                f"dreams {np.flatnonzero(ended).tolist()} have ended; reset them first, by "
                f"options={{'reset_mask': ...}}"
            )

    def _check_open(self) -> None:
        if self.closed:
            raise StateError("the dreams are closed; make others")


def _first(obs: Tensor) -> Frame:
    frame: Frame = to_channels_last(obs)[0].cpu().numpy()
    return frame


def _check_render_mode(mode: str | None, modes: list[str]) -> None:
    if mode is not None and mode not in modes:
        raise InputError(f"render_mode is {mode!r}; it must be None or one of {', '.join(modes)}")
