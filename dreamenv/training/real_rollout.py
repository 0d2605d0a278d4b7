"""Rolling an actor-critic out in real games."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamenv.models.actor_critic import ActorCritic, ActorCriticOutput
from dreamenv.models.categorical import draw_categorical
from dreamenv.models.frames import to_float
from dreamenv.models.lstm import LSTMState
from dreamenv.real.policy import to_channels_first
from dreamenv.training.real_games import Frames, GamesStep, RealGames
from dreamenv.training.rollout import Rollout


class RealRolloutCollector:
    """Lets an actor-critic act in N real games, which go on from one rollout to the next.

    Where an episode begins it remembers nothing, as in `ActorCriticPolicy`: no context shows what
    was before. Otherwise it is `RolloutCollector`.

    Args:
        network: The actor-critic, on its device; of the frames and actions of the games.
        games: Where it acts. They are stepped by nobody else.
        seed: Of the actions.

    Attributes:
        num_envs: N.
    """

    def __init__(self, network: ActorCritic, games: RealGames, seed: int = 0) -> None:
        self.num_envs = games.num_envs
        self._network = network
        self._games = games
        self._device = next(network.parameters()).device
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self._memory = network.initial_state(games.num_envs)

    def collect(self, length: int) -> Rollout:
        """Goes on with all games for as many steps.

        Args:
            length: T.
        """
        memory, output = self._memory, self._judge(self._games.frames, self._memory)
        steps = []
        for _ in range(length):
            actions = draw_categorical(output.logits.detach(), self._generator)
            step = self._games.step(actions.cpu().numpy())
            acted = output.logits, output.value, actions
            memory, output, next_values = self._go_on(step, output.state)
            outcome = (
                self._tensor(part) for part in (step.rewards, step.terminated, step.truncated)
            )
            steps.append((*acted, *outcome, next_values))
        self._memory = memory.detach()
        return Rollout(*(torch.stack(parts, dim=1) for parts in zip(*steps, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, but for network and games."""
        return {"generator": self._generator.get_state(), "memory": self._memory._asdict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._generator.set_state(state["generator"].cpu())
        self._memory = LSTMState(
            **{name: part.to(self._device) for name, part in state["memory"].items()}
        )

    def _go_on(
        self, step: GamesStep, state: LSTMState
    ) -> tuple[LSTMState, ActorCriticOutput, Tensor]:
        """Judges the frames that a step led to.

        Args:
            step: What the step came to.
            state: What is remembered of the frames before.

        Returns:
            What is remembered before the frames that the games show now, what the actor-critic
            says of those, and the values of the frames that the step led to, without gradients.
        """
        begun = np.flatnonzero(step.ended)
        nothing = self._network.initial_state(self.num_envs)
        memory = nothing.where(self._tensor(step.ended), state)
        if len(begun) == 0:
            output = self._judge(step.reached, state)
            return memory, output, output.value.detach()
        # Both in one evaluation: the frames reached, and after them the first ones of episodes.
        frames = np.concatenate([step.reached, self._games.frames[begun]])
        first = self._network.initial_state(len(begun))
        both = self._judge(frames, LSTMState(*map(torch.cat, zip(state, first, strict=True))))
        rows = np.arange(self.num_envs)
        rows[begun] = self.num_envs + np.arange(len(begun))
        return memory, both.rows(self._tensor(rows)), both.value[: self.num_envs].detach()

    def _judge(self, frames: Frames, memory: LSTMState) -> ActorCriticOutput:
        output: ActorCriticOutput = self._network(
            to_float(self._tensor(to_channels_first(frames))), memory
        )
        return output

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self._device)
