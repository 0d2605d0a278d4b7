"""How a denoiser is built, and the noise that it is trained with."""

from dataclasses import dataclass
from typing import Literal

from dreamenv.config import Config
from dreamenv.errors import ConfigError
from dreamenv.models.blocks import Levels, Norm, check_fold


@dataclass(frozen=True)
class DenoiserConfig(Config):
    """Architecture and training noise of the denoiser. The defaults are `atari100k`.

    Attributes:
        context_length: L, how many past frames and actions the next frame is drawn from.
        cond_channels: Size of the condition made of the noise level and the past actions. Even,
            and at least L.
        channels: Width of each level of the U-Net, from the finest.
        depths: Residual blocks of each level.
        attention: Whether the blocks of a level attend.
        middle_attention: Whether the two blocks at the bottom of the U-Net do.
        norm: Of the residual blocks: `group`, as published, or `none`, with which the network does
            to a square cut out of a frame what it does to the frame; see `TrainingConfig.crop`.
        fold: Squares of so many pixels a side become channels before the U-Net: 1, 2 or 4.
        target: What is denoised. `frame`: the next frame, in [-1, 1]. `change`: the difference
            of the next frame from the last, over its standard deviation in the data.
        past: What the network is shown of the past. `frames`: the frames, over σ_data. `changes`:
            the last frame, and the changes between the frames before it, in the unit of the
            target, which must be `change`. It says the same, and what moved stands out. Before an
            episode's first frame nothing does.
        choices: K, among how many possible futures a frame is chosen: the first is what the U-Net
            draws, the others a `ChoiceHead`, which also tells how likely each is. One evaluation of
            the denoiser returns the mean of what may come, which is no frame where a ball may come
            up in any of several places. What a choice stands for is learned: nine tenths of each
            prediction by the best, the one with the least error, a twentieth by the best of those
            after the first, a twentieth by all alike (Guzman-Rivera et al., "Multiple Choice
            Learning", NIPS 2012; Rupprecht et al., "Learning in an Uncertain World", ICCV 2017).
            From whole frames it is learned how likely each is to be the best; from squares that
            are cut out it is not. At least 2, or 0 for none.
        choice_cost: How much less the squared error of F, summed over a frame or a square cut out
            of it, must be for another choice than the first to be the best: what the past decides
            is not to be chosen.
        reward_memory: For how many steps choices are told how long ago the last reward came; how
            likely they are hangs on its sign, too. 0 for no memory.
        place_maps: How many learned maps of the frame tell choices where they are; 0 for none.
        sigma_data: σ_data, the standard deviation of the target in EDM's preconditioning.
        sigma_offset: σ_off, the noise added to whole channels in training.
        log_sigma_mean: Mean of log σ in training.
        log_sigma_std: Standard deviation of log σ in training.
        sigma_min: Least σ in training.
        sigma_max: Largest σ in training.
        start_share: Probability of training at the start of sampling instead: σ is `sigma_max`,
            and the input has nothing of the target, only the standard normal noise that a
            sampler without `scale_start` begins with.
        forget_share: Probability of training with rewards that are not told, though there is a
            memory. A dream remembers those that it predicts, and where one was missed what follows
            it is to come all the same.
    """

    context_length: int = 4
    cond_channels: int = 256
    channels: tuple[int, ...] = (64, 64, 64, 64)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    attention: tuple[bool, ...] = (False, False, False, False)
    middle_attention: bool = True
    norm: Norm = "group"
    fold: int = 1
    target: Literal["frame", "change"] = "frame"
    past: Literal["frames", "changes"] = "frames"
    choices: int = 0
    choice_cost: float = 0.0
    reward_memory: int = 0
    place_maps: int = 0
    sigma_data: float = 0.5
    sigma_offset: float = 0.3
    log_sigma_mean: float = -0.4
    log_sigma_std: float = 1.2
    sigma_min: float = 2e-3
    sigma_max: float = 20.0
    start_share: float = 0.0
    forget_share: float = 0.0

    def __post_init__(self) -> None:
        _ = self.levels  # It checks itself.
        check_fold(self.fold)
        if self.context_length < 1:
            raise ConfigError(f"context_length is {self.context_length}; it must be at least 1")
        if self.cond_channels % 2 or self.cond_channels < max(2, self.context_length):
            raise ConfigError(
                f"cond_channels is {self.cond_channels}; it must be even, and at least "
                f"context_length ({self.context_length})"
            )
        if self.target not in ("frame", "change"):
            raise ConfigError(f"target is {self.target!r}; it must be 'frame' or 'change'")
        if self.past not in ("frames", "changes"):
            raise ConfigError(f"past is {self.past!r}; it must be 'frames' or 'changes'")
        if self.past == "changes" and self.target != "change":
            raise ConfigError("past is 'changes', which only a target of 'change' has a unit for")
        if self.choices < 0 or self.choices == 1:
            raise ConfigError(f"choices is {self.choices}; it must be 0, or at least 2")
        for name in "choice_cost", "reward_memory", "place_maps":
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")
            if getattr(self, name) > 0 and self.choices == 0:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, and choices, whose it is, is 0; give at "
                    f"least 2"
                )
        if self.sigma_data <= 0 or self.sigma_offset < 0:
            raise ConfigError(
                f"sigma_data is {self.sigma_data} and sigma_offset {self.sigma_offset}; the "
                f"first must be above 0, the second at least 0"
            )
        if self.log_sigma_std < 0:
            raise ConfigError(f"log_sigma_std is {self.log_sigma_std}; it must be at least 0")
        if not 0 < self.sigma_min <= self.sigma_max:
            raise ConfigError(
                f"sigma_min is {self.sigma_min} and sigma_max {self.sigma_max}; they must be "
                f"above 0, the first not above the second"
            )
        if not 0 <= self.start_share <= 1:
            raise ConfigError(f"start_share is {self.start_share}; it must be in [0, 1]")
        if not 0 <= self.forget_share <= 1:
            raise ConfigError(f"forget_share is {self.forget_share}; it must be in [0, 1]")
        if self.forget_share > 0 and self.reward_memory == 0:
            raise ConfigError(
                f"forget_share is {self.forget_share}, and reward_memory, of which it is, is 0; "
                f"give at least 1"
            )

    @property
    def levels(self) -> Levels:
        """The levels of the network.

        Raises:
            ConfigError: They cannot work.
        """
        return Levels(self.channels, self.depths, self.attention, self.middle_attention, self.norm)

    @property
    def multiple(self) -> int:
        """How many pixels of the frame a side one of the coarsest level has."""
        halvings = len(self.channels) - 1
        return self.fold << halvings
