"""How a world model is fitted: what each step learns from, and how fast."""

import functools
from dataclasses import dataclass, field

from dreamenv.config import Config
from dreamenv.data import PUBLISHED_WEIGHTS
from dreamenv.errors import ConfigError
from dreamenv.models.sampler import check_levels
from dreamenv.training.optimisation import OptimiserConfig


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
