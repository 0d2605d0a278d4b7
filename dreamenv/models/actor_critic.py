"""The actor-critic: a recurrent policy and value, their returns and their loss."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamenv.config import Config
from dreamenv.errors import ConfigError
from dreamenv.models.blocks import (
    check_channels,
    conv1x1,
    conv3x3,
    group_norm,
    zero,
)
from dreamenv.models.lstm import LSTMState, initialise_lstm, zero_state


@dataclass(frozen=True)
class ActorCriticConfig(Config):
    """Architecture of the actor-critic. The defaults are `atari100k`.

    Attributes:
        channels: Width of each level, from the finest.
        downsample: Whether a level ends with 2x2 max-pooling.
        lstm_dim: Size of the LSTM's state.
    """

    channels: tuple[int, ...] = (32, 32, 64, 64)
    downsample: tuple[bool, ...] = (True, True, True, True)
    lstm_dim: int = 512

    def __post_init__(self) -> None:
        if not self.channels or len(self.channels) != len(self.downsample):
            raise ConfigError(
                f"channels and downsample have {len(self.channels)} and {len(self.downsample)} "
                f"entries; give each one entry a level"
            )
        check_channels(self.channels)
        if self.lstm_dim < 1:
            raise ConfigError(f"lstm_dim is {self.lstm_dim}; it must be at least 1")


class ActorCriticOutput(NamedTuple):
    """What the actor-critic says of N frames.

    Attributes:
        logits: float32 [N, num_actions], of the policy.
        value: float32 [N].
        state: The LSTM's state after the frames.
    """

    logits: Tensor
    value: Tensor
    state: LSTMState

    def where(self, mask: Tensor, other: "ActorCriticOutput") -> "ActorCriticOutput":
        """Takes these rows where the mask, bool [N], is true, and the other ones elsewhere."""
        return ActorCriticOutput(
            logits=torch.where(mask[:, None], self.logits, other.logits),
            value=torch.where(mask, self.value, other.value),
            state=self.state.where(mask, other.state),
        )

    def rows(self, rows: Tensor) -> "ActorCriticOutput":
        """Takes rows in the order of their numbers, int64 [M]."""
        h, c = self.state
        return ActorCriticOutput(self.logits[rows], self.value[rows], LSTMState(h[rows], c[rows]))


class ActorCriticLosses(NamedTuple):
    """The parts of the actor-critic's loss, each float32 []."""

    policy: Tensor
    value: Tensor
    entropy: Tensor

    def total(self, entropy_weight: float = 0.001, value_weight: float = 1.0) -> Tensor:
        """Returns policy + `value_weight` * value - `entropy_weight` * entropy."""
        return self.policy + value_weight * self.value - entropy_weight * self.entropy


class EncoderBlock(nn.Module):
    """GroupNorm, SiLU and a 3x3 convolution, added to the (projected) input."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else conv1x1(channels_in, channels_out)
        self.norm = group_norm(channels_in)
        self.conv = conv3x3(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, channels_in, H, W] to [N, channels_out, H, W]."""
        added: Tensor = self.skip(x) + self.conv(F.silu(self.norm(x)))
        return added


class ActorCritic(nn.Module):
    """A policy and a value over frames, with memory.

    Attributes:
        config: The architecture.
        obs_shape: C, H, W of a frame.
        num_actions: The number of actions.

    Args:
        config: The architecture.
        obs_shape: C, H, W of a frame.
        num_actions: The number of actions.

    Raises:
        ConfigError: The frame is too small for that many poolings.
    """

    def __init__(
        self, config: ActorCriticConfig, obs_shape: tuple[int, int, int], num_actions: int
    ) -> None:
        super().__init__()
        self.config = config
        self.obs_shape = obs_shape
        self.num_actions = num_actions
        channels, height, width = obs_shape
        divisor = 2 ** sum(config.downsample)
        pixels = (height // divisor) * (width // divisor)
        if pixels == 0:
            raise ConfigError(
                f"frames of {height}x{width} pixels are too small for {sum(config.downsample)} "
                f"poolings; set fewer entries of downsample"
            )
        self.conv_in = conv3x3(channels, config.channels[0])
        previous = (config.channels[0], *config.channels[:-1])
        self.blocks = nn.ModuleList(
            EncoderBlock(before, after)
            for before, after in zip(previous, config.channels, strict=True)
        )
        self.lstm = nn.LSTMCell(config.channels[-1] * pixels, config.lstm_dim)
        self.value = nn.Linear(config.lstm_dim, 1)
        self.policy = nn.Linear(config.lstm_dim, num_actions)
        initialise_lstm(self.lstm)
        zero(self.value)
        zero(self.policy)

    def initial_state(self, num_rows: int) -> LSTMState:
        """Returns the LSTM's state before the first frame, zeros, for `num_rows` rows."""
        return zero_state(self.lstm, num_rows)

    def forward(self, obs: Tensor, state: LSTMState | None = None) -> ActorCriticOutput:
        """Judges one frame a row.

        Args:
            obs: float32 [N, C, H, W] in [-1, 1].
            state: The LSTM's state before it; zeros if None.
        """
        state = self.initial_state(len(obs)) if state is None else state
        x = self.conv_in(obs)
        for block, pools in zip(self.blocks, self.config.downsample, strict=True):
            x = block(x)
            x = F.max_pool2d(x, 2) if pools else x
        h, c = self.lstm(x.flatten(1), (state.h, state.c))
        logits, value = self.policy(h).float(), self.value(h).float()[:, 0]
        return ActorCriticOutput(logits, value, LSTMState(h.float(), c.float()))


def lambda_returns(
    rewards: Tensor,
    ends: Tensor,
    truncations: Tensor,
    next_values: Tensor,
    *,
    gamma: float = 0.985,
    lambda_: float = 0.95,
) -> Tensor:
    """Computes λ-returns on the sign of the reward, backwards from the last value.

    G_t = r_t + γ (1 - end_t) [trunc_t V_{t+1}
                               + (1 - trunc_t) ((1 - λ) V_{t+1} + λ G_{t+1})]
    with V_{t+1} in the place of G_{t+1} at the last step (Alonso et al. 2024).

    Args:
        rewards: float [N, T], of any size.
        ends: int64 or bool [N, T], true where the episode ended.
        truncations: int64 or bool [N, T], true where it was cut short.
        next_values: float32 [N, T], V_{t+1}: the value of the frame the step led to, before any
            reset.
        gamma: γ, the discount.
        lambda_: λ, between one-step (0) and Monte Carlo (1) returns.

    Returns:
        float32 [N, T].
    """
    signs, goes_on = rewards.sign(), 1 - ends.float()
    # How much of what follows is taken from the next return, the rest from the next value.
    mix = lambda_ * (1 - truncations.float())
    following = next_values[:, -1]
    returns = []
    for step in reversed(range(rewards.shape[1])):
        value, share = next_values[:, step], mix[:, step]
        ahead = (1 - share) * value + share * following
        following = signs[:, step] + gamma * goes_on[:, step] * ahead
        returns.append(following)
    return torch.stack(returns[::-1], dim=1)


def actor_critic_losses(
    logits: Tensor, values: Tensor, actions: Tensor, returns: Tensor
) -> ActorCriticLosses:
    """Computes REINFORCE with the value as baseline, the value's error, and the entropy.

    Args:
        logits: float32 [N, T, num_actions], of the policy.
        values: float32 [N, T].
        actions: int64 [N, T], those that were taken.
        returns: float32 [N, T], the λ-returns; no gradient flows through them.
    """
    returns = returns.detach()
    advantage = returns - values.detach()
    log_probs = F.log_softmax(logits, dim=2)
    taken = log_probs.gather(2, actions[:, :, None])[:, :, 0]
    return ActorCriticLosses(
        policy=-(taken * advantage).mean(),
        value=F.mse_loss(values, returns),
        entropy=-(log_probs.exp() * log_probs).sum(dim=2).mean(),
    )
