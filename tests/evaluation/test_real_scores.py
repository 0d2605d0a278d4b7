import io
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.spaces import Box, Discrete
from rich.console import Console

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, InputError
from dreamenv.evaluation.real_scores import PlayConfig, RealScores, play_games, scores_table
from dreamenv.real import describe, make_vector
from dreamenv.real.policy import RandomPolicy

Frame = npt.NDArray[np.uint8]
SHORT, LONG, LIMIT = 2, 30, 40
SEED = 100


class Walk(gymnasium.Env[Frame, np.int64]):
    """Games of 2 steps where the seed was even, of 30 where it was odd; a step gives 2.5.

    Action 1 stands still, and only a limit ends it.
    """

    observation_space = Box(0, 255, (8, 8, 1), np.uint8)
    action_space = Discrete(2)

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self._length = SHORT

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        if seed is not None:
            self._length = LONG if seed % 2 else SHORT
        self._steps = 0
        return self._frame(), {}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        self._steps += int(action == 0)
        return self._frame(), 2.5 * (action == 0), self._steps == self._length, False, {}

    def _frame(self) -> Frame:
        return np.full((8, 8, 1), self._steps, np.uint8)


class Always:
    """Plays one action, and remembers what it was told."""

    def __init__(self, action: int = 0) -> None:
        self.action = action
        self.obs: list[npt.NDArray[np.uint8]] = []
        self.starts: list[list[bool]] = []

    def act(
        self, obs: npt.NDArray[np.uint8], starts: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        self.obs.append(obs)
        self.starts.append(starts.tolist())
        return np.full(len(obs), self.action, np.int64)


@pytest.fixture(scope="module")
def walk() -> Iterator[EnvironmentSpec]:
    gymnasium.register("Test/Walk-v0", Walk, max_episode_steps=LIMIT)
    yield describe("Test/Walk-v0", 8)
    del gymnasium.registry["Test/Walk-v0"]


def shown(players: list[RealScores]) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(scores_table("the title", players))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("episodes", "num_envs", "expected"),
    [(6, 3, (2, 2, 2)), (7, 3, (3, 2, 2)), (2, 5, (1, 1)), (5, 1, (5,))],
)
def test_games_are_shared_out_before_they_are_played(
    episodes: int, num_envs: int, expected: tuple[int, ...]
) -> None:
    assert PlayConfig(episodes, num_envs).games_of_slots == expected


def test_short_games_do_not_crowd_out_long_ones(walk: EnvironmentSpec) -> None:
    config = PlayConfig(episodes=8, num_envs=4, seed=SEED)
    scores = play_games(walk, Always(), config, player="always")
    assert sorted(game.steps for game in scores.games) == 4 * [SHORT] + 4 * [LONG]
    assert scores.score.mean == 2.5 * (SHORT + LONG) / 2
    assert scores.score.count == 8


def test_scores_are_raw_and_of_whole_games(walk: EnvironmentSpec) -> None:
    scores = play_games(walk, Always(), PlayConfig(3, 2, SEED), player="always")
    assert all(game.score == 2.5 * game.steps and not game.truncated for game in scores.games)
    assert scores.player == "always"


def test_the_step_limit_of_the_game_is_kept(walk: EnvironmentSpec) -> None:
    scores = play_games(walk, Always(1), PlayConfig(2, 2, SEED), player="still")
    assert [(game.score, game.steps, game.truncated) for game in scores.games] == 2 * [
        (0.0, LIMIT, True)
    ]


def test_the_player_sees_frames_and_is_told_where_games_start(walk: EnvironmentSpec) -> None:
    player = Always()
    play_games(walk, player, PlayConfig(3, 1, SEED), player="always")
    assert player.obs[0].shape == (1, 1, 8, 8)
    assert [int(obs[0, 0, 0, 0]) for obs in player.obs] == [0, 1] * 3
    assert player.starts == [[True], [False]] * 3


def test_the_number_of_finished_games_is_told_at_every_step(walk: EnvironmentSpec) -> None:
    told: list[int] = []
    play_games(walk, Always(), PlayConfig(3, 1, SEED), player="always", on_step=told.append)
    assert told == [0, 1, 1, 2, 2, 3]


def test_what_a_listener_raises_ends_the_playing(walk: EnvironmentSpec) -> None:
    def listen(finished: int) -> None:
        if finished == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play_games(walk, Always(), PlayConfig(3, 1, SEED), player="always", on_step=listen)


def test_an_action_that_the_game_has_not_is_refused(walk: EnvironmentSpec) -> None:
    with pytest.raises(InputError, match="actions are from 2 to 2"):
        play_games(walk, Always(2), PlayConfig(1), player="wild")


def test_a_lost_life_ends_no_game_of_breakout() -> None:
    environment = describe("ALE/Breakout-v5", 16)
    scores = play_games(environment, RandomPolicy(4, 7), PlayConfig(1, 1, 5), player="random")

    env, random = make_vector(environment, 1, training=True), RandomPolicy(4, 7)
    obs, _ = env.reset(seed=5)
    total, lives_lost, steps, over = 0.0, 0, 0, False
    while not over:
        action = random.act(obs, np.zeros(1, np.bool_))
        obs, rewards, terminated, _, info = env.step(action)
        over = bool(info["game_over"][0])
        total, lives_lost, steps = total + rewards[0], lives_lost + int(terminated[0]), steps + 1
    env.close()
    assert lives_lost == 5
    (game,) = scores.games
    assert (game.score, game.steps) == (total, steps)


def test_the_same_seed_gives_the_same_scores() -> None:
    environment = describe("ALE/Breakout-v5", 8)
    first, again, other = (
        play_games(
            environment,
            RandomPolicy(4, seed),
            PlayConfig(1, 1, seed),
            player="random",
        )
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_scores_go_to_json_and_come_back(walk: EnvironmentSpec) -> None:
    scores = play_games(walk, Always(), PlayConfig(2, 2, SEED), player="always")
    assert RealScores.from_dict(scores.to_dict(), "the test") == scores


@pytest.mark.parametrize("settings", [{"episodes": 0}, {"num_envs": 0}, {"seed": -1}])
def test_settings_that_cannot_work_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(settings))}.* must be at least"):
        PlayConfig(**settings)


def test_the_table_has_a_row_for_each_player(walk: EnvironmentSpec) -> None:
    players = [
        play_games(walk, Always(action), PlayConfig(4, 2, SEED), player=name)
        for action, name in ((0, "walker"), (1, "stander"))
    ]
    title, _, header, _, walker, stander, _ = shown(players).splitlines()
    assert title.strip() == "the title"
    assert "score [95% interval]" in header
    assert walker.split("│")[1:-1] == [
        " walker  ",
        " 4     ",
        " 40.00 [5.00, 75.00]  ",
        " 5      ",
        " 75      ",
        " 16    ",
    ]
    assert "0.00 [0.00, 0.00]" in stander
