"""Rolling an actor-critic out in dreams: what it did there, and what came of it."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamenv.dream.core import Dream
from dreamenv.dream.state import DreamState
from dreamenv.errors import InputError
from dreamenv.models.actor_critic import ActorCritic, ActorCriticOutput
from dreamenv.models.categorical import draw_categorical
from dreamenv.models.frames import to_float
from dreamenv.models.lstm import LSTMState
from dreamenv.training.ranks import ALONE, Ranks


class Rollout(NamedTuple):
    """T steps of an actor-critic in N dreams or real games; tensors on its device.

    Attributes:
        logits: float32 [N, T, num_actions], of the policy; gradients flow through them.
        values: float32 [N, T], of the frames acted at; gradients flow through them.
        actions: int64 [N, T], those that were taken.
        rewards: float32 [N, T].
        terminated: bool [N, T], whether the dream or the episode ended in that step.
        truncated: bool [N, T], whether it reached its limit of steps in that step.
        next_values: float32 [N, T], of the frame the step led to; where it ended there, that is
            its last one, not the first of what began in its place.
    """

    logits: Tensor
    values: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    next_values: Tensor


class _Start(NamedTuple):
    """Where dreams that end in a rollout begin anew.

    Attributes:
        contexts: int64 [N], the context of each.
        memory: Of the actor-critic, before their last frames.
        output: What it says of their last frames.
    """

    contexts: Tensor
    memory: LSTMState
    output: ActorCriticOutput


class RolloutCollector:
    """Lets an actor-critic act in N dreams, which go on from one rollout to the next.

    Where a dream begins, the actor-critic remembers the frames of the context but the last, and
    nothing before them (Alonso et al. 2024). What it remembers of them changes as it learns, so
    each rollout runs it over contexts anew: over one for each dream, drawn before the rollout,
    from which that dream begins if it ends. A rollout of T steps, with contexts of L frames, thus
    takes N (1 + T + L) evaluations of the network, whatever ends: 640 with the published 32 dreams,
    15 steps and 4 frames. Running it over the contexts of all dreams in every step takes
    N (1 + T + T L), 2432, and over a whole bank of K contexts in every rollout N (1 + T) + K L,
    2560 with 512 of them. The price is that a dream which ends twice in a rollout begins at the
    same context twice; it goes on with other chance.

    The frame a step leads to is judged once, for the value to bootstrap with and for the next
    action alike. As in the published implementation, gradients flow through the memory of a
    rollout and of the contexts, but not into the rollout before.

    Args:
        network: The actor-critic, on the device of the dream.
        dream: Where it acts. It is begun anew, in any mode of autoreset: here a dream that ends
            begins anew in the same step in all of them.
        seed: Of the actions, the contexts and the dream.
        ranks: Who dreams together; the dream is of this one's share.

    Attributes:
        num_envs: N.

    Raises:
        InputError: The actor-critic is of other frames or actions than the dream, or the dream
            stacks frames or is of another rank's share.
    """

    def __init__(
        self, network: ActorCritic, dream: Dream, seed: int = 0, ranks: Ranks = ALONE
    ) -> None:
        _check(network, dream)
        _check_share(dream, ranks)
        self.num_envs = dream.num_envs
        self._ranks = ranks
        self._network = network
        self._dream = dream
        self._generator = torch.Generator(dream.device).manual_seed(seed)
        # With the same seed the actions would follow from the noise that frames are drawn with.
        dream.reset(seed=seed + 1)
        with torch.no_grad():
            self._memory = self._remember(dream.state.frames)

    def collect(self, length: int) -> Rollout:
        """Goes on with all dreams for as many steps. No step waits for the device.

        Args:
            length: T.
        """
        start = self._draw_start()
        memory, output = self._memory, self._judge(self._dream.obs, self._memory)
        steps = []
        for _ in range(length):
            actions = draw_categorical(output.logits.detach(), self._generator, self._dream.share)
            step = self._dream.step(actions)
            ended = step.terminated | step.truncated
            self._dream.reset(mask=ended, contexts=start.contexts)
            reached = self._judge(step.final_obs, output.state)
            outcome = step.reward, step.terminated, step.truncated, reached.value.detach()
            steps.append((output.logits, output.value, actions, *outcome))
            memory = start.memory.where(ended, output.state)
            output = start.output.where(ended, reached)
        self._memory = memory.detach()
        return Rollout(*(torch.stack(parts, dim=1) for parts in zip(*steps, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, but for networks and contexts.

        It has the dreams of all ranks, who have to ask for it together.
        """
        gather, dream = self._ranks.gather, vars(self._dream.snapshot())
        return {
            "generator": self._generator.get_state(),
            "memory": {name: gather(rows) for name, rows in self._memory._asdict().items()},
            "dream": {name: gather(rows) for name, rows in dream.items()},
            "dream_generator": self._dream.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._generator.set_state(state["generator"].cpu())
        mine = self._dream.share.of
        memory = {name: mine(rows) for name, rows in state["memory"].items()}
        self._memory = LSTMState(
            **{name: rows.to(self._dream.device) for name, rows in memory.items()}
        )
        dream = {name: mine(rows) for name, rows in state["dream"].items()}
        self._dream.restore(DreamState(**dream))
        self._dream.generator.set_state(state["dream_generator"].cpu())

    def _draw_start(self) -> _Start:
        bank, device = self._dream.bank, self._dream.device
        draw = partial(torch.randint, bank.size, generator=self._generator, device=device)
        contexts = self._dream.share.drawn((self._dream.num_envs,), draw)
        frames = bank.begin(contexts).frames
        memory = self._remember(frames)
        return _Start(contexts, memory, self._judge(frames[:, -1], memory))

    def _remember(self, frames: Tensor) -> LSTMState:
        """Returns the memory of windows, uint8 [N, L, C, H, W], before their last frames."""
        memory = self._network.initial_state(len(frames))
        for frame in frames[:, :-1].unbind(dim=1):
            memory = self._judge(frame, memory).state
        return memory

    def _judge(self, frames: Tensor, memory: LSTMState) -> ActorCriticOutput:
        output: ActorCriticOutput = self._network(to_float(frames), memory)
        return output


def _check(network: ActorCritic, dream: Dream) -> None:
    config = dream.world_model.config
    if dream.obs_shape != config.obs_shape:
        raise InputError(
            f"the dream stacks frames to {list(dream.obs_shape)}; the actor-critic remembers the "
            f"frames it saw: make the dream with frame_stack=1"
        )
    if (network.obs_shape, network.num_actions) != (config.obs_shape, config.num_actions):
        raise InputError(
            f"the actor-critic is of frames {list(network.obs_shape)} and {network.num_actions} "
            f"actions, the dream of {list(config.obs_shape)} and {config.num_actions}; make one "
            f"for the dream"
        )


def _check_share(dream: Dream, ranks: Ranks) -> None:
    if dream.share != ranks.share:
        raise InputError(
            f"the dream is of {dream.share}, and rank {ranks.rank} has {ranks.share}; make the "
            f"dream with the rank's"
        )
