"""The presets of fitting: an architecture with the settings that it is known to be fitted with."""

from dataclasses import dataclass, field
from typing import Literal

from dreamenv.config import Config
from dreamenv.models import presets
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModelConfig
from dreamenv.training.optimisation import OptimiserConfig
from dreamenv.training.training_config import TrainingConfig

PresetName = Literal["small", "atari100k"]


@dataclass(frozen=True)
class Preset(Config):
    """What is fitted, and how. The defaults are `atari100k`.

    Attributes:
        denoiser: Architecture and noise of the denoiser.
        reward_end: Architecture of the reward and termination heads.
        sampler: The noise levels the next frame is drawn with.
        training: How they are fitted.
    """

    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    reward_end: RewardEndConfig = field(default_factory=RewardEndConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def atari100k() -> Preset:
    """Returns the published architecture and settings (Alonso et al. 2024)."""
    return _preset(presets.atari100k(num_actions=1), TrainingConfig())


def small() -> Preset:
    """Returns the architecture for a CPU, with the settings it was measured with.

    Batches are small, since steps are what a CPU has too few of, and every step of the data is
    drawn as often as any other: short episodes, as of random play, are not learned best.
    """
    training = TrainingConfig(
        batch_size=16,
        reward_end_batch_size=8,
        reward_end_length=12,
        quarters=None,
        denoiser_optimiser=OptimiserConfig(learning_rate=5e-4, schedule="cosine"),
        reward_end_optimiser=OptimiserConfig(learning_rate=1e-3, schedule="cosine"),
        ema_decay=0.999,
    )
    return _preset(presets.small(num_actions=1), training)


def preset(name: PresetName) -> Preset:
    """Returns the preset of that name."""
    return {"small": small, "atari100k": atari100k}[name]()


def _preset(model: WorldModelConfig, training: TrainingConfig) -> Preset:
    return Preset(model.denoiser, model.reward_end, model.sampler, training)
