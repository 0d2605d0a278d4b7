"""Fitting the world model: one step of the denoiser and of the heads at a time."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dreamenv.config import Config
from dreamenv.data import PUBLISHED_WEIGHTS, Cropper, Replay, Segments, SegmentSampler, change_std
from dreamenv.data.segments import joined
from dreamenv.data.statistics import mean_squared_change
from dreamenv.devices import computes_in_bf16
from dreamenv.errors import ConfigError, InputError
from dreamenv.models.compiling import compile_network
from dreamenv.models.denoiser import DenoiserLosses
from dreamenv.models.frames import to_float
from dreamenv.models.reward_end import RewardEndLosses
from dreamenv.models.sampler import check_levels
from dreamenv.models.world_model import WorldModel
from dreamenv.training.averaging import MovingAverage
from dreamenv.training.dreamt_past import DreamtPast
from dreamenv.training.favourites import favour_outcomes
from dreamenv.training.optimisation import Learner, OptimiserConfig
from dreamenv.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class TrainingConfig(Config):
    """How a world model is fitted. The defaults are `atari100k`'s, its first epoch.

    Attributes:
        steps: Training steps of the denoiser; the heads learn beside it.
        batch_size: Segments a step of the denoiser.
        reward_end_batch_size: Segments a step of the heads.
        predictions: Frames a segment that the denoiser predicts, each but the first after its own
            prediction.
        single_steps: So many steps at the beginning predict one frame a segment: all of their
            work is from real frames.
        crop: Side of the squares around what changes that those steps learn from, instead of from
            whole frames; see `Cropper`.
        single_batch_size: Segments a step of those; None for `predictions` times `batch_size`.
        unrolled_crop: Side of the squares that the other steps learn from, or None for whole
            frames. Then all but the last frame are dreamt first, with the sampler of dreams, and a
            square is cut around what changes at each prediction; see `DreamtPast`.
        dreamt_levels: Noise levels that these pasts, and those of the heads, are dreamt with; None
            for the sampler's own.
        unrolled_singles: Segments of one prediction, all of whose past is real, that those steps
            learn from beside: what a step that is favoured teaches is not lost among the dreamt.
        favoured_share: Share of the denoiser's segments that are drawn around the frames that it
            predicts worst; see `favour_the_hardest`.
        favour_at: After how many steps it is measured, or measured again, which these are.
        favourites: A function, as module:name, that says instead, once and for all, how often each
            step is to be drawn; see `favour_by_weight`.
        reward_end_length: Steps of a segment of the heads.
        reward_end_every: The heads learn in every so many-th step: they are done sooner.
        reward_end_favoured: Share of the heads' segments that are drawn around steps that pay or
            end an episode, for games in which hardly any do; see `favour_outcomes`.
        reward_end_dreamt: After the single steps, the share of the heads' segments whose frames
            are dreamt along the actions, but for the context that they begin with.
        quarters: Probabilities of drawing from the quarters of the episodes by age, oldest first;
            None draws every step equally often.
        denoiser_optimiser: Of the denoiser.
        reward_end_optimiser: Of the reward and termination heads.
        ema_decay: Of the moving average of the weights that is saved; 0 saves the weights.
        bf16: Whether to compute products in bf16 where the device has instructions for it.
        compile: Whether to compile the networks: minutes at the start, faster steps after.
    """

    steps: int = 10_000
    batch_size: int = 32
    reward_end_batch_size: int = 32
    predictions: int = 2
    single_steps: int = 0
    crop: int | None = None
    single_batch_size: int | None = None
    unrolled_crop: int | None = None
    dreamt_levels: tuple[float, ...] | None = None
    unrolled_singles: int = 0
    favoured_share: float = 0.0
    favour_at: tuple[int, ...] = ()
    favourites: str | None = None
    reward_end_length: int = 19
    reward_end_every: int = 1
    reward_end_favoured: float = 0.0
    reward_end_dreamt: float = 0.0
    quarters: tuple[float, float, float, float] | None = PUBLISHED_WEIGHTS
    denoiser_optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    reward_end_optimiser: OptimiserConfig = field(
        default_factory=functools.partial(OptimiserConfig, max_grad_norm=100.0)
    )
    ema_decay: float = 0.0
    bf16: bool = True
    compile: bool = False

    @property
    def singles(self) -> int:
        """Segments a step of those that predict one frame each."""
        return self.single_batch_size or self.predictions * self.batch_size

    @property
    def single_step_count(self) -> int:
        """How many of all steps predict one frame a segment."""
        return min(self.single_steps, self.steps)

    @property
    def dreamt_for_heads(self) -> int:
        """Segments a step of the heads whose frames are dreamt, after the single steps."""
        return round(self.reward_end_dreamt * self.reward_end_batch_size)

    def __post_init__(self) -> None:
        at_least_one = "batch_size", "reward_end_batch_size", "predictions", "reward_end_every"
        for name in ("steps", *at_least_one):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.single_steps < 0:
            raise ConfigError(f"single_steps is {self.single_steps}; it must be at least 0")
        for name in "favoured_share", "reward_end_favoured", "reward_end_dreamt":
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        if self.reward_end_dreamt > 0 and self.dreamt_for_heads == 0:
            raise ConfigError(
                f"reward_end_dreamt is {self.reward_end_dreamt}, of {self.reward_end_batch_size} "
                f"segments none; give more, or 0"
            )
        for name in "crop", "single_batch_size":
            if (given := getattr(self, name)) is not None and min(given, self.single_steps) < 1:
                raise ConfigError(
                    f"{name} is {given} and single_steps {self.single_steps}; both must be at "
                    f"least 1, or {name} left out"
                )
        if self.unrolled_crop is not None and self.unrolled_crop < 1:
            raise ConfigError(f"unrolled_crop is {self.unrolled_crop}; it must be at least 1")
        if self.dreamt_levels is not None:
            check_levels(self.dreamt_levels, "dreamt_levels")
            if self.unrolled_crop is None and self.reward_end_dreamt == 0:
                raise ConfigError(
                    f"dreamt_levels is {self.dreamt_levels}, and nothing is dreamt; give "
                    f"unrolled_crop or reward_end_dreamt too, or leave it out"
                )
        if self.unrolled_singles < 0 or (self.unrolled_singles > 0 and self.unrolled_crop is None):
            raise ConfigError(
                f"unrolled_singles is {self.unrolled_singles} and unrolled_crop "
                f"{self.unrolled_crop}; give at least 0, and above it a square too"
            )
        if (self.favoured_share > 0) != bool(self.favour_at) or min(self.favour_at, default=1) < 1:
            raise ConfigError(
                f"favoured_share is {self.favoured_share} and favour_at {self.favour_at}; give a "
                f"share and steps of at least 1, or neither"
            )
        if self.favour_at and self.favourites is not None:
            raise ConfigError(
                f"favour_at is {self.favour_at} and favourites {self.favourites!r}; give one"
            )
        if self.reward_end_length < 2:
            raise ConfigError(
                f"reward_end_length is {self.reward_end_length}; it must be at least 2"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay is {self.ema_decay}; it must be in [0, 1)")


class Losses(NamedTuple):
    """The losses of one step, each float32 [] on the device: reading one waits for it.

    Those of a network that did not learn are NaN.
    """

    denoiser: Tensor
    reward: Tensor
    end: Tensor


class Batches:
    """Draws what each step learns from.

    Args:
        replay: Where the episodes are.
        world_model: What is fitted.
        config: How.
        device: Where the batches are wanted.
        seed: Of the random numbers.
    """

    def __init__(
        self,
        replay: Replay,
        world_model: WorldModel,
        config: TrainingConfig,
        device: torch.device,
        seed: int,
    ) -> None:
        denoiser = world_model.config.denoiser
        context_length = denoiser.context_length
        draw = functools.partial(SegmentSampler, replay, device=device, weights=config.quarters)
        self._config = config
        self._drawn = self._favoured_at = 0
        self._single = draw(
            segment_length=context_length + 1,
            batch_size=config.singles,
            beyond_end=False,
            seed=seed + 2,
        )
        self._beside: SegmentSampler | None = None
        if config.unrolled_singles > 0:
            self._beside = draw(
                segment_length=context_length + 1,
                batch_size=config.unrolled_singles,
                beyond_end=False,
                seed=seed + 6,
            )
        self._denoiser = draw(
            segment_length=context_length + config.predictions,
            batch_size=config.batch_size,
            beyond_end=False,
            seed=seed,
        )
        self._reward_end = draw(
            segment_length=config.reward_end_length,
            batch_size=config.reward_end_batch_size,
            beyond_end=True,
            seed=seed + 1,
        )
        if config.reward_end_favoured > 0:
            # Any place but the last, at which no step is learned.
            self._reward_end.favour(
                favour_outcomes(replay, config.reward_end_favoured), config.reward_end_length - 1
            )
        self._single_cropper, self._unrolled_cropper = (
            None if side is None else Cropper(replay, side, denoiser.multiple, device, seed + add)
            for side, add in ((config.crop, 3), (config.unrolled_crop, 4))
        )
        if config.dreamt_for_heads > 0 and config.reward_end_length <= context_length:
            raise ConfigError(
                f"reward_end_length is {config.reward_end_length}, and the context "
                f"{context_length} frames: nothing is left to dream; make it longer, or "
                f"reward_end_dreamt 0"
            )
        self._dreamt: DreamtPast | None = None
        if config.unrolled_crop is not None or config.dreamt_for_heads > 0:
            usual_change = mean_squared_change(replay, device).mean().item()
            self._dreamt = DreamtPast(
                world_model,
                usual_change,
                device,
                seed + 5,
                levels=config.dreamt_levels,
                compile=config.compile,
            )

    def draw(self) -> tuple[Segments, Segments | None]:
        """Draws the next step's batch for the denoiser, and the one for the heads if they learn."""
        is_single = self._drawn < self._config.single_steps
        heads_learn = self._drawn % self._config.reward_end_every == 0
        self._drawn += 1
        for_denoiser = self._draw_single() if is_single else self._draw_unrolled()
        return for_denoiser, self._draw_for_heads(is_single) if heads_learn else None

    def _draw_single(self) -> Segments:
        segments = self._single.sample()
        return segments if self._single_cropper is None else self._single_cropper.crop(segments)

    def _draw_unrolled(self) -> Segments:
        segments = self._denoiser.sample()
        if self._unrolled_cropper is None:
            return segments
        assert self._dreamt is not None
        windows = self._dreamt.windows(segments)
        if self._beside is not None:
            windows = joined(windows, self._beside.sample())
        return self._unrolled_cropper.crop(windows)

    def _draw_for_heads(self, is_single: bool) -> Segments:
        segments = self._reward_end.sample()
        if is_single or self._config.dreamt_for_heads == 0:
            return segments
        assert self._dreamt is not None
        return self._dreamt.frames(segments, self._config.dreamt_for_heads)

    @property
    def wants_favourites(self) -> bool:
        """Whether it is time to `favour` the steps that are hard."""
        return any(self._favoured_at < step <= self._drawn for step in self._config.favour_at)

    def favour(self, probabilities: Tensor) -> None:
        """Draws the steps that the denoiser predicts with these probabilities, float64 [N]."""
        self._single.favour(probabilities, 1)
        if self._beside is not None:
            self._beside.favour(probabilities, 1)
        self._denoiser.favour(probabilities, self._config.predictions)
        self._favoured_at = self._drawn

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on with the very next batch."""
        return {
            "drawn": self._drawn,
            "favoured_at": self._favoured_at,
            "single_cropper": self._single_cropper and self._single_cropper.state_dict(),
            "unrolled_cropper": self._unrolled_cropper and self._unrolled_cropper.state_dict(),
            "single": self._single.state_dict(),
            "beside": self._beside and self._beside.state_dict(),
            "denoiser": self._denoiser.state_dict(),
            "reward_end": self._reward_end.state_dict(),
            "dreamt": self._dreamt and self._dreamt.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._drawn, self._favoured_at = state["drawn"], state["favoured_at"]
        if self._single_cropper is not None:
            self._single_cropper.load_state_dict(state["single_cropper"])
        if self._unrolled_cropper is not None:
            self._unrolled_cropper.load_state_dict(state["unrolled_cropper"])
        if self._dreamt is not None:
            self._dreamt.load_state_dict(state["dreamt"])
        self._single.load_state_dict(state["single"])
        if self._beside is not None:
            self._beside.load_state_dict(state["beside"])
        self._denoiser.load_state_dict(state["denoiser"])
        self._reward_end.load_state_dict(state["reward_end"])


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
