from typing import Any

import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from dreamenv import Contexts, Dream
from dreamenv.errors import InputError
from dreamenv.models.actor_critic import ActorCritic, ActorCriticOutput
from dreamenv.models.frames import to_float
from dreamenv.models.lstm import LSTMState
from dreamenv.training.rollout import RolloutCollector

from .levels import (
    ACTOR_CRITIC,
    NUM_ACTIONS,
    SHAPE,
    AddingCritic,
    LevelWorld,
    actor_critic,
    windows,
)

ALL = windows(0, 20, 40, 60, 80)


def dream_of(
    world: LevelWorld, contexts: Contexts = ALL, num_envs: int = 1, **options: Any
) -> Dream:
    return Dream(world.eval(), contexts, num_envs, **options)


def run_over(network: ActorCritic, frames: Tensor) -> ActorCriticOutput:
    """What the actor-critic says after the frames, uint8 [N, L, C, H, W], one by one from zeros."""
    output: ActorCriticOutput = network(to_float(frames[:, 0]))
    for step in range(1, frames.shape[1]):
        output = network(to_float(frames[:, step]), output.state)
    return output


def memory_of(network: ActorCritic, frames: Tensor) -> Tensor:
    return torch.cat(list(run_over(network, frames).state), dim=1)


def remembered(collector: RolloutCollector) -> Tensor:
    memory = collector.state_dict()["memory"]
    return torch.cat([memory["h"], memory["c"]], dim=1)


# What it is run over.


def test_what_comes_out_has_the_documented_shapes_and_types() -> None:
    collector = RolloutCollector(actor_critic(), dream_of(LevelWorld(), num_envs=4))
    rollout = collector.collect(5)
    assert (rollout.logits.dtype, rollout.logits.shape) == (torch.float32, (4, 5, NUM_ACTIONS))
    for name in ("values", "rewards", "next_values"):
        tensor = getattr(rollout, name)
        assert (tensor.dtype, tensor.shape) == (torch.float32, (4, 5)), name
    for name in ("terminated", "truncated"):
        tensor = getattr(rollout, name)
        assert (tensor.dtype, tensor.shape) == (torch.bool, (4, 5)), name
    assert (rollout.actions.dtype, rollout.actions.shape) == (torch.int64, (4, 5))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_at_a_truncation_the_next_value_is_that_of_the_frame_that_was_cut(
    mode: AutoresetMode,
) -> None:
    # The context shows 0, 1, 2; the dream goes on with 3, 4, 5, 6, and is cut there.
    dream = dream_of(LevelWorld(), windows(0), horizon=4, autoreset=mode)
    collector = RolloutCollector(AddingCritic(), dream)
    rollout = collector.collect(6)
    assert rollout.truncated.tolist() == [[False, False, False, True, False, False]]
    assert not rollout.terminated.any()
    assert rollout.values.tolist() == [[3, 6, 10, 15, 3, 6]]
    assert rollout.next_values.tolist() == [[6, 10, 15, 21, 6, 10]]
    # The dream goes on in the next rollout, and so does what is remembered of it.
    rollout = collector.collect(3)
    assert rollout.truncated.tolist() == [[False, True, False]]
    assert rollout.values.tolist() == [[10, 15, 3]]
    assert rollout.next_values.tolist() == [[15, 21, 6]]


def test_so_it_is_where_the_rollout_ends_with_the_truncation() -> None:
    dream = dream_of(LevelWorld(), windows(0), horizon=4)
    collector = RolloutCollector(AddingCritic(), dream)
    assert collector.collect(4).next_values.tolist() == [[6, 10, 15, 21]]
    assert collector.collect(4).values.tolist() == [[3, 6, 10, 15]]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_dream_that_the_world_model_ends_begins_anew_as_well(mode: AutoresetMode) -> None:
    dream = dream_of(LevelWorld(end_at=4), windows(0), horizon=None, autoreset=mode)
    rollout = RolloutCollector(AddingCritic(), dream).collect(5)
    assert rollout.terminated.tolist() == [[False, True, False, True, False]]
    assert not rollout.truncated.any()
    assert rollout.values.tolist() == [[3, 6, 3, 6, 3]]
    assert rollout.next_values.tolist() == [[6, 10, 6, 10, 6]]


def test_every_dream_is_judged_by_its_own_past() -> None:
    dream = dream_of(LevelWorld(), num_envs=16, horizon=3)
    rollout = RolloutCollector(AddingCritic(), dream, seed=1).collect(9)
    firsts = ((rollout.values[:, ::3] - 3) / 3).long()
    assert set(firsts.flatten().tolist()) == {0, 20, 40, 60, 80}
    # Three frames of the context at each of which the level is higher by what it began with.
    expected = torch.stack([3 * firsts + 3, 4 * firsts + 6, 5 * firsts + 10], dim=2).flatten(1)
    assert torch.equal(rollout.values, expected.float())
    expected = torch.stack([4 * firsts + 6, 5 * firsts + 10, 6 * firsts + 15], dim=2).flatten(1)
    assert torch.equal(rollout.next_values, expected.float())


# What is remembered.


def test_at_a_restart_what_is_remembered_is_the_new_context_but_its_last_frame() -> None:
    network, dream = actor_critic(), dream_of(LevelWorld(), num_envs=6, horizon=4)
    collector = RolloutCollector(network, dream)
    assert torch.equal(remembered(collector), memory_of(network, dream.state.frames[:, :-1]))
    begun = dream.state.frames
    collector.collect(4)
    assert not torch.equal(dream.state.frames, begun)
    assert (dream.state.steps == 0).all()
    assert torch.equal(remembered(collector), memory_of(network, dream.state.frames[:, :-1]))


def test_dreams_that_go_on_remember_all_since_they_began() -> None:
    network, dream = actor_critic(), dream_of(LevelWorld(), num_envs=6, horizon=8)
    collector = RolloutCollector(network, dream)
    seen = list(dream.state.frames[:, :-1].unbind(dim=1))
    for _ in range(2):
        for frame in range(3):
            seen.append(dream.obs + frame)
        collector.collect(3)
        assert torch.equal(remembered(collector), memory_of(network, torch.stack(seen, dim=1)))


def test_what_is_remembered_of_a_context_is_that_of_the_actor_critic_as_it_is_now() -> None:
    network, dream = actor_critic(), dream_of(LevelWorld(), num_envs=6, horizon=2)
    collector = RolloutCollector(network, dream)
    collector.collect(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    collector.collect(2)
    assert torch.equal(remembered(collector), memory_of(network, dream.state.frames[:, :-1]))


# Where dreams begin.


def test_dreams_begin_at_all_contexts_about_equally_often() -> None:
    collector = RolloutCollector(AddingCritic(), dream_of(LevelWorld(), num_envs=100, horizon=1))
    collector.collect(1)
    firsts = torch.cat([collector.collect(1).values for _ in range(20)]) / 60
    per_context = torch.bincount(firsts.flatten().long(), minlength=5)
    # Each 400 times expected, with a standard deviation of 18.
    assert ((per_context > 320) & (per_context < 480)).all()


def test_a_dream_that_ends_twice_in_a_rollout_begins_at_the_same_context_twice() -> None:
    collector = RolloutCollector(AddingCritic(), dream_of(LevelWorld(), num_envs=32, horizon=1))
    values = collector.collect(4).values
    assert torch.equal(values[:, 1], values[:, 2])
    assert torch.equal(values[:, 1], values[:, 3])
    assert not torch.equal(collector.collect(4).values[:, 1], values[:, 1])


# What it does.


def test_actions_are_drawn_from_the_policy() -> None:
    network = AddingCritic()
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    with torch.no_grad():
        network.policy.bias.copy_(probabilities.log())
    collector = RolloutCollector(network, dream_of(LevelWorld(), num_envs=100))
    rollout = collector.collect(100)
    share = torch.bincount(rollout.actions.flatten(), minlength=3) / 10_000
    # Standard deviations are at most 0.005.
    assert (share - probabilities).abs().max() < 0.02
    assert torch.equal(rollout.rewards, (rollout.actions == 1).float())


def test_a_seed_gives_one_course_whatever_chance_there_is_elsewhere() -> None:
    rollouts = []
    for seed, other in ((3, 0), (3, 1), (4, 0)):
        network, world = actor_critic(), LevelWorld()
        torch.manual_seed(other)
        elsewhere = torch.get_rng_state()
        dream = dream_of(world, num_envs=8, horizon=3)
        collector = RolloutCollector(network, dream, seed)
        collector.collect(4)
        rollouts.append(collector.collect(4))
        assert torch.equal(torch.get_rng_state(), elsewhere)
    one, same, another = rollouts
    assert all(torch.equal(*pair) for pair in zip(one, same, strict=True))
    assert not torch.equal(one.actions, another.actions)
    assert not torch.equal(one.values, another.values)


# Gradients.


def gradients(network: ActorCritic, value: Tensor) -> list[Tensor]:
    """Those of a value, for all that it depends on but the policy."""
    parameters = [tensor for name, tensor in network.named_parameters() if "policy" not in name]
    return list(torch.autograd.grad(value.sum(), parameters, retain_graph=True))


def test_gradients_flow_as_far_back_as_the_rollout_or_the_context_begins() -> None:
    network, dream = actor_critic(), dream_of(LevelWorld(), num_envs=4, horizon=2)
    collector = RolloutCollector(network, dream)
    collector.collect(1)
    # Each dream is at its second frame, is cut at its third, and begins anew.
    before = network(to_float(dream.obs), LSTMState(**collector.state_dict()["memory"]))
    rollout = collector.collect(2)
    # It has gone on by one frame since.
    after = run_over(network, dream.state.frames - 1)
    for step, expected in enumerate((before, after)):
        ours = gradients(network, rollout.values[:, step])
        for one, other in zip(ours, gradients(network, expected.value), strict=True):
            torch.testing.assert_close(one, other)
    assert not rollout.next_values.requires_grad


# Bad input.


def test_an_actor_critic_of_other_frames_or_actions_is_refused() -> None:
    dream = dream_of(LevelWorld())
    for other in (
        ActorCritic(ACTOR_CRITIC, (1, 6, 4), NUM_ACTIONS),
        ActorCritic(ACTOR_CRITIC, SHAPE, NUM_ACTIONS + 1),
    ):
        with pytest.raises(InputError, match=r"^the actor-critic is of frames .* the dream of"):
            RolloutCollector(other, dream)


def test_a_dream_that_stacks_frames_is_refused() -> None:
    dream = dream_of(LevelWorld(), frame_stack=2)
    network = ActorCritic(ACTOR_CRITIC, (2, 4, 4), NUM_ACTIONS)
    with pytest.raises(InputError, match=r"^the dream stacks frames to \[2, 4, 4\]"):
        RolloutCollector(network, dream)
