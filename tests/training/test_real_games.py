import io
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import GameError, InputError
from dreamenv.real import describe, make_vector
from dreamenv.training.experience import FinishedGame
from dreamenv.training.game import Game
from dreamenv.training.real_games import Frames, GamesStep, RealGames

from .climbing import PAID, climb
from .conftest import SIDE, Catch

NewGames = Callable[..., RealGames]


@pytest.fixture
def new_games() -> Iterator[NewGames]:
    """Makes real games, which are closed at the end."""
    made: list[RealGames] = []

    def make(environment: EnvironmentSpec, num_envs: int = 1, seed: int = 0) -> RealGames:
        made.append(RealGames(environment, num_envs, seed))
        return made[-1]

    yield make
    for games in made:
        games.close()


@pytest.fixture(scope="module")
def breakout() -> EnvironmentSpec:
    return describe("ALE/Breakout-v5", 16)


def levels(frames: Frames) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in frames]


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    written = io.BytesIO()
    torch.save(state, written)
    written.seek(0)
    loaded: dict[str, Any] = torch.load(written, weights_only=True)
    return loaded


def course(games: RealGames, steps: int, seed: int = 0) -> list[tuple[Frames, GamesStep]]:
    """Plays at random, and returns what came of each step and what was shown after it."""
    random, played = np.random.default_rng(seed), []
    for _ in range(steps):
        actions = random.integers(games.environment.num_actions, size=games.num_envs)
        step = games.step(actions)
        played.append((games.frames, step))
    return played


def assert_same_courses(
    one: list[tuple[Frames, GamesStep]], other: list[tuple[Frames, GamesStep]]
) -> None:
    for (frames, step), (shown, again) in zip(one, other, strict=True):
        np.testing.assert_array_equal(frames, shown)
        for mine, yours in zip(step, again, strict=True):
            np.testing.assert_array_equal(mine, yours)


# What is learned from.


def test_rewards_are_signs_and_scores_are_raw(new_games: NewGames) -> None:
    with climb(top=4) as environment:
        games = new_games(environment, 3)
        for step in range(3):
            assert games.take_finished() == ()
            outcome = games.step(np.array([0, 1, 2]))
            assert outcome.rewards.dtype == np.float32
            assert outcome.rewards.tolist() == [-1, 0, 1]
            assert outcome.ended.tolist() == [step == 2] * 3
        expected = tuple(FinishedGame(score, 3) for score in (-3 * PAID, 0.0, 3 * PAID))
        assert games.take_finished() == expected
        assert games.take_finished() == ()
        assert games.steps == 9


@pytest.mark.parametrize("way", [{"top": 4}, {"limit": 3}])
def test_the_last_frame_of_an_episode_is_told_from_the_first_of_the_next(
    new_games: NewGames, way: dict[str, int]
) -> None:
    with climb(**way) as environment:
        games = new_games(environment, 2)
        assert games.frames.shape == (2, 4, 4, 1)
        reached, shown = [], []
        for _ in range(4):
            step = games.step(np.array([1, 1]))
            reached.append(levels(step.reached))
            shown.append(levels(games.frames))
            over = len(shown) == 3
            assert step.terminated.tolist() == [over and "top" in way] * 2
            assert step.truncated.tolist() == [over and "limit" in way] * 2
        assert reached == [[2, 2], [3, 3], [4, 4], [2, 2]]
        assert shown == [[2, 2], [3, 3], [1, 1], [2, 2]]


def test_the_loss_of_a_life_ends_an_episode_and_no_game(
    new_games: NewGames, breakout: EnvironmentSpec
) -> None:
    games = new_games(breakout, 2)
    lives = [(shown, step) for shown, step in course(games, 100) if step.ended.any()]
    assert games.take_finished() == ()
    assert len(lives) >= 2
    for shown, step in lives:
        assert not step.truncated.any()
        np.testing.assert_array_equal(shown, step.reached)


def test_games_are_those_of_their_numbers(catch: EnvironmentSpec, new_games: NewGames) -> None:
    games = new_games(catch, 2, seed=3)
    shown = [games.frames[0], games.frames[1]]
    while len(shown) < 5:
        step = games.step(np.array([1, 1]))
        shown += [games.frames[slot] for slot in np.flatnonzero(step.ended)]
    with closing(make_vector(catch, 1, training=True)) as env:
        for number, frame in enumerate(shown[:5]):
            first, _ = env.reset(seed=Game.seeded(3, number).seed)
            np.testing.assert_array_equal(frame, first[0])


def test_it_begins_anew_with_the_next_games_or_with_those_of_a_seed(
    catch: EnvironmentSpec, new_games: NewGames
) -> None:
    games, other = new_games(catch, 3, seed=3), new_games(catch, 3, seed=4)
    first, shown = games.frames, games.frames.copy()
    games.restart()
    assert not np.array_equal(games.frames, first)
    games.restart(4)
    np.testing.assert_array_equal(games.frames, other.frames)
    assert_same_courses(course(games, 20), course(other, 20))
    np.testing.assert_array_equal(first, shown)


def test_actions_that_are_none_are_refused(catch: EnvironmentSpec, new_games: NewGames) -> None:
    with pytest.raises(InputError, match="they must be from 0 to 2"):
        new_games(catch, 2).step(np.array([0, 3]))


# Bringing them back.


@pytest.mark.parametrize("steps", [0, 1, 14, 15, 33])
def test_brought_back_the_games_go_on_as_they_would_have(
    catch: EnvironmentSpec, new_games: NewGames, steps: int
) -> None:
    games = new_games(catch, 4, seed=3)
    course(games, steps)
    games.take_finished()
    state = through_a_file(games.state_dict())
    again = new_games(catch, 4, seed=9)
    course(again, 5)
    again.load_state_dict(state)
    np.testing.assert_array_equal(again.frames, games.frames)
    assert_same_courses(course(games, 30, seed=1), course(again, 30, seed=1))
    assert again.take_finished() == games.take_finished()
    assert again.steps == games.steps == 4 * (steps + 30)


def test_a_game_that_has_just_begun_is_brought_back_beside_others(
    catch: EnvironmentSpec, new_games: NewGames
) -> None:
    games = new_games(catch, 4, seed=3)
    step = games.step(np.ones(4, np.int64))
    while not step.ended.any() or step.ended.all():
        step = games.step(np.ones(4, np.int64))
    again = new_games(catch, 4)
    again.load_state_dict(through_a_file(games.state_dict()))
    assert_same_courses(course(games, 30), course(again, 30))


def test_an_emulators_games_are_brought_back_after_lives_were_lost(
    breakout: EnvironmentSpec, new_games: NewGames
) -> None:
    games = new_games(breakout, 3)
    played = course(games, 150)
    assert sum(step.ended.sum() for _, step in played) > 6
    state = through_a_file(games.state_dict())
    games.take_finished()
    again = new_games(breakout, 3)
    again.load_state_dict(state)
    assert_same_courses(course(games, 100), course(again, 100))
    assert again.take_finished() == games.take_finished()


class Shifted(Catch):
    """Another version of the game, whose ball falls from elsewhere."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        _, info = super().reset(seed=seed, options=options)
        self._column = 15 - self._column
        return self._frame(), info


def test_games_that_take_another_course_are_refused(new_games: NewGames) -> None:
    gymnasium.register("Test/Changes-v0", Catch)
    try:
        games = new_games(describe("Test/Changes-v0", SIDE), 2)
        course(games, 3)
        gymnasium.registry["Test/Changes-v0"].entry_point = Shifted
        again = new_games(games.environment, 2)
        with pytest.raises(GameError, match=r"^Test/Changes-v0: played again .* start over$"):
            again.load_state_dict(games.state_dict())
    finally:
        del gymnasium.registry["Test/Changes-v0"]
