"""The bank of contexts: where dreams begin, on their device, the heads' memory burnt in."""

from collections.abc import Iterable

import torch
from torch import Tensor

from dreamenv.dream.contexts import Contexts
from dreamenv.dream.state import DreamState
from dreamenv.errors import InputError
from dreamenv.models.lstm import LSTMState
from dreamenv.models.world_model import WorldModel

_ROWS_AT_ONCE = 32  # few enough for a cache: burning in more at once takes longer


class ContextBank:
    """K contexts, of which a dream begins at any by a gather.

    On a CPU the memory of the heads is burnt in for a few contexts at a time, when a dream first
    begins at one of them: one dream needs few, and all of a bundled world's take a second. On other
    devices it is burnt in at once: which are needed is known there alone.

    Attributes:
        size: K.
        length: The frames of each context.

    Args:
        world_model: Whose heads remember; the bank is on its device.
        contexts: Where dreams begin.

    Raises:
        InputError: The contexts are too short, or of other frames or actions, for the world model.
    """

    def __init__(self, world_model: WorldModel, contexts: Contexts) -> None:
        _check(world_model, contexts)
        self.size, self.length = contexts.actions.shape
        self._world_model = world_model
        # A dream may be made in inference mode and used out of it: these are written to in either.
        with torch.inference_mode(False):
            self._obs = contexts.obs.to(world_model.device, copy=True)
            self._actions = contexts.actions.to(world_model.device, copy=True)
            self._since_reward = _since_reward(contexts).to(world_model.device, copy=True)
            nothing = world_model.reward_end.initial_state(self.size)
            self._memory = LSTMState(*map(torch.clone, nothing))
        self._forget()

    def redraw(self, contexts: Contexts) -> None:
        """Puts other contexts in the place of these, and burns in the memory of the heads anew.

        Call it with new contexts, or the old ones, once the world model has learned, and before it
        learns on: on a CPU the memory is that of the weights when a dream begins.

        Raises:
            InputError: They are not as many, or not as long, or unfit for the world model.
        """
        _check(self._world_model, contexts)
        if contexts.actions.shape != self._actions.shape:
            raise InputError(
                f"contexts are {list(contexts.actions.shape)}; they must be as many and as long as "
                f"those they replace, {list(self._actions.shape)}"
            )
        # In place: what has recorded the addresses of these tensors goes on reading them.
        self._obs.copy_(contexts.obs)
        self._actions.copy_(contexts.actions)
        self._since_reward.copy_(_since_reward(contexts))
        self._forget()

    def begin(self, indices: Tensor) -> DreamState:
        """Returns the state of dreams that have just begun.

        Args:
            indices: int64 [N], the context of each.
        """
        if self._waiting:
            self._burn_in_for(indices)
        return DreamState(
            frames=self._obs[indices],
            actions=self._actions[indices],
            h=self._memory.h[indices],
            c=self._memory.c[indices],
            steps=torch.zeros_like(indices),
            ended=torch.zeros_like(indices, dtype=torch.bool),
            since_reward=self._since_reward[indices],
            next_context=(indices + 1) % self.size,
        )

    def burn_in_all(self) -> None:
        """Burns in at once what is still waiting, so that no later step takes longer for it."""
        self._burn_in(sorted(self._waiting))

    def _forget(self) -> None:
        """Forgets what was burnt in, and burns in anew all that cannot wait."""
        blocks = range(0, self.size, _ROWS_AT_ONCE)
        self._waiting = set(blocks)
        if self._obs.device.type != "cpu":
            self._burn_in(blocks)

    def _burn_in_for(self, indices: Tensor) -> None:
        needed = indices - indices % _ROWS_AT_ONCE
        self._burn_in(self._waiting.intersection(needed.tolist()))

    def _burn_in(self, blocks: Iterable[int]) -> None:
        """Burns in blocks of contexts, each the same whenever it is done."""
        for first in blocks:
            rows = slice(first, first + _ROWS_AT_ONCE)
            burnt_in = _remember(self._world_model, self._obs[rows], self._actions[rows])
            self._memory.h[rows], self._memory.c[rows] = burnt_in
        self._waiting.difference_update(blocks)


def _remember(world_model: WorldModel, obs: Tensor, actions: Tensor) -> LSTMState:
    """Returns what the heads remember of windows uint8 [N, L, C, H, W] at their last frame."""
    if obs.shape[1] == 1:
        return world_model.reward_end.initial_state(len(obs))
    return world_model.reward_and_end(obs[:, :-1], actions[:, :-1], obs[:, 1:]).state


def _since_reward(contexts: Contexts) -> Tensor:
    if contexts.since_reward is None:
        return torch.zeros(len(contexts.actions), dtype=torch.int64)
    return contexts.since_reward


def _check(world_model: WorldModel, contexts: Contexts) -> None:
    config = world_model.config
    if contexts.obs.shape[1] < config.denoiser.context_length:
        raise InputError(
            f"contexts have {contexts.obs.shape[1]} frames; the world model looks at "
            f"{config.denoiser.context_length}: draw longer ones"
        )
    if contexts.obs.shape[2:] != config.obs_shape:
        raise InputError(
            f"contexts have frames {list(contexts.obs.shape[2:])}, the world model "
            f"{list(config.obs_shape)}; draw them from the environment that it dreams of"
        )
    least, largest = int(contexts.actions.min()), int(contexts.actions.max())
    if least < 0 or largest >= config.num_actions:
        raise InputError(
            f"contexts have actions from {least} to {largest}; the world model has "
            f"{config.num_actions}: draw them from the environment that it dreams of"
        )
