from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError
from dreamenv.real import RealVectorEnv, describe, make_single, make_vector

IDS = pytest.mark.parametrize("env_id", ["ALE/Breakout-v5", "CartPole-v1"])


class ExtraLife(gymnasium.Env[Any, np.int64]):
    """Starts with 3 lives, wins a fourth in step 1, loses it in step 2, is cut in step 4."""

    observation_space = Box(0, 255, (2, 2, 1), np.uint8)
    action_space = Discrete(1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.lives = iter([4, 3, 4, 3])
        self.steps = 0
        return np.zeros((2, 2, 1), np.uint8), {"lives": 3}

    def step(self, _: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        frame = np.full((2, 2, 1), self.steps, np.uint8)
        return frame, 1.0, False, self.steps == 4, {"lives": next(self.lives)}


@IDS
def test_the_spaces_are_those_of_the_specification(env_id: str) -> None:
    spec = describe(env_id, (24, 32))
    env = make_vector(spec, 3, training=True)
    assert env.num_envs == 3
    assert env.single_observation_space == Box(0, 255, (24, 32, 3), np.uint8)
    assert env.single_action_space == Discrete(spec.num_actions)
    assert env.observation_space == batch_space(env.single_observation_space, 3)
    assert env.environment == spec


@IDS
def test_what_comes_out_has_the_documented_shapes_and_types(env_id: str) -> None:
    env = make_vector(env_id, 2, training=True)
    obs, info = env.reset(seed=0)
    assert obs in env.observation_space
    assert info["score"].dtype == np.float64
    assert info["score"].tolist() == [0, 0]
    assert info["game_over"].dtype == np.bool_
    assert info["game_over"].tolist() == [False, False]
    obs, rewards, terminated, truncated, info = env.step(np.array([1, 0]))
    assert obs in env.observation_space
    assert rewards.dtype == np.float64
    assert terminated.dtype == truncated.dtype == np.bool_
    assert rewards.shape == terminated.shape == truncated.shape == (2,)
    assert "final_obs" not in info


@IDS
def test_the_autoreset_mode_is_named(env_id: str) -> None:
    env = make_vector(env_id, 2, training=True)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_every_step_equals_that_of_single_environments_with_consecutive_seeds() -> None:
    spec = describe("CartPole-v1", 16)
    vector = make_vector(spec, 2, training=True, max_episode_steps=30)
    singles = [make_single(spec, training=True, max_episode_steps=30) for _ in range(2)]
    rng = np.random.default_rng(0)
    terminations = truncations = 0

    obs, _ = vector.reset(seed=4)
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(obs[i], single.reset(seed=4 + i)[0])
    for _ in range(150):
        actions = rng.integers(2, size=2)
        obs, rewards, terminated, truncated, info = vector.step(actions)
        for i, single in enumerate(singles):
            frame, *outcome, single_info = single.step(actions[i])
            assert outcome == [rewards[i], terminated[i], truncated[i]]
            assert single_info["score"] == info["score"][i]
            assert single_info["game_over"] == info["game_over"][i]
            if info["game_over"][i]:
                last = info["final_obs"][i]
                np.testing.assert_array_equal(last, frame)
                frame, _ = single.reset()
            np.testing.assert_array_equal(obs[i], frame)
        terminations += terminated.sum()
        truncations += truncated.sum()
    assert terminations > 0
    assert truncations > 0


def test_final_obs_is_the_observation_where_no_episode_ended() -> None:
    env = make_vector("CartPole-v1", 3, training=True, max_episode_steps=20)
    env.reset(seed=0)
    while True:
        obs, *_, info = env.step(np.array([0, 1, 0]))
        if "final_obs" in info:
            break
    ended = info["_final_obs"]
    assert ended.any()
    assert not ended.all()
    assert (info["final_obs"].dtype, info["final_obs"].shape) == (np.uint8, obs.shape)
    np.testing.assert_array_equal(info["final_obs"][~ended], obs[~ended])
    assert (info["final_obs"][ended] != obs[ended]).any()


def test_a_lost_life_terminates_an_episode_and_a_cut_game_truncates_one() -> None:
    spec = EnvironmentSpec("Test/ExtraLife-v0", (1, 2, 2), ("0",))
    games = SyncVectorEnv([ExtraLife], autoreset_mode=AutoresetMode.SAME_STEP)
    env = RealVectorEnv(games, spec, lives_end_episodes=True)
    env.reset()
    steps = [env.step(np.array([0])) for _ in range(5)]
    assert [terminated.item() for _, _, terminated, _, _ in steps] == [False, True, *[False] * 3]
    assert [truncated.item() for _, _, _, truncated, _ in steps] == [*[False] * 3, True, False]
    assert [info["game_over"].item() for *_, info in steps] == [*[False] * 3, True, False]
    assert [info["score"].item() for *_, info in steps] == [1, 2, 3, 4, 1]
    assert [obs[0, 0, 0, 0].item() for obs, *_ in steps] == [1, 2, 3, 0, 1]
    last_frames = [info["final_obs"][0, 0, 0, 0] for *_, info in steps if "final_obs" in info]
    assert last_frames == [2, 4]


def test_the_same_seed_and_actions_give_the_same_games() -> None:
    def play() -> list[np.ndarray]:
        env = make_vector("ALE/Breakout-v5", 3, training=True)
        rng = np.random.default_rng(0)
        obs, _ = env.reset(seed=0)
        return [obs, *(env.step(rng.integers(4, size=3))[0] for _ in range(200))]

    np.testing.assert_array_equal(play(), play())


def test_games_of_different_seeds_differ() -> None:
    env = make_vector("ALE/Breakout-v5", 4, training=True)
    _, info = env.reset(seed=0)
    assert len(set(info["episode_frame_number"])) > 1


@IDS
def test_what_was_returned_is_never_written_to_again(env_id: str) -> None:
    env = make_vector(env_id, 2, training=True)
    obs, info = env.reset(seed=0)
    kept = obs.copy(), info["score"].copy()
    for _ in range(40):
        env.step(np.array([1, 0]))
    np.testing.assert_array_equal(obs, kept[0])
    np.testing.assert_array_equal(info["score"], kept[1])


def test_some_games_can_be_started_anew_while_others_go_on() -> None:
    env = make_vector("CartPole-v1", 2, training=True)
    env.reset(seed=0)
    before, *_ = env.step(np.array([0, 1]))
    obs, info = env.reset(options={"reset_mask": np.array([True, False])})
    assert info["score"].tolist() == [0, 1]
    assert (obs[0] != before[0]).any()
    np.testing.assert_array_equal(obs[1], before[1])
    assert env.step(np.array([0, 1]))[-1]["score"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        (np.array([0, 4]), "actions are from 0 to 4; they must be from 0 to 3"),
        (np.array([-1, 0]), "actions are from -1 to 0; they must be from 0 to 3"),
        (np.array([0]), r"actions are int64 \[1\]; they must be integers \[2\]"),
        (np.array([0.0, 1.0]), r"actions are float64 \[2\]; they must be integers \[2\]"),
    ],
)
def test_actions_outside_the_space_are_refused(actions: np.ndarray, problem: str) -> None:
    env = make_vector("ALE/Breakout-v5", 2, training=True)
    env.reset(seed=0)
    with pytest.raises(InputError, match=f"^{problem}$"):
        env.step(actions)
    env.step(np.array([0, 3]))


@IDS
@pytest.mark.parametrize("seed", [-1, 2**31 - 1])
def test_seeds_out_of_range_are_refused(env_id: str, seed: int) -> None:
    env = make_vector(env_id, 2, training=True)
    with pytest.raises(InputError, match=rf"^seed is {seed}; it must be from 0 to 2147483646$"):
        env.reset(seed=seed)
    env.reset(seed=2**31 - 2)


def test_closing_twice_does_no_harm() -> None:
    env = make_vector("CartPole-v1", 1, training=True)
    env.close()
    env.close()


@IDS
def test_a_seed_of_numpy_is_a_seed(env_id: str) -> None:
    for env in (make_vector(env_id, 2, training=True), make_single(env_id, training=True)):
        first, _ = env.reset(seed=3)
        again, _ = env.reset(seed=np.int64(3))  # type: ignore[arg-type]
        np.testing.assert_array_equal(first, again)


@IDS
def test_options_are_left_as_they_are(env_id: str) -> None:
    env = make_vector(env_id, 2, training=True)
    env.reset(seed=0)
    options = {"reset_mask": np.array([True, False])}
    env.reset(options=options)
    assert list(options) == ["reset_mask"]
