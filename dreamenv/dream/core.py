"""The dream: N learned environments stepped at once, wholly on one device."""

import operator
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import SupportsIndex

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from dreamenv.dream.bank import ContextBank
from dreamenv.dream.contexts import Contexts
from dreamenv.dream.recording import RecordedTransition, Transition
from dreamenv.dream.seeding import generator_seed, to_seed
from dreamenv.dream.state import DreamState
from dreamenv.dream.step import DreamStep
from dreamenv.errors import ConfigError, InputError, StateError
from dreamenv.models.categorical import draw_categorical
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.lstm import LSTMState
from dreamenv.models.reward_memory import later
from dreamenv.models.world_model import WorldModel
from dreamenv.share import WHOLE, Share

DEFAULT_HORIZON = 50


class Dream:
    """N dreams of a world model.

    No step waits for the host, and all have the same shapes: which dreams end is decided, and they
    begin anew, on the device. All chance comes from one generator, of which every step takes the
    same number for each dream, whatever becomes of it: so the course of a dream does not depend on
    its neighbours, nor does chance depend on `autoreset`. On a GPU of CUDA the first step records
    itself as a graph, which the later ones play.

    Attributes:
        world_model: What is dreamt.
        num_envs: N.
        horizon: Steps after which a dream is truncated; None for never.
        autoreset: When a dream that ended begins anew.
        device: Where it all is: with the world model.
        sampler: The noise levels the frames are drawn with.
        generator: Where chance comes from.
        bank: Where dreams begin.
        obs_shape: k * C, H and W of an observation.
        share: Which dreams of a larger number these are.
        recorded: Whether steps on CUDA are played from a recording: the same frames, sooner.

    Args:
        world_model: In evaluation mode. It may go on learning; see `redraw`.
        contexts: Where dreams begin.
        num_envs: How many.
        horizon: Steps after which a dream is truncated; None for never.
        denoising_steps: How many noise levels a frame is drawn with, or the levels themselves,
            falling; the world model's own if None.
        autoreset: When a dream that ended begins anew: within that step (`SAME_STEP`), in the next
            one, whose action is then ignored (`NEXT_STEP`), or only by `reset` (`DISABLED`): until
            then it stands still, with reward 0.
        frame_stack: k; observations are the last k frames, oldest first, one after the other along
            the channels. At the beginning they are those of the context.
        sample_outcomes: Whether rewards and ends are drawn from their predicted distributions, or
            the likeliest are taken.
        compile: Whether to compile the networks: the first steps then take a minute or two, and
            the later ones less than without.
        share: Which dreams of a larger number these are. All of them draw from generators of one
            seed, and each takes the course that it would take beside the others.

    Raises:
        ConfigError: A number is out of range.
        InputError: The contexts do not fit the world model, or there is no such autoreset mode.
    """

    def __init__(
        self,
        world_model: WorldModel,
        contexts: Contexts,
        num_envs: int,
        *,
        horizon: int | None = DEFAULT_HORIZON,
        denoising_steps: int | Sequence[float] | None = None,
        autoreset: AutoresetMode | str = AutoresetMode.SAME_STEP,
        frame_stack: int = 1,
        sample_outcomes: bool = True,
        compile: bool = False,
        share: Share = WHOLE,
    ) -> None:
        _check_kinds(world_model, contexts)
        num_envs = _as_count("num_envs", num_envs)
        frame_stack = _as_count("frame_stack", frame_stack)
        _check_frame_stack(frame_stack, contexts)
        self.world_model = world_model
        self.num_envs = num_envs
        self.horizon = as_horizon(horizon)
        self.autoreset = _as_autoreset_mode(autoreset)
        self.device = world_model.device
        self.sampler = world_model.config.sampler
        if denoising_steps is not None:
            self.sampler = self.sampler.with_denoising(denoising_steps)
            _warn_of_untrained(self.sampler.levels[:-1], world_model.config.denoiser)
        self.generator = torch.Generator(self.device)
        self.generator.seed()
        self.bank = ContextBank(world_model, contexts)
        channels, height, width = world_model.config.obs_shape
        self.obs_shape = (frame_stack * channels, height, width)
        self._networks = world_model.compiled() if compile else world_model
        self._frame_stack = frame_stack
        self._sample_outcomes = sample_outcomes
        self.share = share
        self.recorded = True
        self._recording: tuple[object, RecordedTransition] | None = None
        self._state: DreamState | None = None

    @property
    def state(self) -> DreamState:
        """The state of all dreams; not to be written to.

        Raises:
            StateError: They have not begun.
        """
        if self._state is None:
            raise StateError("the dream has not begun; call reset first")
        return self._state

    @property
    def obs(self) -> Tensor:
        """The current observations, uint8 [N, k * C, H, W]."""
        return self._observe(self.state)

    @torch.no_grad()
    def reset(
        self,
        *,
        seed: int | None = None,
        mask: Tensor | None = None,
        contexts: Tensor | None = None,
    ) -> Tensor:
        """Begins dreams anew.

        Args:
            seed: Of all chance to come. Without it chance takes its course; before the first step
                it is then left to the operating system.
            mask: bool [N], which dreams begin anew; the others go on. All if None.
            contexts: int64 [N], the context of the bank each begins from; on a GPU their range is
                not checked, since that would wait for it. If None, those that the last step drew,
                or, where there was none since, the next ones of the bank.

        Returns:
            The observations of all dreams, uint8 [N, k * C, H, W].

        Raises:
            InputError: An argument has another type, shape or range, or both a seed and a mask are
                given: the seed is that of all dreams.
            StateError: Only some are to begin anew, and the others have not begun.
        """
        if mask is not None:
            self._check_mask(mask, seed)
        if contexts is not None:
            self._check_contexts(contexts)
        if seed is not None:
            self.generator.manual_seed(generator_seed(to_seed(seed)))
        if contexts is None:
            is_drawn = seed is not None or self._state is None
            contexts = self._draw_contexts() if is_drawn else self.state.next_context
        begun = self.bank.begin(contexts.to(self.device))
        self._state = begun if mask is None else begun.where(mask.to(self.device), self.state)
        return self.obs

    @torch.no_grad()
    def step(self, actions: Tensor) -> DreamStep:
        """Dreams one step.

        Args:
            actions: int64 [N]. On a GPU their range is not checked, since that would wait for it.

        Raises:
            InputError: They have another type, shape or range; nothing has changed then.
            StateError: The dreams have not begun.
        """
        state = self.state
        self._check_actions(actions)
        actions = actions.to(self.device, non_blocking=True)
        self._state, step = self._transition_for(state, actions)(state, actions)
        return step

    def snapshot(self, indices: Sequence[int] | Tensor | None = None) -> DreamState:
        """Copies the state of dreams, to `restore` it later, and elsewhere.

        The generator is not in it: a dream that is restored goes on with other chance. To get the
        same, keep `generator.get_state()` as well.

        Args:
            indices: Which dreams; all if None.

        Raises:
            InputError: There are no such dreams.
            StateError: They have not begun.
        """
        return self.state.rows(self._as_indices(indices))

    def restore(self, state: DreamState, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """Puts dreams back into states that `snapshot` copied.

        A dream goes on as it was only with the horizon and the autoreset mode that it had.
        A state of one dream branches: it is put in the place of every dream of the indices.

        Args:
            state: Of one dream, or of as many as there are indices.
            indices: Which dreams are replaced; all if None.

        Returns:
            The observations of all dreams, uint8 [N, k * C, H, W].

        Raises:
            InputError: There are no such dreams, not as many as in the state, or the state is of
                another dream.
            StateError: Only some are replaced, and the others have not begun.
        """
        rows = self._as_indices(indices)
        self._check_state(state, len(rows))
        # The bank it comes from may have held more contexts.
        state = replace(state, next_context=state.next_context % self.bank.size).to(self.device)
        if len(state) == 1:
            state = state.rows(torch.zeros_like(rows))
        if indices is None:
            # A copy: the caller's tensors stay the caller's.
            self._state = state.rows(rows)
        else:
            self._state = self.state.replace(rows, state)
        return self.obs

    def redraw(self, contexts: Contexts) -> None:
        """Replaces the bank's contexts, and burns in the memory of the heads anew.

        For a world model that has learned since, or a replay that has grown. Dreams that have
        begun go on.

        Args:
            contexts: As many and as long as before.

        Raises:
            InputError: They are not.
        """
        self.bank.redraw(contexts)

    def _transition_for(self, state: DreamState, actions: Tensor) -> Transition:
        if not self.recorded or self.device.type != "cuda":
            return self._transition
        recorded_for = self._networks.bf16, self.sampler, self.horizon, self.autoreset
        if self._recording is None or self._recording[0] != recorded_for:
            transition = RecordedTransition(self._transition, state, actions, self.generator)
            self._recording = recorded_for, transition
        return self._recording[1]

    def _transition(self, state: DreamState, actions: Tensor) -> tuple[DreamState, DreamStep]:
        dreamt, reward, terminated = self._dream(state, actions)
        truncated = torch.zeros_like(terminated)
        if self.horizon is not None:
            truncated = dreamt.steps >= self.horizon
        if self.autoreset is AutoresetMode.SAME_STEP:
            begun = self.bank.begin(dreamt.next_context)
            after = begun.where(terminated | truncated, dreamt)
            final_obs = self._observe(dreamt)
            return after, DreamStep(self._observe(after), reward, terminated, truncated, final_obs)
        # Those that ended before have not acted in this step.
        acted = ~state.ended
        terminated, truncated = terminated & acted, truncated & acted
        begins_anew = self.autoreset is AutoresetMode.NEXT_STEP
        idle = self.bank.begin(state.next_context) if begins_anew else state
        after = replace(dreamt, ended=terminated | truncated).where(acted, idle)
        obs = self._observe(after)
        return after, DreamStep(obs, reward * acted, terminated, truncated, obs.clone())

    def _dream(self, state: DreamState, actions: Tensor) -> tuple[DreamState, Tensor, Tensor]:
        """Draws the next frame with its reward, float32 [N], and its end, bool [N]."""
        length = self.world_model.config.denoiser.context_length
        taken = torch.cat([state.actions[:, :-1], actions[:, None]], dim=1)
        frame = self._networks.next_obs(
            state.frames[:, -length:],
            taken[:, -length:],
            since_reward=state.since_reward,
            sampler=self.sampler,
            generator=self.generator,
            share=self.share,
        )
        outcome = self._networks.reward_and_end(
            state.frames[:, -1:], actions[:, None], frame[:, None], LSTMState(state.h, state.c)
        )
        reward = self._decide(outcome.reward_logits[:, 0]).float() - 1
        terminated = self._decide(outcome.end_logits[:, 0]) == 1
        dreamt = DreamState(
            frames=torch.cat([state.frames[:, 1:], frame[:, None]], dim=1),
            actions=torch.cat([taken[:, 1:], torch.zeros_like(actions)[:, None]], dim=1),
            h=outcome.state.h,
            c=outcome.state.c,
            since_reward=later(state.since_reward, reward),
            steps=state.steps + 1,
            ended=state.ended,
            next_context=self._draw_contexts(),
        )
        return dreamt, reward, terminated

    def _decide(self, logits: Tensor) -> Tensor:
        """Chooses a class for each row of logits [N, K]."""
        # Drawn in any case: what else is drawn does not depend on whether outcomes are.
        drawn = draw_categorical(logits, self.generator, self.share)
        return drawn if self._sample_outcomes else logits.argmax(dim=1)

    def _draw_contexts(self) -> Tensor:
        draw = partial(torch.randint, self.bank.size, generator=self.generator, device=self.device)
        return self.share.drawn((self.num_envs,), draw)

    def _observe(self, state: DreamState) -> Tensor:
        """Stacks the last frames along the channels, in memory of their own."""
        return state.frames[:, -self._frame_stack :].flatten(1, 2).clone()

    def _check_actions(self, actions: Tensor) -> None:
        _check_integers("actions", actions, self.num_envs)
        if actions.device.type == "cpu":
            _check_range("actions", actions, self.world_model.config.num_actions)

    def _check_contexts(self, contexts: Tensor) -> None:
        _check_integers("contexts", contexts, self.num_envs)
        if contexts.device.type == "cpu":
            _check_range("contexts", contexts, self.bank.size)

    def _check_mask(self, mask: Tensor, seed: int | None) -> None:
        if not isinstance(mask, Tensor):
            raise InputError(f"mask is a {type(mask).__name__}; it must be a tensor torch.bool")
        if mask.dtype != torch.bool or mask.shape != (self.num_envs,):
            raise InputError(
                f"mask is {mask.dtype} {list(mask.shape)}; it must be torch.bool [{self.num_envs}]"
            )
        _ = self.state  # It says so where the others have not begun.
        if seed is not None:
            raise InputError(
                "a seed and a mask are given; one generator serves all dreams: reset them all, or "
                "leave out the seed"
            )

    def _check_state(self, state: DreamState, count: int) -> None:
        if not isinstance(state, DreamState):
            raise InputError(
                f"state is a {type(state).__name__}; it must be a DreamState, of a snapshot"
            )
        if len(state) not in (1, count):
            raise InputError(f"the state is of {len(state)} dreams; it must be of 1 or {count}")
        ours = self.bank.begin(torch.zeros(1, dtype=torch.int64, device=self.device))
        if not state.is_like(ours):
            raise InputError(
                f"the state has frames {_kind(state.frames)} and a memory {_kind(state.h)}, this "
                f"dream {_kind(ours.frames)} and {_kind(ours.h)}; restore it into the dream that "
                f"it is of"
            )

    def _as_indices(self, indices: Sequence[int] | Tensor | None) -> Tensor:
        if indices is None:
            return torch.arange(self.num_envs, device=self.device)
        try:
            rows = torch.as_tensor(indices, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"indices are {indices!r}; they must be integers") from None
        _check_integers("indices", rows, rows.numel())
        _check_range("indices", rows, self.num_envs)
        return rows.to(self.device)


def _warn_of_untrained(levels: Sequence[float], config: DenoiserConfig) -> None:
    """Warns of noise levels that a world model has never been trained at."""
    if config.start_share < 1 or tuple(levels) == (config.sigma_max,):
        return
    named = ", ".join(f"{level:g}" for level in levels)
    warnings.warn(
        f"denoising_steps asks for the noise levels {named}, but this world model was trained at "
        f"{config.sigma_max:g} alone and may draw noise; leave denoising_steps out",
        stacklevel=3,
    )


def _as_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        modes = ", ".join(repr(known.value) for known in AutoresetMode)
        raise InputError(f"autoreset_mode is {mode!r}; it must be one of {modes}") from None


def _check_integers(name: str, values: Tensor, count: int) -> None:
    if not isinstance(values, Tensor):
        raise InputError(
            f"{name} is a {type(values).__name__}; it must be a tensor torch.int64 [{count}]"
        )
    if values.dtype != torch.int64 or values.shape != (count,):
        raise InputError(
            f"{name} is {values.dtype} {list(values.shape)}; it must be torch.int64 [{count}]"
        )


def _check_range(name: str, values: Tensor, count: int) -> None:
    # Through numpy: torch's own way from a tensor to a number is one that waits for a device.
    numbers = values.numpy()
    if numbers.size and (numbers.min() < 0 or numbers.max() >= count):
        raise InputError(
            f"{name} are from {numbers.min()} to {numbers.max()}; they must be from 0 to "
            f"{count - 1}"
        )


def _check_kinds(world_model: WorldModel, contexts: Contexts) -> None:
    for name, value, kind in (
        ("world_model", world_model, WorldModel),
        ("contexts", contexts, Contexts),
    ):
        if not isinstance(value, kind):
            raise InputError(f"{name} is a {type(value).__name__}; it must be a {kind.__name__}")


def _kind(tensor: Tensor) -> str:
    """Names the type and the shape of each row of a tensor."""
    return f"{tensor.dtype} {list(tensor.shape[1:])}"


def as_horizon(horizon: SupportsIndex | None) -> int | None:
    """Checks the steps after which a dream is truncated.

    Raises:
        ConfigError: It is neither None nor a positive integer.
    """
    return None if horizon is None else _as_count("horizon", horizon, ", or None for no end")


def _as_count(name: str, value: SupportsIndex, otherwise: str = "") -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name} is {value!r}; it must be an integer{otherwise}") from None
    if count < 1:
        raise ConfigError(f"{name} is {count}; it must be at least 1{otherwise}")
    return count


def _check_frame_stack(frame_stack: int, contexts: Contexts) -> None:
    length = contexts.actions.shape[1]
    if frame_stack > length:
        raise ConfigError(
            f"frame_stack is {frame_stack}; it must be from 1 to {length}, the frames of a context"
        )
