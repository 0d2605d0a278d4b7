from collections.abc import Iterator
from contextlib import closing

import pytest
import torch
from torch import Tensor

from dreamenv.environment import EnvironmentSpec
from dreamenv.models.actor_critic import ActorCritic, ActorCriticOutput
from dreamenv.models.frames import to_float
from dreamenv.real.policy import to_channels_first
from dreamenv.training.actor_critic import (
    ActorCriticStatistics,
    ActorCriticTrainer,
    ActorCriticTrainingConfig,
)
from dreamenv.training.optimisation import OptimiserConfig
from dreamenv.training.real_games import Frames, RealGames
from dreamenv.training.real_rollout import RealRolloutCollector
from dreamenv.training.rollout import Rollout

from .climbing import climb
from .levels import ACTOR_CRITIC, AddingCritic, actor_critic


@pytest.fixture
def games(catch: EnvironmentSpec) -> Iterator[RealGames]:
    """Four games of Catch, which end at different steps."""
    with closing(RealGames(catch, 4, seed=1)) as games:
        yield games


def player(environment: EnvironmentSpec) -> ActorCritic:
    """Makes an actor-critic with preferences, expectations and a memory that matters."""
    torch.manual_seed(0)
    network = ActorCritic(ACTOR_CRITIC, environment.obs_shape, environment.num_actions)
    torch.nn.init.normal_(network.policy.weight)
    torch.nn.init.normal_(network.value.weight)
    with torch.no_grad():
        network.lstm.weight_hh.mul_(5)
    return network


def assert_same(one: Rollout, other: Rollout) -> None:
    for name, tensor in one._asdict().items():
        assert torch.equal(tensor, getattr(other, name)), name


# What it is run over.


WAYS = pytest.mark.parametrize("way", [{"top": 4}, {"limit": 3}], ids=["end", "cut"])


@WAYS
def test_where_an_episode_ends_the_next_value_is_that_of_its_last_frame(
    way: dict[str, int],
) -> None:
    # The levels are 1, 2, 3 and 4; the value is the sum of those that are remembered.
    with climb(**way) as environment, closing(RealGames(environment, 2)) as games:
        collector = RealRolloutCollector(AddingCritic(), games)
        rollout = collector.collect(5)
        ended, none = [[False, False, True, False, False]] * 2, [[False] * 5] * 2
        assert rollout.terminated.tolist() == (ended if "top" in way else none)
        assert rollout.truncated.tolist() == (ended if "limit" in way else none)
        assert rollout.values.tolist() == [[1, 3, 6, 1, 3]] * 2
        assert rollout.next_values.tolist() == [[3, 6, 10, 3, 6]] * 2
        # The episode goes on in the next rollout, and so does what is remembered of it.
        assert collector.collect(1).values.tolist() == [[6]] * 2
        # It ended with the rollout: nothing is remembered in the next.
        assert collector.collect(2).values.tolist() == [[1, 3]] * 2


def learned_from(way: dict[str, int]) -> ActorCriticStatistics:
    """Learns from three steps without rewards, with γ 1/2 and λ 0."""
    config = ActorCriticTrainingConfig(num_envs=1, rollout_length=3, gamma=0.5, lambda_=0.0)
    network = AddingCritic()
    with torch.no_grad():
        network.policy.bias.copy_(torch.tensor([-1e4, 1e4, -1e4]))  # always action 1
    with climb(**way) as environment, closing(RealGames(environment, 1)) as games:
        collector = RealRolloutCollector(network, games)
        return ActorCriticTrainer(network, collector, config).step()


@pytest.mark.parametrize(
    ("way", "last"), [({"limit": 3}, 10 / 2), ({"top": 4}, 0)], ids=["cut", "end"]
)
def test_a_cut_is_bootstrapped_and_an_end_is_not(way: dict[str, int], last: float) -> None:
    # One-step returns are half the next values, and the values are 1, 3 and 6.
    statistics = learned_from(way)
    assert float(statistics.lambda_return) == pytest.approx((3 / 2 + 6 / 2 + last) / 3)
    errors = (1 - 3 / 2) ** 2 + (3 - 6 / 2) ** 2 + (6 - last) ** 2
    assert float(statistics.value) == pytest.approx(errors / 3)


def test_every_game_is_judged_by_its_own_episode(catch: EnvironmentSpec, games: RealGames) -> None:
    network = player(catch)
    collector = RealRolloutCollector(network, games)
    rollouts = [collector.collect(length) for length in (7, 1, 16)]
    ends = torch.cat([each.terminated | each.truncated for each in rollouts], dim=1)
    assert set(ends.sum(dim=0).tolist()) > {0, 1}  # in some steps one ends alone
    for slot in range(4):
        logits, values, next_values = by_hand(network, catch, slot, rollouts)
        for name, expected in (
            ("logits", logits),
            ("values", values),
            ("next_values", next_values),
        ):
            ours = torch.cat([getattr(each, name)[slot] for each in rollouts])
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def by_hand(
    network: ActorCritic, environment: EnvironmentSpec, slot: int, rollouts: list[Rollout]
) -> tuple[Tensor, Tensor, Tensor]:
    """What the actor-critic says of one game alone, one frame at a time."""
    actions = torch.cat([each.actions for each in rollouts], dim=1)
    said: list[ActorCriticOutput] = []
    reached: list[Tensor] = []
    memory = None
    with closing(RealGames(environment, 4, seed=1)) as games, torch.no_grad():
        for step in range(actions.shape[1]):
            said.append(network(frame_of(games.frames, slot), memory))
            outcome = games.step(actions[:, step].numpy())
            reached.append(network(frame_of(outcome.reached, slot), said[-1].state).value)
            memory = None if outcome.ended[slot] else said[-1].state
    logits = torch.cat([each.logits for each in said])
    return logits, torch.cat([each.value for each in said]), torch.cat(reached)


def frame_of(frames: Frames, slot: int) -> Tensor:
    return to_float(torch.from_numpy(to_channels_first(frames[slot : slot + 1])))


def test_what_comes_out_has_the_documented_shapes_and_types(
    catch: EnvironmentSpec, games: RealGames
) -> None:
    collector = RealRolloutCollector(player(catch), games)
    assert collector.num_envs == 4
    rollout = collector.collect(12)
    assert (rollout.logits.dtype, rollout.logits.shape) == (torch.float32, (4, 12, 3))
    for name in ("values", "rewards", "next_values"):
        tensor = getattr(rollout, name)
        assert (tensor.dtype, tensor.shape) == (torch.float32, (4, 12)), name
    for name in ("terminated", "truncated"):
        tensor = getattr(rollout, name)
        assert (tensor.dtype, tensor.shape) == (torch.bool, (4, 12)), name
    assert (rollout.actions.dtype, rollout.actions.shape) == (torch.int64, (4, 12))
    assert not rollout.next_values.requires_grad
    assert games.steps == 48


def test_gradients_flow_through_the_memory_of_an_episode_and_no_further() -> None:
    with climb(limit=2) as environment, closing(RealGames(environment, 1)) as games:
        network = actor_critic()
        rollout = RealRolloutCollector(network, games).collect(4)
        # The second episode says nothing of the first: both give the same gradients.
        weight = network.lstm.weight_hh
        grads = [
            torch.autograd.grad(rollout.values[0, step], weight, retain_graph=True)[0]
            for step in range(4)
        ]
    assert not grads[0].any()
    assert not grads[2].any()
    assert grads[1].any()
    torch.testing.assert_close(grads[3], grads[1])


# Chance, and going on.


def test_a_seed_gives_one_course_and_another_seed_another(catch: EnvironmentSpec) -> None:
    rollouts = []
    for seed in (3, 3, 4):
        with closing(RealGames(catch, 4)) as games:
            rollouts.append(RealRolloutCollector(player(catch), games, seed).collect(12))
    one, same, other = rollouts
    assert_same(one, same)
    assert not torch.equal(one.actions, other.actions)


def test_gone_on_with_it_is_the_same_to_the_bit(catch: EnvironmentSpec, games: RealGames) -> None:
    network = player(catch)
    collector = RealRolloutCollector(network, games, seed=3)
    collector.collect(7)
    kept = {"games": games.state_dict(), "collector": collector.state_dict()}
    expected = collector.collect(9)
    with closing(RealGames(catch, 4)) as others:
        again = RealRolloutCollector(network, others)
        again.collect(3)
        others.load_state_dict(kept["games"])
        again.load_state_dict(kept["collector"])
        assert_same(again.collect(9), expected)


# Learning.


def test_the_action_that_is_paid_is_learned() -> None:
    config = ActorCriticTrainingConfig(
        steps=60,
        num_envs=8,
        rollout_length=5,
        entropy_weight=0.01,
        optimiser=OptimiserConfig(
            learning_rate=1e-2, weight_decay=0.0, max_grad_norm=100.0, warmup_steps=5
        ),
    )
    torch.manual_seed(0)
    network = ActorCritic(ACTOR_CRITIC, (1, 4, 4), 3)
    with climb(limit=5) as environment, closing(RealGames(environment, 8)) as games:
        trainer = ActorCriticTrainer(network, RealRolloutCollector(network, games), config)
        rewards = torch.stack([trainer.step().reward for _ in range(60)])
    assert rewards[:5].mean() < 0.4
    assert rewards[-10:].mean() > 0.9
