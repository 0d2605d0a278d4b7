"""How fast each network trains, beside the reference path of the same weights."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from typing_extensions import Self

from dreamenv.config import Config
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.evaluation.timing import Act, Stopwatch, Timing, alternate
from dreamenv.models.actor_critic import ActorCritic, ActorCriticConfig
from dreamenv.models.skeleton import skeleton
from dreamenv.models.world_model import WorldModel, WorldModelConfig, read_description
from dreamenv.training.actor_critic import ActorCriticTrainer, ActorCriticTrainingConfig
from dreamenv.training.noise import noise_segments
from dreamenv.training.rollout import RolloutCollector
from dreamenv.training.training_config import TrainingConfig
from dreamenv.training.world_model import WorldModelTrainer


@dataclass(frozen=True)
class TrainingPlan:
    """How the networks are trained whose steps are timed. The defaults are `atari100k`.

    Attributes:
        world_model: Denoiser and heads. Steps that predict one frame a segment are not timed.
        imagination: The actor-critic, in dreams.
        actor_critic: Its architecture.
    """

    world_model: TrainingConfig = field(default_factory=TrainingConfig)
    imagination: ActorCriticTrainingConfig = field(default_factory=ActorCriticTrainingConfig)
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)


@dataclass(frozen=True)
class TrainingSpeed(Config):
    """How fast a network trains. All rates are of the median.

    Attributes:
        part: Which network.
        batch_size: Segments a step, or dreams.
        length: Frames of a segment, or steps of a rollout.
        steps_per_second: Training steps a second.
        reference_steps_per_second: The same of the reference path: float32, contiguous, eager.
        ratio: The one by the other.
        timed_steps: How many steps of each path were timed.
        eager_steps_per_second: Steps of the fast path where it is not compiled; None where it is
            not in any case.
    """

    part: str
    batch_size: int
    length: int
    steps_per_second: float
    reference_steps_per_second: float
    ratio: float
    timed_steps: int
    eager_steps_per_second: float | None = None

    @classmethod
    def of(
        cls,
        part: str,
        batch_size: int,
        length: int,
        fast: Timing,
        reference: Timing,
        eager: Timing | None = None,
    ) -> Self:
        """Works the rates out.

        Args:
            part: Which network.
            batch_size: Segments a step, or dreams.
            length: Frames of a segment, or steps of a rollout.
            fast: Of a step of the fast path.
            reference: Of one of the reference path.
            eager: Of a step of the fast path, not compiled, where it is compiled.
        """
        return cls(
            part=part,
            batch_size=batch_size,
            length=length,
            steps_per_second=fast.per_second,
            reference_steps_per_second=reference.per_second,
            ratio=reference.median / fast.median,
            timed_steps=fast.calls,
            eager_steps_per_second=None if eager is None else eager.per_second,
        )


def time_training(path: DreamPath, plan: TrainingPlan, seconds: float) -> Iterator[TrainingSpeed]:
    """Times training steps of the denoiser, of the heads, and of the actor-critic, on noise.

    Args:
        path: How dreams are computed. Its world model stays as it is: copies learn.
        plan: How the networks are trained, as `check_plan` found it well.
        seconds: How long each of the three is timed, all paths together. What compiling takes
            comes on top.
    """
    stopwatch = Stopwatch.of(torch.device(path.device))
    for part, batch_size, length, steps in (*_world_model(path, plan), _actor_critic(path, plan)):
        fast, reference, *eager = alternate(steps, seconds, stopwatch)
        yield TrainingSpeed.of(part, batch_size, length, fast, reference, next(iter(eager), None))


def check_plan(architecture: WorldModelConfig, plan: TrainingPlan) -> None:
    """Checks that networks can be trained so, before anything is timed.

    Args:
        architecture: Of the world model.
        plan: How.

    Raises:
        ConfigError: The actor-critic does not fit the frames.
    """
    with skeleton():
        ActorCritic(plan.actor_critic, architecture.obs_shape, architecture.num_actions)


def make_trainer(path: DreamPath, config: TrainingConfig) -> WorldModelTrainer:
    """Returns a trainer of the world model, as `fit-model` and `train` make it.

    Args:
        path: How dreams are computed.
        config: How the world model is trained.
    """
    return WorldModelTrainer(
        WorldModel.load(path.folder),
        replace(config, compile=path.compile),
        torch.device(path.device),
    )


def make_reference_trainer(path: DreamPath, config: TrainingConfig) -> WorldModelTrainer:
    """Returns a trainer that computes the same in float32, contiguous and eager.

    Args:
        path: How dreams are computed.
        config: How the world model is trained.
    """
    return WorldModelTrainer(
        WorldModel.load(path.folder),
        replace(config, bf16=False, compile=False),
        torch.device(path.device),
        memory_format=torch.contiguous_format,
    )


class _Part(NamedTuple):
    """A network that trains: what a step of it is of, and that step by each path.

    The paths are the fast one, the reference, and where the fast one is compiled itself without.
    """

    name: str
    batch_size: int
    length: int
    steps: list[Act]


def _world_model(path: DreamPath, plan: TrainingPlan) -> Iterator[_Part]:
    config = plan.world_model
    architecture, _ = read_description(path.folder)
    frames = architecture.denoiser.context_length + config.predictions
    noise = partial(noise_segments, architecture, device=torch.device(path.device))
    trainers = [make_trainer(path, config), make_reference_trainer(path, config)]
    if path.compile:
        trainers.append(make_trainer(path.eager, config))

    batch = noise(config.batch_size, frames)
    steps: list[Act] = [partial(trainer.step, batch, None) for trainer in trainers]
    yield _Part("denoiser", config.batch_size, frames, steps)

    batch = noise(config.reward_end_batch_size, config.reward_end_length)
    steps = [partial(trainer.step, None, batch) for trainer in trainers]
    yield _Part("heads", config.reward_end_batch_size, config.reward_end_length, steps)


def _actor_critic(path: DreamPath, plan: TrainingPlan) -> _Part:
    config = plan.imagination
    architecture, _ = read_description(path.folder)
    network = ActorCritic(plan.actor_critic, architecture.obs_shape, architecture.num_actions)
    steps: list[Act] = []
    for each in (path, path.reference, *([path.eager] if path.compile else [])):
        learner = copy.deepcopy(network).to(path.device)
        dream = each.open(config.num_envs, horizon=config.rollout_length)
        steps.append(ActorCriticTrainer(learner, RolloutCollector(learner, dream), config).step)
    return _Part("actor-critic", config.num_envs, config.rollout_length, steps)
