from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamenv import Contexts, Dream, WorldModel
from dreamenv.data import Replay
from dreamenv.errors import ConfigError, InputError
from dreamenv.models.actor_critic import ActorCritic
from dreamenv.training.actor_critic import (
    ActorCriticStatistics,
    ActorCriticTrainer,
    ActorCriticTrainingConfig,
)
from dreamenv.training.checkpoint import load_checkpoint, save_checkpoint
from dreamenv.training.optimisation import OptimiserConfig
from dreamenv.training.rollout import RolloutCollector

from .levels import ACTOR_CRITIC, NUM_ACTIONS, SHAPE, AddingCritic, LevelWorld, windows

TinyModel = Callable[..., WorldModel]

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
CONFIG = ActorCriticTrainingConfig(
    steps=60,
    num_envs=16,
    rollout_length=5,
    entropy_weight=0.1,
    optimiser=OptimiserConfig(
        learning_rate=1e-2, weight_decay=0.0, max_grad_norm=100.0, warmup_steps=5
    ),
)


def trainer_of(
    world: WorldModel,
    contexts: Contexts,
    config: ActorCriticTrainingConfig = CONFIG,
    seed: int = 0,
    *,
    network: ActorCritic | None = None,
    horizon: int = 5,
) -> ActorCriticTrainer:
    """Makes a trainer, of a fresh actor-critic if of no other."""
    if network is None:
        torch.manual_seed(seed)
        network = ActorCritic(ACTOR_CRITIC, world.config.obs_shape, world.config.num_actions)
    dream = Dream(world.eval(), contexts, config.num_envs, horizon=horizon)
    collector = RolloutCollector(network.to(dream.device), dream, seed)
    return ActorCriticTrainer(network, collector, config)


def weights(trainer: ActorCriticTrainer) -> dict[str, Tensor]:
    network: dict[str, Tensor] = trainer.state_dict()["network"]
    return {name: tensor.clone() for name, tensor in network.items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


# The returns.


def returns_by_hand(
    rewards: list[float], ends: list[int], cuts: list[int], next_values: list[float]
) -> list[float]:
    """λ-returns with γ 1/2 and λ 1/2, backwards."""
    returns: list[float] = []
    for reward, end, cut, value in zip(
        reversed(rewards), reversed(ends), reversed(cuts), reversed(next_values), strict=True
    ):
        ahead = value if cut or not returns else (value + returns[0]) / 2
        returns.insert(0, reward + (0 if end else ahead / 2))
    return returns


def step_of_one_dream(world: WorldModel, length: int, horizon: int) -> ActorCriticStatistics:
    """Learns from one rollout, with γ 1/2 and λ 1/2, of a dream that begins with 0, 1, 2."""
    config = replace(CONFIG, num_envs=1, rollout_length=length, gamma=0.5, lambda_=0.5)
    trainer = trainer_of(world, windows(0), config, network=AddingCritic(), horizon=horizon)
    return trainer.step()


def assert_returns(
    statistics: ActorCriticStatistics, values: list[float], returns: list[float]
) -> None:
    """Whether these are the returns that the value was measured by."""
    expected, returned = torch.tensor(values), torch.tensor(returns)
    torch.testing.assert_close(statistics.lambda_return, returned.mean())
    torch.testing.assert_close(statistics.value, (expected - returned).square().mean())


def test_a_truncation_bootstraps_with_the_value_of_the_frame_that_was_cut() -> None:
    # It is cut at level 6, where the sum of what was seen is 21; the next dream begins with 3.
    statistics = step_of_one_dream(LevelWorld(paid=-1), length=6, horizon=4)
    cuts, nothing = [0, 0, 0, 1, 0, 0], [0] * 6
    returns = returns_by_hand([0] * 6, nothing, cuts, [6, 10, 15, 21, 6, 10])
    assert returns[3] == 21 / 2
    assert_returns(statistics, [3, 6, 10, 15, 3, 6], returns)


def test_an_end_does_not_bootstrap() -> None:
    statistics = step_of_one_dream(LevelWorld(end_at=6, paid=-1), length=6, horizon=50)
    ends, nothing = [0, 0, 0, 1, 0, 0], [0] * 6
    returns = returns_by_hand([0] * 6, ends, nothing, [6, 10, 15, 21, 6, 10])
    assert returns[3] == 0
    assert_returns(statistics, [3, 6, 10, 15, 3, 6], returns)


def test_an_end_at_the_horizon_is_an_end() -> None:
    statistics = step_of_one_dream(LevelWorld(end_at=6, paid=-1), length=4, horizon=4)
    returns = returns_by_hand([0] * 4, [0, 0, 0, 1], [0, 0, 0, 1], [6, 10, 15, 21])
    assert returns[3] == 0
    assert_returns(statistics, [3, 6, 10, 15], returns)


def test_the_last_step_bootstraps_with_the_value_of_the_frame_it_reached() -> None:
    statistics = step_of_one_dream(LevelWorld(paid=-1), length=2, horizon=50)
    returns = returns_by_hand([0] * 2, [0] * 2, [0] * 2, [6, 10])
    assert returns[1] == 10 / 2
    assert_returns(statistics, [3, 6], returns)


# What learns.


def test_the_policy_learns_and_the_world_model_does_not(
    played: Replay, tiny_model: TinyModel
) -> None:
    world = tiny_model("change")
    before = {name: tensor.clone() for name, tensor in world.state_dict().items()}
    trainer = trainer_of(world, Contexts.draw(played, 2, 8))
    first = weights(trainer)
    for _ in range(3):
        trainer.step()
    assert trainer.step_count == 3
    assert_same(world.state_dict(), before)
    assert all(parameter.grad is None for parameter in world.parameters())
    moved = {
        name for name, tensor in weights(trainer).items() if not torch.equal(tensor, first[name])
    }
    assert moved == first.keys()


def test_the_action_that_is_paid_is_learned() -> None:
    trainer = trainer_of(LevelWorld(paid=1), windows(0, 20, 40))
    statistics = [trainer.step() for _ in range(60)]
    chances = [statistics[0].reward > 0.2, statistics[0].reward < 0.5]
    assert all(chances)
    assert torch.stack([each.reward for each in statistics[-10:]]).mean() > 0.9
    assert statistics[-1].entropy < 0.2 < statistics[0].entropy


def test_nothing_is_learned_where_each_is_paid_for_what_another_did() -> None:
    trainer = trainer_of(LevelWorld(paid=1, shuffled=True), windows(0, 20, 40))
    statistics = [trainer.step() for _ in range(60)]
    assert torch.stack([each.reward for each in statistics[-10:]]).mean() < 0.6


def test_what_only_the_context_showed_is_learned_from_what_is_remembered_of_it() -> None:
    # Its first frame says which action is paid, and leaves no trace in the frames that are left.
    contexts = windows(0, 200)
    contexts.obs[:, 1:] = 128
    config = replace(
        CONFIG,
        num_envs=32,
        gamma=0.0,
        entropy_weight=0.01,
        optimiser=replace(CONFIG.optimiser, learning_rate=3e-2),
    )
    trainer = trainer_of(LevelWorld(paid=None), contexts, config, horizon=3)
    rewards = torch.stack([trainer.step().reward for _ in range(150)])
    assert rewards[:5].mean() < 0.5
    assert rewards[-10:].mean() > 0.9


# Chance, and going on.


def course(trainer: ActorCriticTrainer, steps: int) -> list[list[float]]:
    return [[float(number) for number in trainer.step()] for _ in range(steps)]


def test_gone_on_with_from_a_checkpoint_it_is_the_same_to_the_bit(
    played: Replay, tiny_model: TinyModel, tmp_path: Path
) -> None:
    # Dreams of 3 steps and rollouts of 5: the checkpoint is taken in the middle of dreams.
    world, contexts = tiny_model("change"), Contexts.draw(played, 3, 8)
    config = replace(CONFIG, optimiser=replace(CONFIG.optimiser, schedule="cosine"))
    trainer = trainer_of(world, contexts, config, seed=4, horizon=3)
    course(trainer, 3)
    path = tmp_path / "trainer.pt"
    save_checkpoint(path, trainer.state_dict())
    expected = course(trainer, 4)

    again = trainer_of(world, contexts, config, seed=9, horizon=3)
    course(again, 1)
    state = load_checkpoint(path)
    assert state is not None
    again.load_state_dict(state)
    assert again.step_count == 3
    assert course(again, 4) == expected
    assert again.step_count == 7
    assert_same(weights(again), weights(trainer))


def test_a_seed_gives_one_course_and_another_seed_another(
    played: Replay, tiny_model: TinyModel
) -> None:
    world, contexts = tiny_model("change"), Contexts.draw(played, 2, 8)

    def course_of(seed: int) -> list[list[float]]:
        torch.manual_seed(0)
        network = ActorCritic(ACTOR_CRITIC, world.config.obs_shape, NUM_ACTIONS)
        trainer = trainer_of(world, contexts, seed=seed, network=network)
        torch.manual_seed(seed + 10)  # chance elsewhere does not matter
        return course(trainer, 3)

    assert course_of(1) == course_of(1)
    assert course_of(1) != course_of(2)


# Waiting.


def test_no_step_waits_for_the_device(
    played: Replay, tiny_model: TinyModel, no_waiting: Callable[[], AbstractContextManager[object]]
) -> None:
    trainer = trainer_of(tiny_model("change"), Contexts.draw(played, 3, 8), horizon=3)
    for _ in range(2):
        with no_waiting():
            trainer.step()


@NEEDS_CUDA
def test_no_step_waits_for_a_gpu(played: Replay, tiny_model: TinyModel) -> None:
    trainer = trainer_of(tiny_model("change").cuda(), Contexts.draw(played, 3, 8), horizon=3)
    # Libraries set themselves up in the first steps.
    for _ in range(2):
        trainer.step()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(2):
            trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Settings.


def test_the_settings_are_the_published_ones_if_no_others_are_given() -> None:
    config = ActorCriticTrainingConfig()
    assert (config.steps, config.num_envs, config.rollout_length) == (5_000, 32, 15)
    assert (config.gamma, config.lambda_) == (0.985, 0.95)
    assert (config.entropy_weight, config.value_weight) == (0.001, 1.0)
    assert config.optimiser == OptimiserConfig(
        learning_rate=1e-4, epsilon=1e-8, weight_decay=0.0, max_grad_norm=100.0, warmup_steps=100
    )
    assert ActorCriticTrainingConfig.from_dict(config.to_dict(), "test") == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("num_envs", 0),
        ("rollout_length", 0),
        ("gamma", 1.01),
        ("gamma", -0.1),
        ("lambda_", 1.01),
        ("lambda_", -0.1),
        ("entropy_weight", -0.001),
        ("value_weight", -1.0),
    ],
)
def test_settings_that_cannot_work_are_refused_when_they_are_made(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is .*; it must be") as raised:
        replace(CONFIG, **{name: value})
    assert "\n" not in str(raised.value)


def test_a_dream_of_another_number_is_refused() -> None:
    dream = Dream(LevelWorld().eval(), windows(0), 4)
    network = ActorCritic(ACTOR_CRITIC, SHAPE, NUM_ACTIONS)
    with pytest.raises(InputError, match=r"^num_envs is 16, and rollouts are of 4; make them"):
        ActorCriticTrainer(network, RolloutCollector(network, dream), CONFIG)
