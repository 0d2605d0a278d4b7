from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecTransposeImage

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError
from dreamenv.evaluation.real_scores import PlayConfig, play_games
from dreamenv.padding import PADDING_LEVEL
from dreamenv.real.policy import Actions, Flags, Frames, RandomPolicy, to_channels_first
from dreamenv.training.agents import ALGORITHMS
from dreamenv.training.policies import StackingPolicy
from dreamenv.training.real_games import RealGames
from dreamenv.training.real_sb3 import RealVecEnv
from dreamenv.training.sb3_agent import Imagination, Sb3Agent

from .climbing import climb

NewEnv = Callable[..., Any]


@pytest.fixture
def new_env() -> Iterator[NewEnv]:
    """Makes environments for SB3, whose games are closed at the end."""
    made: list[RealGames] = []

    def make(
        environment: EnvironmentSpec, num_envs: int = 3, frame_stack: int = 1, seed: int = 0
    ) -> RealVecEnv:
        made.append(RealGames(environment, num_envs, seed))
        return RealVecEnv(made[-1], frame_stack)

    yield make
    for games in made:
        games.close()


class Shown:
    """Keeps what it is shown, and does nothing."""

    def __init__(self) -> None:
        self.obs: list[Frames] = []

    def act(self, obs: Frames, starts: Flags) -> Actions:
        self.obs.append(obs)
        return np.ones(len(starts), np.int64)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state


def test_the_spaces_are_those_of_stacked_frames(catch: EnvironmentSpec, new_env: NewEnv) -> None:
    env = new_env(catch, 3, frame_stack=2)
    assert env.num_envs == 3
    assert env.observation_space == Box(0, 255, (16, 16, 6), np.uint8)
    assert env.action_space == Discrete(3)
    obs = env.reset()
    assert (obs.dtype, obs.shape) == (np.uint8, (3, 16, 16, 6))
    obs, rewards, dones, infos = env.step(np.array([0, 1, 2]))
    assert (obs.dtype, obs.shape) == (np.uint8, (3, 16, 16, 6))
    assert (rewards.dtype, rewards.shape) == (np.float32, (3,))
    assert (dones.dtype, dones.shape) == (np.bool_, (3,))
    assert len(infos) == 3


@pytest.mark.parametrize("way", [{"top": 4}, {"limit": 3}], ids=["end", "cut"])
def test_every_step_is_that_of_sb3s_own_env_but_for_the_size_of_rewards(
    new_env: NewEnv, way: dict[str, int]
) -> None:
    with climb(**way) as environment:
        make = partial(gymnasium.make, "Test/Climb-v0")
        one, other = new_env(environment), DummyVecEnv([make] * 3)
        np.testing.assert_array_equal(one.reset()[..., 0], other.reset())
        for _ in range(7):
            actions = np.array([0, 1, 2])
            obs, rewards, dones, infos = one.step(actions)
            expected = other.step(actions)
            np.testing.assert_array_equal(obs[..., 0], expected[0])
            np.testing.assert_array_equal(rewards, np.sign(expected[1]))
            np.testing.assert_array_equal(dones, expected[2])
            for info, wanted in zip(infos, expected[3], strict=True):
                assert info["TimeLimit.truncated"] == wanted["TimeLimit.truncated"]
                assert ("terminal_observation" in info) == ("terminal_observation" in wanted)
                if "terminal_observation" in info:
                    last = info["terminal_observation"][..., 0]
                    np.testing.assert_array_equal(last, wanted["terminal_observation"])


def test_frames_are_stacked_as_they_are_for_a_player(
    catch: EnvironmentSpec, new_env: NewEnv
) -> None:
    shown = Shown()
    policy = StackingPolicy(shown, 3)
    env = VecTransposeImage(new_env(catch, 4, frame_stack=3, seed=2))
    seen: list[Any] = [env.reset()]
    starts = np.ones(4, np.bool_)
    ended = 0
    with closing(RealGames(catch, 4, seed=2)) as games:
        games.restart()  # as the reset did
        for _ in range(25):
            actions = policy.act(to_channels_first(games.frames), starts)
            starts = games.step(actions).ended
            ended += starts.sum()
            seen.append(env.step(actions)[0])
    assert ended > 8
    for ours, expected in zip(seen, shown.obs, strict=False):
        np.testing.assert_array_equal(ours, expected)


def test_the_last_observation_of_an_episode_goes_on_with_its_stack(new_env: NewEnv) -> None:
    def levels(stack: Any) -> list[int]:
        return list(stack[0, 0])

    with climb(limit=3) as environment:
        env = new_env(environment, 1, frame_stack=3)
        kept = [env.reset(), *(env.step(np.array([1]))[0] for _ in range(2))]
        obs, _, _, infos = env.step(np.array([1]))
    grey = PADDING_LEVEL
    assert [levels(stack[0]) for stack in kept] == [[grey, grey, 1], [grey, 1, 2], [1, 2, 3]]
    assert levels(infos[0]["terminal_observation"]) == [2, 3, 4]
    assert levels(obs[0]) == [grey, grey, 1]


def test_a_seed_serves_one_reset(catch: EnvironmentSpec, new_env: NewEnv) -> None:
    env, other = new_env(catch, seed=5), new_env(catch, seed=6)
    env.seed(6)
    np.testing.assert_array_equal(env.reset(), other.stacks)
    np.testing.assert_array_equal(env.reset(), other.reset())


def test_attributes_and_methods_are_shared(catch: EnvironmentSpec, new_env: NewEnv) -> None:
    env = new_env(catch)
    assert env.get_attr("num_envs") == [3, 3, 3]
    assert env.get_attr("num_envs", [0]) == [3]
    assert env.env_method("get_images", indices=[1]) == [[None] * 3]
    env.set_attr("render_mode", None)
    with pytest.raises(InputError, match="all environments share render_mode"):
        env.set_attr("render_mode", None, indices=[1])
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False] * 3


def test_actions_that_are_none_are_refused(catch: EnvironmentSpec, new_env: NewEnv) -> None:
    with pytest.raises(InputError, match="they must be from 0 to 2"):
        new_env(catch).step(np.array([0, 1, 3]))


def test_sb3_monitors_its_episodes(new_env: NewEnv) -> None:
    with climb(top=4) as environment:
        env = VecMonitor(new_env(environment))
        env.reset()
        for _ in range(3):
            _, _, _, infos = env.step(np.array([0, 1, 2]))
    assert [(info["episode"]["r"], info["episode"]["l"]) for info in infos] == [
        (-3, 3),
        (0, 3),
        (3, 3),
    ]


def test_an_agent_learns_to_catch(catch: EnvironmentSpec) -> None:
    play = PlayConfig(episodes=200, num_envs=50)
    agent = Sb3Agent(ALGORITHMS["ppo"], Imagination(16, 16, 1), catch, torch.device("cpu"), 0)
    with closing(RealGames(catch, 16)) as games:
        agent.enter_games(games, 30)
        for _ in range(30):
            agent.step()
    random = play_games(catch, RandomPolicy(3), play, player="random").score
    learned = play_games(catch, agent.new_player(0), play, player="agent").score
    # Half of the games are cut before the ball has landed.
    assert random.high < 0 < 0.1 < learned.low
