"""What each step of fitting a world model learns from."""

import functools
from typing import Any

import torch
from torch import Tensor

from dreamenv.data import Cropper, Replay, Segments, SegmentSampler
from dreamenv.data.segments import joined
from dreamenv.data.statistics import mean_squared_change
from dreamenv.errors import ConfigError
from dreamenv.models.world_model import WorldModel
from dreamenv.training.dreamt_past import DreamtPast
from dreamenv.training.favourites import favour_outcomes
from dreamenv.training.training_config import TrainingConfig


class Batches:
    """Draws what each step learns from.

    Args:
        replay: Where the episodes are.
        world_model: What is fitted.
        config: How.
        device: Where the batches are wanted.
        seed: Of the random numbers.

    Raises:
        ConfigError: The segments of the heads are too short to be dreamt.
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
        check_dreamt_length(config, context_length)
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
        # It reads every frame: where it is needed at all, once.
        usual_change = functools.cache(lambda: mean_squared_change(replay, device))
        self._single_cropper, self._unrolled_cropper = (
            None if side is None else Cropper(usual_change(), side, denoiser.multiple, seed + add)
            for side, add in ((config.crop, 3), (config.unrolled_crop, 4))
        )
        self._dreamt: DreamtPast | None = None
        if config.unrolled_crop is not None or config.dreamt_for_heads > 0:
            self._dreamt = DreamtPast(
                world_model,
                usual_change().mean().item(),
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


def check_dreamt_length(config: TrainingConfig, context_length: int) -> None:
    """Checks that segments that are to be dreamt for the heads are longer than a context.

    Raises:
        ConfigError: They are not.
    """
    if config.dreamt_for_heads > 0 and config.reward_end_length <= context_length:
        raise ConfigError(
            f"reward_end_length is {config.reward_end_length}, and the context {context_length} "
            f"frames: nothing is left to dream; make it longer, or reward_end_dreamt 0"
        )
