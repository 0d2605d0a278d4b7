"""An actor-critic as a player of real games."""

from typing import Any

import torch
from torch import Tensor

from dreamenv.errors import ConfigError
from dreamenv.models.actor_critic import ActorCritic, ActorCriticOutput
from dreamenv.models.categorical import draw_categorical
from dreamenv.models.frames import to_float
from dreamenv.models.lstm import LSTMState
from dreamenv.real.policy import Actions, Flags, Frames


class ActorCriticPolicy:
    """Plays as an actor-critic does, and remembers each game from the start of its episode.

    For `collect` to collect exactly the same after an interruption, it has to play without chance
    of its own (see `Policy`). `Experience` goes on exactly with its chance too, given its state.

    Args:
        network: Who plays; it may go on learning between two calls.
        sample: Whether actions are drawn from its distribution, as in training, or the most likely
            are played.
        epsilon: ε, the probability of a random action instead, in each game by itself.
        seed: Of its chance.

    Raises:
        ConfigError: ε is no probability.
    """

    def __init__(
        self, network: ActorCritic, *, sample: bool = True, epsilon: float = 0.0, seed: int = 0
    ) -> None:
        if not 0 <= epsilon <= 1:
            raise ConfigError(f"epsilon is {epsilon}; it must be in [0, 1]")
        self._network = network
        self._sample = sample
        self._epsilon = epsilon
        self._device = next(network.parameters()).device
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self._memory: LSTMState | None = None

    @torch.no_grad()
    def act(self, obs: Frames, starts: Flags) -> Actions:
        """See `Policy`. Another number of games than before begins with no memory of any."""
        frames = to_float(torch.tensor(obs, device=self._device))
        memory = self._recall(torch.tensor(starts, device=self._device))
        output: ActorCriticOutput = self._network(frames, memory)
        self._memory = output.state
        return self._choose(output.logits).cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, but for the network."""
        return {
            "generator": self._generator.get_state(),
            "memory": None if self._memory is None else self._memory._asdict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken, with its chance and its memory of each game."""
        self._generator.set_state(state["generator"].cpu())
        memory = state["memory"]
        if memory is not None:
            memory = LSTMState(**{name: part.to(self._device) for name, part in memory.items()})
        self._memory = memory

    def _recall(self, starts: Tensor) -> LSTMState:
        """Returns the memory of each game, zeros where an episode starts."""
        nothing = self._network.initial_state(len(starts))
        if self._memory is None or len(self._memory.h) != len(starts):
            return nothing
        return nothing.where(starts, self._memory)

    def _choose(self, logits: Tensor) -> Tensor:
        drawn = draw_categorical(logits, self._generator)
        actions = drawn if self._sample else logits.argmax(dim=1)
        rows, num_actions = logits.shape
        lots = torch.rand(rows, generator=self._generator, device=self._device)
        at_random = torch.randint(
            num_actions, (rows,), generator=self._generator, device=self._device
        )
        return torch.where(lots < self._epsilon, at_random, actions)
