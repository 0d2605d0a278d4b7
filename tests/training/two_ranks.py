"""What the tests of several ranks run: `torchrun ... -m training.two_ranks JOB FOLDER`."""

import copy
import itertools
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium
import torch
from torch import Tensor

from dreamenv import Contexts, Dream, WorldModel
from dreamenv.cli.main import main
from dreamenv.cli.train import Options
from dreamenv.data import Replay, Segments
from dreamenv.errors import InputError
from dreamenv.models.actor_critic import ActorCritic, ActorCriticConfig
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.world_model import WorldModelConfig
from dreamenv.training.actor_critic import ActorCriticTrainer, ActorCriticTrainingConfig
from dreamenv.training.batches import Batches
from dreamenv.training.loop_config import ScheduleConfig, TrainConfig
from dreamenv.training.optimisation import OptimiserConfig
from dreamenv.training.ranks import Ranks
from dreamenv.training.rollout import RolloutCollector
from dreamenv.training.training_config import TrainingConfig
from dreamenv.training.world_model import Losses, WorldModelTrainer

from .conftest import SIDE, Catch

CPU = torch.device("cpu")
FIT_STEPS = 6
AGENT_STEPS = 4
# A step is in proportion to the gradient, so that one which is wrong by a factor shows.
LINEAR = OptimiserConfig(learning_rate=1e-2, epsilon=1.0, warmup_steps=0)
LEVELS: dict[str, Any] = {"channels": (8, 8), "depths": (1, 1), "attention": (False, False)}
FIT = TrainingConfig(
    steps=FIT_STEPS,
    batch_size=4,
    reward_end_batch_size=6,
    predictions=2,
    single_steps=2,
    crop=8,
    reward_end_length=8,
    reward_end_every=2,
    denoiser_optimiser=LINEAR,
    reward_end_optimiser=LINEAR,
    ema_decay=0.9,
    bf16=False,
)
ACT = ActorCriticTrainingConfig(steps=AGENT_STEPS, num_envs=6, rollout_length=5, optimiser=LINEAR)
DENOISER = DenoiserConfig(context_length=2, cond_channels=16, start_share=0.3, **LEVELS)
REWARD_END = RewardEndConfig(cond_channels=8, lstm_dim=16, **LEVELS)
ACTOR_CRITIC = ActorCriticConfig(channels=(8, 8), downsample=(True, True), lstm_dim=16)
RUN = TrainConfig(
    env="Test/Catch-v0",
    size=(SIDE,),
    contexts=4,
    checkpoint_every=2,
    device="cpu",
    schedule=ScheduleConfig(
        first_steps=60,
        first_steps_limit=80,
        first_rewards=1,
        epoch_steps=20,
        steps=80,
        epochs_after=0,
        world_model_steps=2,
        agent_steps=2,
        test_every=1,
        test_episodes=2,
        final_episodes=3,
    ),
    world_model=replace(FIT, steps=5),
    imagination=replace(ACT, steps=3),
    denoiser=DENOISER,
    reward_end=REWARD_END,
    actor_critic=ACTOR_CRITIC,
)


def new_model() -> WorldModel:
    torch.manual_seed(0)
    config = WorldModelConfig(3, (3, SIDE, SIDE), denoiser=DENOISER, reward_end=REWARD_END)
    model = WorldModel(config)
    # It begins with zeros, behind which nothing would learn at first.
    torch.nn.init.normal_(model.denoiser.network.conv_out.weight, std=0.1)
    return model


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def fit(ranks: Ranks, replay: Replay) -> dict[str, Any]:
    """Fits a world model for a few steps, and returns the losses and the weights."""
    model = new_model()
    batches = Batches(replay, model, FIT, CPU, seed=3)
    trainer = WorldModelTrainer(model, FIT, CPU, seed=3, ranks=ranks)
    losses = [trainer.step(*batches.draw()) for _ in range(FIT_STEPS)]
    return {
        "losses": torch.stack([torch.stack(list[Tensor](each)) for each in losses]),
        "weights": weights(model),
        "fitted": weights(trainer.fitted),
    }


def new_agent(ranks: Ranks, replay: Replay) -> ActorCriticTrainer:
    world = new_model().eval()
    torch.manual_seed(1)
    network = ActorCritic(ACTOR_CRITIC, world.config.obs_shape, world.config.num_actions)
    for layer in (network.policy, network.value):
        torch.nn.init.normal_(layer.weight)
    contexts = Contexts.draw(replay, 2, 8, seed=1)
    dream = Dream(world, contexts, ACT.num_envs // ranks.count, horizon=4, share=ranks.share)
    return ActorCriticTrainer(network, RolloutCollector(network, dream, 5, ranks), ACT, ranks)


def act(trainer: ActorCriticTrainer, steps: int) -> Tensor:
    """Trains for so many steps, and returns their statistics."""
    statistics = [trainer.step() for _ in range(steps)]
    return torch.stack([torch.stack(list[Tensor](each)) for each in statistics])


def train_agent(ranks: Ranks, replay: Replay) -> dict[str, Any]:
    """Trains an actor-critic for a few steps, and returns what it was like, in two halves."""
    trainer, half = new_agent(ranks, replay), AGENT_STEPS // 2
    first = act(trainer, half)
    middle = copy.deepcopy(trainer.state_dict())
    return {
        "first": first,
        "middle": middle,
        "second": act(trainer, half),
        "end": trainer.state_dict(),
    }


def learn(folder: Path) -> None:
    """Learns from the replay of the folder, and leaves there what each rank has come to."""
    ranks = Ranks.of_environment()
    ranks.join(CPU)
    replay = Replay.open(folder)
    results = {"fit": fit(ranks, replay), "agent": train_agent(ranks, replay)}
    ranks.leave()
    threads = [(task / "comm").read_text() for task in Path("/proc/self/task").glob("*")]
    torch.save(results | {"threads": threads}, folder.parent / f"rank-{ranks.rank}.pt")


def run(folder: Path, *arguments: str) -> None:
    """Goes through a whole run as the command does, with its exit codes and its lines."""
    gymnasium.register("Test/Catch-v0", Catch, max_episode_steps=10)
    options = Options(replace(RUN, out=str(folder)), resume="--resume" in arguments)
    with patch("dreamenv.cli.train.parse", return_value=options):
        main(["train", *arguments])


def resume(folder: Path) -> None:
    """Goes on with a run."""
    run(folder, "--resume")


def stop(folder: Path) -> None:
    """Is asked to stop in the middle of fitting, as all ranks are when torchrun is."""
    at_step(3, lambda: signal.raise_signal(signal.SIGTERM))
    run(folder)


def fail(folder: Path) -> None:
    """Fails in the middle of fitting, on the second rank alone."""
    if not Ranks.of_environment().is_first:
        at_step(3, fail_here)
    run(folder)


def fail_here() -> None:
    raise InputError("the second rank is unwell")


def at_step(number: int, happens: Callable[[], None]) -> None:
    """Lets something happen before the step of that number of the world model."""
    original, numbers = WorldModelTrainer.step, itertools.count(1)

    def step(self: WorldModelTrainer, one: Segments, other: Segments | None) -> Losses:
        if next(numbers) == number:
            happens()
        return original(self, one, other)

    patch.object(WorldModelTrainer, "step", step).start()


if __name__ == "__main__":
    jobs = {job.__name__: job for job in (learn, run, resume, stop, fail)}
    jobs[sys.argv[1]](Path(sys.argv[2]))
