"""Fitting the world model: one step of the denoiser and of the heads at a time."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dreamenv.data import Replay, Segments, change_std
from dreamenv.devices import computes_in_bf16
from dreamenv.errors import ConfigError, InputError
from dreamenv.models.compiling import compile_network
from dreamenv.models.denoiser import DenoiserLosses
from dreamenv.models.frames import to_float
from dreamenv.models.reward_end import RewardEndLosses
from dreamenv.models.world_model import WorldModel
from dreamenv.training.averaging import MovingAverage
from dreamenv.training.optimisation import Learner
from dreamenv.training.ranks import ALONE, Ranks
from dreamenv.training.training_config import TrainingConfig


class Losses(NamedTuple):
    """The losses of one step, each float32 [] on the device: reading one waits for it.

    Those of a network that did not learn are NaN.
    """

    denoiser: Tensor
    reward: Tensor
    end: Tensor


class WorldModelTrainer:
    """Fits a world model, step by step.

    Args:
        world_model: What is fitted; it is moved to the device.
        config: How.
        device: Where.
        seed: Of the noise.
        ranks: Who fits it together: all draw the same, and each learns from its share.
        only_choices: Whether nothing but the denoiser's choices learns.
        memory_format: How the weights lie in memory. bf16 convolutions want the channels last; the
            others do not mind.

    Attributes:
        step_count: Steps done so far.
    """

    def __init__(
        self,
        world_model: WorldModel,
        config: TrainingConfig,
        device: torch.device,
        seed: int = 0,
        ranks: Ranks = ALONE,
        *,
        only_choices: bool = False,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        self.step_count = 0
        self._ranks = ranks
        self._config = config
        self._device = device
        self._model = world_model.to(device).train()
        self._model.to(memory_format=memory_format)  # type: ignore[call-overload]
        # What is dreamt from it meanwhile is what will be dreamt from its folder.
        self._model.bf16 = config.bf16 and computes_in_bf16(device)
        self._average = (
            MovingAverage(self._model, config.ema_decay) if config.ema_decay > 0 else None
        )
        learner: nn.Module = self._model.denoiser
        if only_choices:
            self._model.requires_grad_(False)
            assert self._model.denoiser.network.choice_head is not None
            learner = self._model.denoiser.network.choice_head.requires_grad_(True)
        self._heads_learn = not only_choices
        self._denoiser = Learner(learner, config.denoiser_optimiser, config.steps, ranks)
        self._reward_end = Learner(
            self._model.reward_end,
            config.reward_end_optimiser,
            math.ceil(config.steps / config.reward_end_every),
            ranks,
        )
        self._noise = torch.Generator(device).manual_seed(seed)
        self._denoiser_losses: Callable[..., DenoiserLosses] = self._model.denoiser.losses
        self._reward_end_losses: Callable[..., RewardEndLosses] = self._model.reward_end.losses
        if config.compile:
            self._denoiser_losses = compile_network(self._denoiser_losses)
            self._reward_end_losses = compile_network(self._reward_end_losses)

    @property
    def fitted(self) -> WorldModel:
        """The world model as it is to be used: with averaged weights where they are averaged."""
        module = self._model if self._average is None else self._average.module
        assert isinstance(module, WorldModel)
        return module

    def step(self, for_denoiser: Segments | None, for_reward_end: Segments | None) -> Losses:
        """Learns from a batch of segments for each network; one without a batch does not.

        Where only choices learn, the heads do not.

        With several ranks the batches are the whole ones, and so are the losses.
        """
        self._model.train()
        denoiser = reward = end = torch.full((), torch.nan, device=self._device)
        if for_denoiser is not None:
            denoiser = self._learn_to_denoise(for_denoiser)
        if for_reward_end is not None and self._heads_learn:
            heads = self._learn_rewards_and_ends(for_reward_end)
            reward, end = heads.reward, heads.end
        if self._average is not None:
            self._average.update(self._model)
        self.step_count += 1
        return Losses(*self._ranks.add_up((denoiser, reward, end)))

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly."""
        return {
            "model": self._model.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "denoiser": self._denoiser.state_dict(),
            "reward_end": self._reward_end.state_dict(),
            "noise": self._noise.get_state(),
            "step_count": self.step_count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._model.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._denoiser.load_state_dict(state["denoiser"])
        self._reward_end.load_state_dict(state["reward_end"])
        self._noise.set_state(state["noise"].cpu())
        self.step_count = state["step_count"]

    def _learn_to_denoise(self, batch: Segments) -> Tensor:
        share = self._ranks.share
        noise = self._model.denoiser.draw_noise(batch.obs, self._noise).part(share)
        mine = batch.part(share)
        with self._autocast():
            losses = self._denoiser_losses(
                to_float(mine.obs),
                mine.actions,
                mine.mask,
                noise,
                batch.mask,
                mine.since_reward,
                mine.corner,
            )
        self._denoiser.learn(losses.total)
        return losses.total

    def _learn_rewards_and_ends(self, batch: Segments) -> RewardEndLosses:
        mine = batch.part(self._ranks.share)
        with self._autocast():
            losses = self._reward_end_losses(
                to_float(mine.obs), mine.actions, mine.rewards, mine.ends, mine.mask, batch.mask
            )
        self._reward_end.learn(losses.reward + losses.end)
        return losses

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._model.bf16)


def check_converges(denoiser: Tensor | None, step: int) -> None:
    """Checks that a fit has not diverged: there is no way back from weights that are no numbers.

    Args:
        denoiser: The loss of the denoiser when it last learned; None where it has not.
        step: The training step that it has come to.

    Raises:
        ConfigError: The loss is no number, or infinite.
    """
    if denoiser is None or denoiser.isfinite():
        return
    raise ConfigError(
        f"the fit has diverged by step {step}: the loss of the denoiser is {denoiser.item()}; begin"
        f" anew with a lower denoiser_optimiser.learning_rate: the last checkpoint is kept"
    )


def measure_change(world_model: WorldModel, replay: Replay, device: torch.device) -> None:
    """Sets the unit of networks that see or learn changes to their standard deviation in the data.

    Raises:
        InputError: No pixel ever changes.
    """
    units = [buffer for name, buffer in world_model.named_buffers() if name.endswith(".change_std")]
    if not units:
        return
    std = change_std(replay, device)
    if std == 0:
        raise InputError(
            f"{replay.folder}: no pixel ever changes in the episodes that are trained on; "
            f"there is nothing to dream of"
        )
    for unit in units:
        unit.fill_(std)
