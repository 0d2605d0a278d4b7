"""The configuration of fitting a world model."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from dreamenv.config import Config
from dreamenv.devices import AUTO
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModelConfig
from dreamenv.registration import NAME_PATTERN
from dreamenv.training.collect import CollectConfig
from dreamenv.training.policies import RANDOM
from dreamenv.training.run_folder import RunFolder
from dreamenv.training.training_config import TrainingConfig

BY_STEP, BY_EPISODE = "step", "episode"


@dataclass(frozen=True)
class FitModelConfig(Config):
    """What a world model is fitted to, and how.

    Attributes:
        env: The id of the real environment, such as ALE/Pong-v5. With a dataset it may be left
            out.
        name: Of the world model, in $DREAMENV_HOME; by default the game's.
        out: Folder of the run; by default runs/NAME.
        begin_with: A world model, its name or its folder, whose weights are where the fit begins;
            its networks must be these. None for fresh weights.
        only_choices: Learn nothing but the denoiser's `choices`, and leave the rest of the world
            model that the fit begins with as it is.
        dataset: Learn from these episodes and play none: the folder of a replay, or the id or
            folder of a Minari dataset.
        collect_steps: Steps to play.
        policy: Who plays: random, the .zip of a saved agent, or module:function.
        epsilon: Probability of a random action instead of the player's.
        num_envs: Games played at once.
        size: Height and width of a frame, or one number for both.
        sticky_actions: Probability that the emulator repeats the last action. Atari only.
        seed: Of games, batches and noise.
        device: Where to fit: auto (CUDA, then MPS, then the CPU) or one by its name.
        validate_every: Training steps between validations.
        checkpoint_every: Training steps between checkpoints.
        contexts: How many windows of the episodes are kept for dreams to begin from.
        contexts_by: How they are drawn: `step`, as the segments to train on; `episode`, from all
            episodes about equally often; or by a function, as module:name, that says how often the
            frame after each step is to be where a dream begins; see `favour_by_weight`. An agent
            that knows nothing yet has more to learn where weak players were than late in the long
            games of good ones, and most in a few places that come again and again.
        weights: Type of the weights in the world model's folder; float16 and bfloat16 take half the
            space.
        training: How the networks are fitted. On the command line its settings stand by
            themselves, as in --steps.
        denoiser: Architecture and noise of the denoiser.
        reward_end: Architecture of the reward and termination heads.
        sampler: Noise levels that the next frame is drawn with.
    """

    env: str | None = None
    name: str | None = None
    out: str | None = None
    begin_with: str | None = None
    only_choices: bool = False
    dataset: str | None = None
    collect_steps: int = 10_000
    policy: str = RANDOM
    epsilon: float = 0.0
    num_envs: int = 8
    size: tuple[int, int] | tuple[int] = (64,)
    sticky_actions: float = 0.0
    seed: int = 0
    device: str = AUTO
    validate_every: int = 1000
    checkpoint_every: int = 250
    contexts: int = 512
    contexts_by: str = BY_STEP
    weights: Literal["float32", "float16", "bfloat16"] = "float32"
    training: Annotated[TrainingConfig, arg(name="")] = field(default_factory=TrainingConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    reward_end: RewardEndConfig = field(default_factory=RewardEndConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        for name in ("validate_every", "checkpoint_every", "contexts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.name is not None and not re.fullmatch(NAME_PATTERN, self.name):
            raise ConfigError(
                f"name is {self.name!r}; it must be of letters, digits, '_', '-' and '.'"
            )
        if self.contexts_by not in (BY_STEP, BY_EPISODE) and ":" not in self.contexts_by:
            raise ConfigError(
                f"contexts_by is {self.contexts_by!r}; it must be {BY_STEP}, {BY_EPISODE} or a "
                f"function as module:name"
            )
        _ = self.collection  # It checks its own settings.

    @property
    def collection(self) -> CollectConfig:
        """What is collected."""
        return CollectConfig(
            steps=self.collect_steps,
            policy=self.policy,
            epsilon=self.epsilon,
            num_envs=self.num_envs,
            seed=self.seed,
        )

    @property
    def height_width(self) -> tuple[int, int]:
        """The size of a frame."""
        return self.size[0], self.size[-1]

    @property
    def world_name(self) -> str:
        """The name of the world model.

        Raises:
            ConfigError: The dataset has no name to take.
        """
        name = self.name or short_name(self.env or str(self.dataset))
        if not re.fullmatch(NAME_PATTERN, name):
            raise ConfigError(f"{self.dataset} gives no name for the world model; add --name")
        return name

    @property
    def run_folder(self) -> RunFolder:
        """The folder of the run."""
        return RunFolder(Path(self.out or Path("runs") / self.world_name))


def short_name(source: str) -> str:
    """Returns a name for what an id or a folder holds.

    `ALE/Pong-v5` gives `Pong`, a Minari id `atari/pong/expert-v0` `atari-pong-expert`, and the
    folder of a replay, or one in a run, that folder's or that run's name.
    """
    folder = Path(source)
    if folder.is_dir():
        folder = folder.resolve()
        return folder.parent.name if folder.name == "replay" else folder.name
    name = source.removeprefix("ALE/").rsplit(":", maxsplit=1)[-1].strip("./")
    return re.sub(r"-v\d+$", "", name).replace("/", "-")


def architecture(config: FitModelConfig, environment: EnvironmentSpec) -> WorldModelConfig:
    """Returns the architecture of a world model of that environment."""
    return WorldModelConfig(
        num_actions=environment.num_actions,
        obs_shape=environment.obs_shape,
        denoiser=config.denoiser,
        reward_end=config.reward_end,
        sampler=config.sampler,
    )
