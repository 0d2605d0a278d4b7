"""The configuration of DIAMOND's loop, and of learning in the real game alone."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dreamenv.config import Config
from dreamenv.devices import AUTO
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError
from dreamenv.models.actor_critic import ActorCriticConfig
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModelConfig
from dreamenv.registration import NAME_PATTERN
from dreamenv.training.actor_critic import ActorCriticTrainingConfig
from dreamenv.training.agents import AlgorithmName
from dreamenv.training.fit_config import short_name
from dreamenv.training.run_folder import RunFolder
from dreamenv.training.training_config import TrainingConfig

_SEEDS = 2**30  # a test adds its epoch, and ale-py takes seeds below 2**31

AgentName = Literal["diamond"] | AlgorithmName


@dataclass(frozen=True)
class ScheduleConfig(Config):
    """When what happens. The defaults are `atari100k`'s (Alonso et al. 2024, appendix).

    The steps that world model and agent learn in the first epoch are their own `steps`.

    Attributes:
        first_steps: Real steps of the first epoch, at least.
        first_steps_limit: Real steps of the first epoch, at most.
        first_rewards: The first epoch collects on, up to the limit, until so many rewards were of
            other signs than the most common one.
        epoch_steps: Real steps of every later epoch.
        steps: Real steps in all.
        epochs_after: Epochs that follow without collecting.
        world_model_steps: Training steps of the world model in every later epoch.
        agent_steps: Training steps of the agent in every later epoch.
        test_every: Epochs between tests.
        test_episodes: Games of a test.
        final_episodes: Games of the test at the end.
    """

    first_steps: int = 5_000
    first_steps_limit: int = 10_000
    first_rewards: int = 10
    epoch_steps: int = 100
    steps: int = 100_000
    epochs_after: int = 50
    world_model_steps: int = 400
    agent_steps: int = 400
    test_every: int = 10
    test_episodes: int = 4
    final_episodes: int = 100

    def __post_init__(self) -> None:
        for name in ("first_rewards", "epochs_after"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name, value in vars(self).items():
            if value < 1 and name not in ("first_rewards", "epochs_after"):
                raise ConfigError(f"{name} is {value}; it must be at least 1")

    def check_order(self) -> None:
        """Checks the real steps of a run that learns in dreams.

        Raises:
            ConfigError: The first epoch has more than its limit, or the limit is above them all.
        """
        if not self.first_steps <= self.first_steps_limit <= self.steps:
            raise ConfigError(
                f"first_steps is {self.first_steps}, first_steps_limit {self.first_steps_limit} "
                f"and steps {self.steps}; none may be above the next"
            )

    def epochs(self, collected_first: int) -> int:
        """Returns how many epochs there are.

        Args:
            collected_first: Real steps of the first epoch.
        """
        later = -(-(self.steps - collected_first) // self.epoch_steps)
        return 1 + later + self.epochs_after

    def real_steps(self, collected: int) -> int:
        """Returns how many real steps an epoch after the first collects.

        Args:
            collected: Real steps before it.
        """
        return max(0, min(self.epoch_steps, self.steps - collected))


@dataclass(frozen=True)
class TrainConfig(Config):
    """What learns to play what, and how. The defaults are `atari100k`'s.

    Attributes:
        env: The id of the real environment, such as ALE/Pong-v5.
        out: Folder of the run; by default runs/GAME-train, with `real` runs/GAME-real.
        size: Height and width of a frame, or one number for both.
        sticky_actions: Probability that the emulator repeats the last action. Atari only.
        epsilon: Probability of a random action while collecting.
        contexts: Of how many windows of the replay dreams begin in an epoch.
        checkpoint_every: Training steps between checkpoints within an epoch; there is one at the
            end of each of its parts.
        seed: Of games, batches, noise, dreams and actions.
        device: Where to learn: auto (CUDA, then MPS, then the CPU) or one by its name.
        agent: Who learns: DIAMOND's actor-critic, or an algorithm of stable-baselines3 or
            sb3-contrib. Of `imagination` those take steps, num_envs and rollout_length (of those
            that cut their rollouts it is the length, of all the horizon of the dreams); the rest
            are their own settings, those of `train-agent`.
        frame_stack: How many frames such an algorithm sees at once. The actor-critic remembers.
        real: Whether the agent learns in the real game alone, for comparison: in
            `imagination.num_envs` games for `schedule.steps` steps in all, rounded up to whole
            rollouts, with a test after every `schedule.test_every` * `schedule.epoch_steps` of
            them. There is no world model then, and of no concern are `epsilon`, `contexts`,
            `world_model`, `denoiser`, `reward_end`, `sampler`, `imagination.steps`, and of
            `schedule` all but steps, epoch_steps and what is said of tests.
        schedule: When what happens.
        world_model: How the world model is fitted.
        imagination: How the actor-critic is trained.
        denoiser: Architecture and noise of the denoiser.
        reward_end: Architecture of the reward and termination heads.
        sampler: Noise levels that the next frame is drawn with.
        actor_critic: Architecture of the actor-critic.
    """

    env: str
    out: str | None = None
    size: tuple[int, int] | tuple[int] = (64,)
    sticky_actions: float = 0.0
    epsilon: float = 0.01
    contexts: int = 512
    checkpoint_every: int = 1000
    seed: int = 0
    device: str = AUTO
    agent: AgentName = "diamond"
    frame_stack: int = 4
    real: bool = False
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    world_model: TrainingConfig = field(default_factory=TrainingConfig)
    imagination: ActorCriticTrainingConfig = field(default_factory=ActorCriticTrainingConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    reward_end: RewardEndConfig = field(default_factory=RewardEndConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)

    def __post_init__(self) -> None:
        for name in ("contexts", "checkpoint_every", "frame_stack"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.epsilon <= 1:
            raise ConfigError(f"epsilon is {self.epsilon}; it must be in [0, 1]")
        if not 0 <= self.seed < _SEEDS:
            raise ConfigError(f"seed is {self.seed}; it must be from 0 to {_SEEDS - 1}")
        if not self.real:
            self.schedule.check_order()
        stacks_in_dreams = self.agent != "diamond" and not self.real
        if stacks_in_dreams and self.frame_stack > self.denoiser.context_length:
            raise ConfigError(
                f"frame_stack is {self.frame_stack}, and dreams begin with "
                f"{self.denoiser.context_length} frames; stack no more than context_length"
            )
        fit = self.world_model
        if fit.favour_at or fit.favourites is not None or fit.reward_end_favoured > 0:
            raise ConfigError(
                "favour_at, favourites and reward_end_favoured are for a replay that does not "
                "grow; leave them and favoured_share out"
            )

    @property
    def height_width(self) -> tuple[int, int]:
        """The size of a frame."""
        return self.size[0], self.size[-1]

    @property
    def game(self) -> str:
        """The name of what is played.

        Raises:
            ConfigError: The id gives none that can name a folder.
        """
        name = short_name(self.env)
        if not re.fullmatch(NAME_PATTERN, name):
            raise ConfigError(f"{self.env} gives no name for the run; add --out")
        return name

    @property
    def run_folder(self) -> RunFolder:
        """The folder of the run."""
        kind = "real" if self.real else "train"
        return RunFolder(Path(self.out or Path("runs") / f"{self.game}-{kind}"))

    @property
    def real_steps_a_training_step(self) -> int:
        """Real steps of a training step in the real game, those of all games together."""
        return self.imagination.num_envs * self.imagination.rollout_length

    @property
    def real_training_steps(self) -> int:
        """Training steps in the real game, as many as take `schedule.steps` real steps."""
        return -(-self.schedule.steps // self.real_steps_a_training_step)

    @property
    def real_game_options(self) -> str:
        """The options of a command that plays the same game."""
        size = " ".join(str(side) for side in self.size)
        sticky = f" --sticky-actions {self.sticky_actions}" if self.sticky_actions else ""
        return f"--env {self.env} --size {size}{sticky}"


def architecture(config: TrainConfig, environment: EnvironmentSpec) -> WorldModelConfig:
    """Returns the architecture of a world model of that environment."""
    return WorldModelConfig(
        num_actions=environment.num_actions,
        obs_shape=environment.obs_shape,
        denoiser=config.denoiser,
        reward_end=config.reward_end,
        sampler=config.sampler,
    )
