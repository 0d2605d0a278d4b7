import warnings

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env

from dreamenv.errors import InputError
from dreamenv.real import RealEnv, describe, make_single


def _play_until_a_life_is_lost(env: RealEnv) -> np.ndarray:
    for step in range(500):
        obs, _, terminated, _, _ = env.step(step % 4)
        if terminated:
            return obs
    raise AssertionError("no life was lost")


@pytest.fixture
def breakout() -> RealEnv:
    return make_single("ALE/Breakout-v5", training=True)


@pytest.mark.parametrize("env_id", ["ALE/Breakout-v5", "CartPole-v1"])
@pytest.mark.parametrize("training", [True, False])
def test_gymnasium_finds_nothing_to_complain_of(env_id: str, training: bool) -> None:
    env = make_single(env_id, training=training)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Rendering is checked below: Gymnasium's check needs an id to make the env again.
        check_env(env, skip_render_check=True)


def test_the_spaces_are_those_of_the_specification() -> None:
    env = make_single(describe("ALE/Breakout-v5", (48, 80)), training=True)
    assert env.observation_space == Box(0, 255, (48, 80, 3), np.uint8)
    assert env.action_space == Discrete(4)
    assert env.environment.obs_shape == (3, 48, 80)


def test_rendering_gives_the_frame_that_the_agent_sees(breakout: RealEnv) -> None:
    obs, _ = breakout.reset(seed=0)
    np.testing.assert_array_equal(breakout.render(), obs)
    obs, *_ = breakout.step(1)
    np.testing.assert_array_equal(breakout.render(), obs)
    assert breakout.metadata["render_fps"] == 15


def test_the_same_seed_and_actions_give_the_same_game(breakout: RealEnv) -> None:
    first = [breakout.reset(seed=7)[0], *(breakout.step(action)[0] for action in [1, 2, 3, 2])]
    again = [breakout.reset(seed=7)[0], *(breakout.step(action)[0] for action in [1, 2, 3, 2])]
    np.testing.assert_array_equal(first, again)


def test_after_a_lost_life_the_game_goes_on_from_the_same_frame(breakout: RealEnv) -> None:
    breakout.reset(seed=0)
    last = _play_until_a_life_is_lost(breakout)
    obs, info = breakout.reset()
    np.testing.assert_array_equal(obs, last)
    assert info["lives"] == 4
    assert not info["game_over"]


def test_a_reset_in_the_midst_of_an_episode_starts_a_new_game(breakout: RealEnv) -> None:
    breakout.reset(seed=0)
    _play_until_a_life_is_lost(breakout)
    breakout.reset()
    breakout.step(0)
    assert breakout.reset()[1]["lives"] == 5


def test_a_seed_always_starts_a_new_game(breakout: RealEnv) -> None:
    first, _ = breakout.reset(seed=0)
    _play_until_a_life_is_lost(breakout)
    obs, info = breakout.reset(seed=0)
    np.testing.assert_array_equal(obs, first)
    assert (info["lives"], info["score"]) == (5, 0.0)


def test_the_score_adds_up_the_rewards_of_a_game_over_its_lives(breakout: RealEnv) -> None:
    rng = np.random.default_rng(0)
    _, info = breakout.reset(seed=0)
    rewards = 0.0
    episodes = 1
    while not info["game_over"]:
        _, reward, terminated, truncated, info = breakout.step(rng.integers(4))
        rewards += reward
        assert info["score"] == rewards
        if (terminated or truncated) and not info["game_over"]:
            assert breakout.reset()[1]["score"] == rewards
            episodes += 1
    assert episodes == 5
    assert rewards > 0
    assert breakout.reset()[1]["score"] == 0


@pytest.mark.parametrize("action", [-1, 4, 1.0])
def test_an_action_outside_the_space_is_refused(breakout: RealEnv, action: int) -> None:
    breakout.reset(seed=0)
    with pytest.raises(InputError, match=rf"^action is {action}; it must be in Discrete\(4\)$"):
        breakout.step(action)


def test_nothing_can_be_seen_or_done_before_the_first_reset(breakout: RealEnv) -> None:
    with pytest.raises(ResetNeeded):
        breakout.render()
    with pytest.raises(ResetNeeded):
        breakout.step(0)
