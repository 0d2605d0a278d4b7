"""A world of one grey level that is known beforehand, and an actor-critic that adds levels up."""

from typing import Any

import torch
from torch import Tensor

from dreamenv import Contexts, WorldModel
from dreamenv.models.actor_critic import ActorCritic, ActorCriticConfig, ActorCriticOutput
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.lstm import LSTMState
from dreamenv.models.reward_end import RewardEndConfig, RewardEndOutput
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModelConfig
from dreamenv.share import WHOLE, Share

LENGTH = 3  # frames of a context
SHAPE = (1, 4, 4)
NUM_ACTIONS = 3
ACTOR_CRITIC = ActorCriticConfig(channels=(8,), downsample=(True,), lstm_dim=16)

_CERTAIN = 1e4


class LevelWorld(WorldModel):
    """A world in which all pixels of a frame are of one level, which grows by 1 at every step.

    The heads remember, in the first cell of their state, the first level that they saw.

    Args:
        end_at: A dream ends at this level.
        paid: The action that is paid with 1; the others are with nothing. None for the one that
            the first frame of the context says: its level by 100.
        shuffled: Whether each dream is paid for what another one did.
    """

    def __init__(
        self, end_at: int | None = None, paid: int | None = 1, *, shuffled: bool = False
    ) -> None:
        levels: dict[str, Any] = {"channels": (8,), "depths": (1,), "attention": (False,)}
        config = WorldModelConfig(
            num_actions=NUM_ACTIONS,
            obs_shape=SHAPE,
            denoiser=DenoiserConfig(context_length=LENGTH, cond_channels=8, **levels),
            reward_end=RewardEndConfig(cond_channels=8, lstm_dim=8, **levels),
        )
        super().__init__(config)
        self._end_at = end_at
        self._paid = paid
        self._shuffled = shuffled

    def next_obs(
        self,
        context: Tensor,
        actions: Tensor,  # noqa: ARG002
        *,
        since_reward: Tensor | None = None,  # noqa: ARG002
        sampler: SamplerConfig | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,  # noqa: ARG002
        share: Share = WHOLE,  # noqa: ARG002
    ) -> Tensor:
        return context[:, -1] + 1

    def reward_and_end(
        self, obs: Tensor, actions: Tensor, next_obs: Tensor, state: LSTMState | None = None
    ) -> RewardEndOutput:
        if state is None:
            first = obs[:, 0, 0, 0, 0].float()
            h = torch.zeros(len(obs), 8)
            h[:, 0] = first
            state = LSTMState(h, h)
        paid = (state.h[:, :1] / 100).round().long() if self._paid is None else self._paid
        won = (actions == paid).long()
        if self._shuffled:
            won = won.roll(1, dims=0)
        ends = next_obs[:, :, 0, 0, 0] == (-1 if self._end_at is None else self._end_at)
        reward_logits = _CERTAIN * torch.eye(3)[won + 1]
        return RewardEndOutput(reward_logits, _CERTAIN * torch.eye(2)[ends.long()], state)


class AddingCritic(ActorCritic):
    """Expects the sum of all levels that it remembers to have seen, and has no preference."""

    def __init__(self) -> None:
        super().__init__(ACTOR_CRITIC, SHAPE, NUM_ACTIONS)

    def forward(self, obs: Tensor, state: LSTMState | None = None) -> ActorCriticOutput:
        h, c = self.initial_state(len(obs)) if state is None else state
        level = ((obs[:, 0, 0, 0] + 1) / 2 * 255).round()
        h, c = h.clone(), c + 1
        h[:, 0] += level
        # The weights are 0, and so give nothing but a way for gradients.
        value = h[:, 0] + self.value(h)[:, 0]
        return ActorCriticOutput(self.policy(h), value, LSTMState(h, c))


def actor_critic(seed: int = 0) -> ActorCritic:
    """Makes an actor-critic with preferences and expectations, unlike a fresh one."""
    torch.manual_seed(seed)
    network = ActorCritic(ACTOR_CRITIC, SHAPE, NUM_ACTIONS)
    torch.nn.init.normal_(network.policy.weight)
    torch.nn.init.normal_(network.value.weight)
    return network


def windows(*firsts: int) -> Contexts:
    """Windows of levels that grow by 1 from the first ones; the actions are all 0."""
    levels = torch.tensor(firsts)[:, None] + torch.arange(LENGTH)
    obs = levels.to(torch.uint8)[..., None, None, None].expand(*levels.shape, *SHAPE).clone()
    return Contexts(obs, torch.zeros_like(levels))
