"""A game of one grey level, and worlds that dream of it in known ways."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dreamenv.data import Episode
from dreamenv.environment import EnvironmentSpec
from dreamenv.evaluation.ball import Balls, Frames
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.lstm import LSTMState
from dreamenv.models.reward_end import RewardEndConfig, RewardEndOutput
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import Origin, WorldModel, WorldModelConfig
from dreamenv.share import WHOLE, Share

LENGTH = 3  # frames of a context
SHAPE = (1, 8, 8)
ENVIRONMENT = EnvironmentSpec("Test/Count-v0", SHAPE, ("NOOP", "UP", "JUMP"))
CONFIG = WorldModelConfig(
    num_actions=3,
    obs_shape=SHAPE,
    denoiser=DenoiserConfig(
        context_length=LENGTH,
        cond_channels=8,
        channels=(8,),
        depths=(1,),
        attention=(False,),
        fold=4,
    ),
    reward_end=RewardEndConfig(
        cond_channels=8, channels=(8,), depths=(1,), attention=(False,), lstm_dim=8, fold=4
    ),
    sampler=SamplerConfig(sigmas=(5.0, 1.0)),
)


class CountingWorld(WorldModel):
    """Knows how the game of `counting` goes on, but for a drift.

    All pixels of a frame are of one level, which grows by 1 and the action at every step. It says
    that the reward is the action less 1. Its heads count, in their hidden state, the steps that
    they have seen.

    Attributes:
        drift: What the level grows too much at every step.
        noise: The largest growth by chance in addition.
        ends: The levels that are said to be the last.
        context_levels: The first level of each context that was dreamt on from, in order.
        told: How many steps ago each dream's last reward was said to have come, in order.
        memories: How many steps the heads had seen before each that they judged, in order.
    """

    def __init__(self, drift: int = 0, noise: int = 0, ends: Sequence[int] = ()) -> None:
        super().__init__(CONFIG, Origin(environment=ENVIRONMENT))
        self.drift, self.noise, self.ends = drift, noise, ends
        self.context_levels: list[int] = []
        self.memories: list[int] = []
        self.told: list[list[int]] = []

    def next_obs(
        self,
        context: Tensor,
        actions: Tensor,
        *,
        since_reward: Tensor | None = None,
        sampler: SamplerConfig | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,
        share: Share = WHOLE,  # noqa: ARG002
    ) -> Tensor:
        assert context.shape == (*actions.shape, *SHAPE)
        assert actions.shape[1] == LENGTH
        self.context_levels += context[:, 0, 0, 0, 0].tolist()
        self.told.append([] if since_reward is None else since_reward.tolist())
        chance = torch.randint(self.noise + 1, (len(context),), generator=generator)
        growth = 1 + actions[:, -1] + self.drift + chance
        return context[:, -1] + growth[:, None, None, None].to(torch.uint8)

    def reward_and_end(
        self, obs: Tensor, actions: Tensor, next_obs: Tensor, state: LSTMState | None = None
    ) -> RewardEndOutput:
        assert obs.shape == next_obs.shape == (*actions.shape, *SHAPE)
        state = self.reward_end.initial_state(len(actions)) if state is None else state
        self.memories.append(int(state.h[0, 0]))
        ends = torch.isin(next_obs[:, :, 0, 0, 0].long(), torch.tensor(list(self.ends)).long())
        seen = LSTMState(state.h + actions.shape[1], state.c)
        return RewardEndOutput(torch.eye(3)[actions], torch.eye(2)[ends.long()], seen)


def counting(first: int, actions: Sequence[int], *, terminated: bool = True) -> Episode:
    """The episode that begins at a level and goes on with those actions."""
    taken = np.array(actions, np.int64)
    levels = first + np.concatenate([[0], np.cumsum(1 + taken)])
    return Episode(
        obs=np.broadcast_to(levels[:, None, None, None], (len(levels), *SHAPE)).astype(np.uint8),
        actions=taken,
        rewards=(taken - 1).astype(np.float32) * 2.5,  # of which only the sign is dreamt
        terminated=terminated,
        truncated=not terminated,
    )


def at_even_level(frames: Frames) -> Balls:
    """Has a ball in frames of an even level, as far to the right as the level tells."""
    levels = frames[:, 0, 0, 0].astype(np.float64)
    return Balls(levels % 2 == 0, levels, np.zeros(len(frames)))
