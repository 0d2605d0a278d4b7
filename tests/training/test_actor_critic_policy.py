import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dreamenv.errors import ConfigError
from dreamenv.models.actor_critic import ActorCritic
from dreamenv.models.frames import to_float
from dreamenv.models.lstm import LSTMState
from dreamenv.real.policy import Policy
from dreamenv.training.actor_critic_policy import ActorCriticPolicy

from .levels import ACTOR_CRITIC, NUM_ACTIONS, SHAPE, actor_critic

PROBABILITIES = torch.tensor([0.1, 0.6, 0.3])


def some_frames(rows: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, *SHAPE), dtype=np.uint8)


def flags(*values: int) -> npt.NDArray[np.bool_]:
    return np.array(values, np.bool_)


def drawing_network() -> ActorCritic:
    """An actor-critic that plays with the same probabilities whatever it sees."""
    network = ActorCritic(ACTOR_CRITIC, SHAPE, NUM_ACTIONS)
    with torch.no_grad():
        network.policy.bias.copy_(PROBABILITIES.log())
    return network


def remembering_network() -> ActorCritic:
    """An actor-critic whose likeliest action depends on what it remembers."""
    network = actor_critic()
    with torch.no_grad():
        network.lstm.weight_hh.mul_(5)
    return network


def play(policy: Policy, rows: int, steps: int) -> npt.NDArray[np.int64]:
    """Plays one long episode of each game."""
    starts = np.zeros((steps, rows), np.bool_)
    starts[:1] = True
    frames = (some_frames(rows, seed) for seed in range(steps))
    actions = [policy.act(*each) for each in zip(frames, starts, strict=True)]
    return np.array(actions, np.int64).reshape(steps, rows)


# What it remembers.


@torch.no_grad()
def test_it_plays_by_all_that_it_saw_since_the_episode_started() -> None:
    network = remembering_network()
    policy = ActorCriticPolicy(network, sample=False)
    state, differs = network.initial_state(8), False
    starts = np.zeros(8, np.bool_)
    for step in range(12):
        frames = some_frames(8, step)
        starts[:] = step == 0
        starts[step % 8] = True
        zeros = network.initial_state(8)
        state = zeros.where(torch.tensor(starts), state)
        output = network(to_float(torch.tensor(frames)), state)
        without_memory = network(to_float(torch.tensor(frames))).logits.argmax(dim=1)
        state = output.state
        actions = policy.act(frames, starts)
        assert actions.dtype == np.int64
        np.testing.assert_array_equal(actions, output.logits.argmax(dim=1).numpy())
        differs |= bool((without_memory.numpy() != actions).any())
    assert differs


def test_a_game_that_starts_anew_leaves_the_memory_of_the_others_alone() -> None:
    network = remembering_network()
    memories = []
    for third_starts in (0, 1):
        policy = ActorCriticPolicy(network)
        policy.act(some_frames(3, 0), flags(1, 1, 1))
        policy.act(some_frames(3, 1), flags(0, 0, third_starts))
        memories.append(policy._memory)
    one, other = memories
    assert isinstance(one, LSTMState)
    assert isinstance(other, LSTMState)
    assert torch.equal(one.h[:2], other.h[:2])
    assert not torch.equal(one.h[2], other.h[2])


def test_what_is_remembered_takes_no_gradients_along() -> None:
    policy = ActorCriticPolicy(actor_critic())
    policy.act(some_frames(2), flags(1, 1))
    assert policy._memory is not None
    assert not policy._memory.h.requires_grad


def test_another_number_of_games_begins_with_no_memory() -> None:
    network = remembering_network()
    policy, fresh = (ActorCriticPolicy(network, sample=False) for _ in range(2))
    policy.act(some_frames(5), flags(1, 1, 1, 1, 1))
    frames = some_frames(3, seed=1)
    np.testing.assert_array_equal(
        policy.act(frames, flags(0, 0, 0)), fresh.act(frames, flags(1, 1, 1))
    )


def test_it_plays_as_the_actor_critic_has_become() -> None:
    network = drawing_network()
    policy = ActorCriticPolicy(network, sample=False)
    assert (policy.act(some_frames(4), flags(1, 1, 1, 1)) == 1).all()
    with torch.no_grad():
        network.policy.bias.copy_(torch.tensor([0.0, 0.0, 9.0]))
    assert (policy.act(some_frames(4), flags(0, 0, 0, 0)) == 2).all()


# Chance.


def test_its_actions_are_drawn_from_its_distribution() -> None:
    share = np.bincount(play(ActorCriticPolicy(drawing_network()), 100, 100).ravel()) / 10_000
    # Standard deviations are at most 0.005.
    np.testing.assert_allclose(share, PROBABILITIES, atol=0.02)


@pytest.mark.parametrize("sample", [True, False])
def test_random_actions_take_their_place_as_often_as_asked(sample: bool) -> None:
    policy = ActorCriticPolicy(drawing_network(), sample=sample, epsilon=0.3)
    share = np.bincount(play(policy, 100, 100).ravel(), minlength=3) / 10_000
    own = PROBABILITIES.numpy() if sample else np.array([0, 1, 0])
    np.testing.assert_allclose(share, 0.7 * own + 0.1, atol=0.02)


def test_random_actions_are_taken_in_each_game_by_itself() -> None:
    actions = play(ActorCriticPolicy(drawing_network(), sample=False, epsilon=0.5), 50, 20)
    others = (actions != 1).mean(axis=1)
    assert (others > 0).all()
    assert (others < 1).all()


@pytest.mark.parametrize("options", [{}, {"sample": False, "epsilon": 0.5}])
def test_a_seed_gives_one_course_and_chance_elsewhere_is_left_alone(
    options: dict[str, Any],
) -> None:
    network = drawing_network()
    before = torch.get_rng_state()
    one, same, other = (
        play(ActorCriticPolicy(network, seed=seed, **options), 8, 10) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_without_chance_of_its_own_a_game_is_played_by_itself() -> None:
    network = remembering_network()
    together = play(ActorCriticPolicy(network, sample=False), 6, 10)
    alone = ActorCriticPolicy(network, sample=False)
    frames = [some_frames(6, seed)[2:3] for seed in range(10)]
    actions = [alone.act(each, flags(step == 0))[0] for step, each in enumerate(frames)]
    assert actions == together[:, 2].tolist()


# Going on.


@pytest.mark.parametrize("steps_before", [0, 7])
def test_from_its_state_it_plays_on_as_it_did(steps_before: int) -> None:
    def some_policy(seed: int) -> ActorCriticPolicy:
        network = remembering_network()
        with torch.no_grad():
            network.policy.weight.mul_(0.3)  # so that chance has its say
        return ActorCriticPolicy(network, epsilon=0.2, seed=seed)

    policy, other = some_policy(1), some_policy(2)
    play(policy, 6, steps_before)
    play(other, 3, 5)
    written = io.BytesIO()
    torch.save(policy.state_dict(), written)
    frames = [some_frames(6, seed) for seed in range(50, 70)]
    going_on = [flags(0, 0, 0, step == 4, 0, 0) for step in range(20)]
    expected = [policy.act(*each) for each in zip(frames, going_on, strict=True)]
    written.seek(0)
    other.load_state_dict(torch.load(written, weights_only=True))
    got = [other.act(*each) for each in zip(frames, going_on, strict=True)]
    np.testing.assert_array_equal(got, expected)


def test_its_state_is_not_changed_by_playing_on() -> None:
    policy = ActorCriticPolicy(remembering_network())
    play(policy, 2, 3)
    state = policy.state_dict()
    first = play(policy, 2, 10)
    policy.load_state_dict(state)
    np.testing.assert_array_equal(play(policy, 2, 10), first)


# Bad input.


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, float("nan")])
def test_an_epsilon_that_is_no_probability_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match=r"^epsilon is .*; it must be in \[0, 1\]$"):
        ActorCriticPolicy(drawing_network(), epsilon=epsilon)


def test_frames_that_cannot_be_written_to_are_played_and_left_as_they_are(
    recwarn: pytest.WarningsRecorder,
) -> None:
    frames = some_frames(2)
    kept = frames.copy()
    frames.setflags(write=False)
    ActorCriticPolicy(actor_critic()).act(frames, flags(1, 1))
    assert not recwarn.list
    np.testing.assert_array_equal(frames, kept)
