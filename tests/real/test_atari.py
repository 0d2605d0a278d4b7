import dataclasses
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from ale_py import Action, ALEInterface, LoggerMode, roms

from dreamenv.environment import Preprocessing
from dreamenv.errors import GameError
from dreamenv.real import describe, make_single, make_vector

Frame = npt.NDArray[np.uint8]


class ByHand:
    """A game on the bare emulator, with the published preprocessing written out."""

    def __init__(self, rom: str, size: tuple[int, int]) -> None:
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._ale = ALEInterface()
        self._ale.setFloat("repeat_action_probability", 0.0)
        path = roms.get_rom_path(rom)
        assert path is not None
        self._ale.loadROM(path)
        self._actions = self._ale.getMinimalActionSet()
        self._size = size

    def reset(self, noops: int) -> Frame:
        self._ale.reset_game()
        for _ in range(noops):
            self._ale.act(Action.NOOP)
        self._newest = self._ale.getScreenRGB()
        self._before = np.zeros_like(self._newest)
        return self._frame()

    def step(self, action: int | np.int64) -> tuple[Frame, int, bool, bool]:
        lives = self._ale.lives()
        reward = 0
        for frame in range(4):
            reward += self._ale.act(self._actions[action])
            if self._ale.game_over():
                break
            if frame == 2:
                self._before = self._ale.getScreenRGB()
            if frame == 3:
                self._newest = self._ale.getScreenRGB()
        game_over = self._ale.game_over()
        life_lost = self._ale.lives() < lives and not game_over
        return self._frame(), reward, life_lost, game_over

    def _frame(self) -> Frame:
        self._newest = np.maximum(self._newest, self._before)
        height, width = self._size
        resized = cv2.resize(self._newest, (width, height), interpolation=cv2.INTER_AREA)
        return resized.astype(np.uint8, copy=False)


GAMES = pytest.mark.parametrize(
    ("env_id", "rom", "steps"),
    [
        ("ALE/Pong-v5", "pong", 300),
        ("ALE/Breakout-v5", "breakout", 500),
        ("ALE/SpaceInvaders-v5", "space_invaders", 200),
    ],
)
SIZES = pytest.mark.parametrize("size", [(64, 64), (48, 80)])
MODES = pytest.mark.parametrize("training", [True, False])


@GAMES
@SIZES
@MODES
def test_every_step_of_the_vector_env_equals_the_preprocessing_done_by_hand(
    env_id: str, rom: str, steps: int, size: tuple[int, int], training: bool
) -> None:
    env = make_vector(describe(env_id, size), 2, training=training)
    games = [ByHand(rom, size), ByHand(rom, size)]
    rng = np.random.default_rng(0)
    scores = np.zeros(2)
    highest = lost_lives = games_over = 0

    obs, info = env.reset(seed=3)
    noops = info["episode_frame_number"]
    for i, game in enumerate(games):
        np.testing.assert_array_equal(obs[i], game.reset(noops[i]))
    for _ in range(steps):
        actions = rng.integers(env.environment.num_actions, size=2)
        obs, rewards, terminated, truncated, info = env.step(actions)
        for i, game in enumerate(games):
            frame, reward, life_lost, game_over = game.step(actions[i])
            ended = game_over or (training and life_lost)
            last = info["final_obs"][i] if ended else obs[i]
            scores[i] += reward
            np.testing.assert_array_equal(last, frame)
            assert (rewards[i], terminated[i], truncated[i]) == (reward, ended, False)
            assert (info["game_over"][i], info["score"][i]) == (game_over, scores[i])
            assert bool(info.get("_final_obs", [False, False])[i]) == ended
            if game_over:
                scores[i] = 0
                frame = game.reset(info["episode_frame_number"][i])
            np.testing.assert_array_equal(obs[i], frame)
            highest = max(highest, abs(reward))
            lost_lives += life_lost
            games_over += game_over

    assert highest >= (5 if rom == "space_invaders" else 1)
    if rom == "breakout":
        assert lost_lives > 8
        assert games_over > 2


@GAMES
@MODES
def test_every_step_of_the_single_env_equals_the_preprocessing_done_by_hand(
    env_id: str, rom: str, steps: int, training: bool
) -> None:
    env = make_single(describe(env_id, (48, 80)), training=training)
    game = ByHand(rom, (48, 80))
    rng = np.random.default_rng(1)
    score = 0.0
    games_over = lost_lives = 0

    obs, info = env.reset(seed=0)
    np.testing.assert_array_equal(obs, game.reset(info["episode_frame_number"]))
    for _ in range(steps):
        action = rng.integers(env.environment.num_actions)
        obs, reward, terminated, truncated, info = env.step(action)
        frame, expected_reward, life_lost, game_over = game.step(action)
        score += expected_reward
        np.testing.assert_array_equal(obs, frame)
        assert (reward, truncated) == (expected_reward, False)
        assert terminated == (game_over or (training and life_lost))
        assert (info["game_over"], info["score"]) == (game_over, score)
        if not terminated:
            continue
        obs, info = env.reset()
        if game_over:
            score = 0
            frame = game.reset(info["episode_frame_number"])
        np.testing.assert_array_equal(obs, frame)
        assert (info["game_over"], info["score"]) == (False, score)
        games_over += game_over
        lost_lives += life_lost

    if rom == "breakout":
        assert games_over > 0
        assert (lost_lives > 3) == training


def test_a_game_is_described_by_its_minimal_actions_and_the_published_preprocessing() -> None:
    spec = describe("ALE/Breakout-v5", (60, 80))
    assert spec.id == "ALE/Breakout-v5"
    assert spec.obs_shape == (3, 60, 80)
    assert spec.action_meanings == ("NOOP", "FIRE", "RIGHT", "LEFT")
    assert spec.preprocessing == Preprocessing("atari", frame_skip=4, noop_max=30, sticky_actions=0)


def test_a_game_starts_after_any_number_of_no_ops_up_to_the_most_allowed() -> None:
    spec = describe("ALE/Breakout-v5")
    spec = dataclasses.replace(spec, preprocessing=Preprocessing(noop_max=3))
    env = make_vector(spec, 4, training=True)
    noops = [env.reset(seed=4 * i)[1]["episode_frame_number"] for i in range(10)]
    assert set(np.concatenate(noops).tolist()) == {0, 1, 2, 3}


def test_no_ops_can_be_turned_off() -> None:
    spec = describe("ALE/Breakout-v5")
    spec = dataclasses.replace(spec, preprocessing=Preprocessing(noop_max=0))
    assert make_vector(spec, 1, training=True).reset(seed=0)[1]["episode_frame_number"] == [0]
    assert make_single(spec, training=True).reset(seed=0)[1]["episode_frame_number"] == 0


def test_a_game_is_truncated_after_108_000_frames() -> None:
    spec = describe("ALE/Breakout-v5", 8)  # whose ball is never served without FIRE
    spec = dataclasses.replace(spec, preprocessing=Preprocessing(frame_skip=4000))
    env = make_vector(spec, 1, training=True)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.int64))[3].item() for _ in range(27)]
    assert ends == [False] * 26 + [True]


def test_the_step_limit_of_the_single_env_runs_on_over_lost_lives() -> None:
    env = make_single("ALE/Breakout-v5", training=True, max_episode_steps=100)
    env.reset(seed=0)
    lost_lives = 0
    for step in range(1, 101):
        _, _, terminated, truncated, info = env.step(step % 4)
        assert (truncated, info["game_over"]) == (step == 100, step == 100)
        lost_lives += terminated
        if terminated:
            env.reset()
    assert lost_lives > 0


def test_the_step_limit_of_the_vector_env_runs_on_over_lost_lives() -> None:
    env = make_vector("ALE/Breakout-v5", 1, training=True, max_episode_steps=100)
    env.reset(seed=0)
    lost_lives = 0
    for step in range(1, 101):
        _, _, terminated, truncated, info = env.step(np.array([step % 4]))
        assert (truncated[0], info["game_over"][0]) == (step == 100, step == 100)
        lost_lives += terminated[0]
    assert lost_lives > 0


def test_sticky_actions_reach_the_emulator() -> None:
    def frames(sticky_actions: float, seed: int) -> Frame:
        spec = describe("ALE/Breakout-v5", sticky_actions=sticky_actions)
        spec = dataclasses.replace(
            spec, preprocessing=dataclasses.replace(spec.preprocessing, noop_max=0)
        )
        env = make_vector(spec, 1, training=True)
        env.reset(seed=seed)
        return np.stack([env.step(np.array([2 + step % 2]))[0] for step in range(30)])

    assert (frames(0.0, seed=1) == frames(0.0, seed=2)).all()
    assert (frames(0.5, seed=1) != frames(0.5, seed=2)).any()


def test_a_missing_rom_is_one_line_that_says_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = describe("ALE/Pong-v5")
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    expected = r"^ALE/Pong-v5: its ROM cannot be read \(.*pong\.bin.*\); reinstall .*$"
    with pytest.raises(GameError, match=expected):
        describe("ALE/Pong-v5")
    with pytest.raises(GameError, match=expected):
        make_vector(spec, 1, training=True)
    with pytest.raises(GameError, match=expected):
        make_single(spec, training=True)


def test_a_specification_that_takes_another_game_for_atari_is_refused() -> None:
    spec = dataclasses.replace(describe("ALE/Pong-v5"), id="CartPole-v1")
    with pytest.raises(GameError, match="CartPole-v1: its preprocessing is that of Atari"):
        make_vector(spec, 1, training=True)


def test_the_emulator_of_a_single_game_is_within_reach() -> None:
    env = make_single("ALE/Breakout-v5", training=True)
    env.reset(seed=0)
    assert env.game.get_wrapper_attr("ale").getRAM().shape == (128,)


def test_a_game_does_not_depend_on_its_place_nor_on_when_it_was_reset() -> None:
    first = make_vector("ALE/Breakout-v5", 1, training=True)
    third = make_vector("ALE/Breakout-v5", 3, training=True)
    try:
        first.reset(seed=1002)
        third.reset(seed=0)
        for _ in range(5):
            third.step(np.ones(3, np.int64))
        mask = np.array([False, False, True])
        obs = third.reset(seed=1000, options={"reset_mask": mask})[0]
        alone = first.reset(seed=1002)[0]
        assert np.array_equal(obs[2], alone[0])
        actions = np.random.default_rng(0).integers(0, 4, 200)
        for action in actions:
            ours = third.step(np.full(3, action))
            theirs = first.step(np.array([action]))
            assert np.array_equal(ours[0][2], theirs[0][0])
    finally:
        first.close()
        third.close()
