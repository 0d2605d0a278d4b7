"""The reward and termination model: what a transition pays, and whether it ends the episode."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamenv.config import Config
from dreamenv.errors import ConfigError
from dreamenv.models.blocks import (
    ActionEmbedding,
    DownPath,
    Levels,
    check_fold,
    conv3x3,
    each_modulation,
    fold_frames,
    modulate,
    norms_of,
)
from dreamenv.models.lstm import LSTMState, initialise_lstm, step_lstm, zero_state

NUM_REWARDS = 3  # the signs -1, 0, 1
NUM_ENDS = 2  # goes on, ended


@dataclass(frozen=True)
class RewardEndConfig(Config):
    """Architecture of the reward and termination model. The defaults are `atari100k`.

    Attributes:
        cond_channels: Size of the action's embedding, the condition of every block.
        channels: Width of each level, from the finest.
        depths: Residual blocks of each level.
        attention: Whether the blocks of a level attend.
        lstm_dim: Size of the LSTM's state.
        fold: Squares of so many pixels a side become channels first: 1, 2 or 4.
        next_obs: How the frame after a step is shown. `frame`: as it is, as published. `change`:
            as its difference from the frame before the step, over the standard deviation of such
            differences in the data. It says the same, and what pays stands out.
    """

    cond_channels: int = 128
    channels: tuple[int, ...] = (32, 32, 32, 32)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    attention: tuple[bool, ...] = (False, False, False, False)
    lstm_dim: int = 512
    fold: int = 1
    next_obs: Literal["frame", "change"] = "frame"

    def __post_init__(self) -> None:
        _ = self.levels  # It checks itself.
        check_fold(self.fold)
        if self.next_obs not in ("frame", "change"):
            raise ConfigError(f"next_obs is {self.next_obs!r}; it must be 'frame' or 'change'")
        if self.cond_channels < 1 or self.lstm_dim < 1:
            raise ConfigError(
                f"cond_channels is {self.cond_channels} and lstm_dim {self.lstm_dim}; both must "
                f"be at least 1"
            )

    @property
    def levels(self) -> Levels:
        """The levels of the network.

        Raises:
            ConfigError: They cannot work.
        """
        return Levels(self.channels, self.depths, self.attention)


class RewardEndOutput(NamedTuple):
    """Predictions for T steps of N rows, and the state after them.

    Attributes:
        reward_logits: float32 [N, T, 3], for the signs -1, 0, 1.
        end_logits: float32 [N, T, 2], for going on and having ended.
        state: The LSTM's state after the last step.
    """

    reward_logits: Tensor
    end_logits: Tensor
    state: LSTMState


class RewardEndLosses(NamedTuple):
    """The two cross-entropies of the training loss, each float32 []; it is their sum."""

    reward: Tensor
    end: Tensor


class RewardEndModel(nn.Module):
    """Predicts the sign of the reward and the end of the episode from transitions.

    Args:
        config: The architecture.
        obs_shape: C, H, W of a frame.
        num_actions: The number of actions.

    Attributes:
        change_std: float32 [], the unit of changes where they are shown: the standard deviation
            over the data of the difference of neighbouring frames, these in [-1, 1].
    """

    change_std: Tensor

    def __init__(
        self, config: RewardEndConfig, obs_shape: tuple[int, int, int], num_actions: int
    ) -> None:
        super().__init__()
        self.config = config
        channels, height, width = obs_shape
        self.action_embedding = ActionEmbedding(num_actions, config.cond_channels)
        self.conv_in = conv3x3(2 * channels * config.fold**2, config.channels[0])
        self.down = DownPath(config.levels, config.cond_channels)
        self._norms = norms_of(self.down)
        # Every halving rounds up, so their product divides at once.
        divisor = config.fold * 2 ** (len(config.channels) - 1)
        pixels = -(-height // divisor) * -(-width // divisor)
        self.lstm = nn.LSTM(config.channels[-1] * pixels, config.lstm_dim, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(config.lstm_dim, config.lstm_dim),
            nn.SiLU(),
            nn.Linear(config.lstm_dim, NUM_REWARDS + NUM_ENDS, bias=False),
        )
        initialise_lstm(self.lstm)
        if config.next_obs == "change":
            self.register_buffer("change_std", torch.ones(()))

    def initial_state(self, num_rows: int) -> LSTMState:
        """Returns the LSTM's state before the first step, zeros, for `num_rows` rows."""
        return zero_state(self.lstm, num_rows)

    def forward(
        self, obs: Tensor, actions: Tensor, next_obs: Tensor, state: LSTMState | None = None
    ) -> RewardEndOutput:
        """Predicts rewards and ends of T steps.

        Args:
            obs: float32 [N, T, C, H, W] in [-1, 1], the frames before each step.
            actions: int64 [N, T].
            next_obs: The frames after each step, as `obs`.
            state: The LSTM's state before the first of them; zeros if None.
        """
        rows, steps = actions.shape
        state = self.initial_state(rows) if state is None else state
        x = torch.cat([obs, self._shown(obs, next_obs)], dim=2).flatten(0, 1)
        x = self.conv_in(fold_frames(x, self.config.fold))
        modulation = modulate(self._norms, self.action_embedding(actions.flatten()))
        x, _ = self.down(x, each_modulation(self._norms, modulation))
        x = x.reshape(rows, steps, -1)
        hidden, state = self._remember(x, state)
        reward_logits, end_logits = self.head(hidden).float().split((NUM_REWARDS, NUM_ENDS), dim=2)
        return RewardEndOutput(reward_logits, end_logits, state)

    def _remember(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Runs the LSTM over [N, T, features]: its outputs, and its state after them."""
        remembered: tuple[Tensor, tuple[Tensor, Tensor]]
        if x.device.type == "cpu" and x.shape[1] == 1:
            # For a step of a dream, casting the weights would take longer than the products.
            with torch.autocast("cpu", enabled=False):
                after = step_lstm(self.lstm, x[:, 0].float(), state)
            return after.h[:, None], after
        before = state.h[None], state.c[None]
        if x.device.type != "cuda":
            remembered = self.lstm(x, before)
        else:
            # Autocast has cuDNN's LSTMs compute in float16, whichever type it is told: gradients
            # of long batches are too small for that.
            with torch.autocast("cuda", enabled=False):
                remembered = self.lstm(x.float(), before)
        hidden, (h, c) = remembered
        return hidden, LSTMState(h[0].float(), c[0].float())

    def _shown(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        """Turns the frames after each step into what the network is shown of them."""
        if self.config.next_obs == "frame":
            return next_obs
        return (next_obs - obs) / self.change_std

    def losses(
        self,
        obs: Tensor,
        actions: Tensor,
        rewards: Tensor,
        ends: Tensor,
        mask: Tensor,
        whole: Tensor | None = None,
    ) -> RewardEndLosses:
        """Computes the cross-entropies over the T - 1 transitions of each segment.

        Args:
            obs: float32 [B, T, C, H, W] in [-1, 1]. Where an episode ended at a step, the frame
                after it is the episode's true final frame, as the segments of a replay have it.
            actions: int64 [B, T].
            rewards: float [B, T], of any size: their sign is learned.
            ends: int64 or bool [B, T], true where the step ended the episode.
            mask: bool [B, T], False where a step is padding.
            whole: Where the segments are a share of a batch, the mask of all of it. The losses of
                the shares then add up to those of the batch.
        """
        output = self(obs[:, :-1], actions[:, :-1], obs[:, 1:])
        steps = mask[:, :-1]
        counted = steps if whole is None else whole[:, :-1]
        reward_classes = rewards[:, :-1].sign().long() + 1
        return RewardEndLosses(
            _masked_cross_entropy(output.reward_logits, reward_classes, steps, counted),
            _masked_cross_entropy(output.end_logits, ends[:, :-1].long(), steps, counted),
        )


def _masked_cross_entropy(logits: Tensor, classes: Tensor, mask: Tensor, counted: Tensor) -> Tensor:
    """Sums the cross-entropy of [B, T, K] over the steps of the mask, divided by those counted."""
    losses = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none")
    return torch.where(mask.flatten(), losses, 0).sum() / counted.sum().clamp(min=1)
