import math

import pytest

from dreamenv.errors import InputError
from dreamenv.evaluation.atari100k import Atari100k, Run, references, summarise

PUBLISHED_MEANS = {
    "SimPLe": 0.332,
    "TWM": 0.956,
    "IRIS": 1.046,
    "DreamerV3": 1.130,  # the paper prints 1.097, which its own column does not give
    "STORM": 1.266,
    "DIAMOND": 1.459,
}
HUMAN_OR_ABOVE = {"IRIS": 10, "DIAMOND": 11}

PONG = [Run("Pong", 0, (-20.7, 14.6)), Run("Pong", 1, (14.6, 14.6, 14.6))]
BREAKOUT = [Run("Breakout", 3, (1.7,)), Run("Breakout", 2, (30.5,))]


def diamond(games: int = 26) -> list[Run]:
    """A run of each game, as good as DIAMOND was on average."""
    return [Run(each.game, 0, (each.published[-1].score,)) for each in references()[:games]]


def test_what_is_published_is_of_all_26_games() -> None:
    known = references()
    assert len({each.game for each in known}) == 26
    assert all([one.method for one in each.published] == [*PUBLISHED_MEANS] for each in known)
    assert all(each.random < each.human for each in known)


def test_random_play_is_0_and_a_person_is_1() -> None:
    for each in references():
        assert each.normalise(each.random) == 0
        assert each.normalise(each.human) == 1


def test_published_methods_come_to_their_published_figures() -> None:
    published = {each.method: each.all_games for each in summarise(PONG).published}
    means = {method: round(each.mean.value, 3) for method, each in published.items()}
    assert means == PUBLISHED_MEANS
    for method, count in HUMAN_OR_ABOVE.items():
        assert published[method].human_or_above.value == count
    assert published["DIAMOND"].mean.low is None


def test_runs_as_good_as_a_published_method_come_to_the_same_as_it() -> None:
    result = summarise(diamond())
    theirs = result.published[-1]
    assert theirs.method == "DIAMOND"
    assert result.aggregates == theirs.all_games == theirs.same_games
    assert result.profile == theirs.profile


def test_a_run_scores_the_mean_of_its_episodes_and_a_game_that_of_its_runs() -> None:
    pong = summarise(PONG).games[0]
    assert [each.score for each in pong.runs] == pytest.approx([-3.05, 14.6])
    assert [each.normalised for each in pong.runs] == pytest.approx([0.5, 1])
    assert pong.score == pytest.approx((-3.05 + 14.6) / 2)
    assert pong.normalised == pytest.approx(0.75)


def test_games_are_in_the_order_of_the_benchmark_and_runs_by_seed() -> None:
    result = summarise([*PONG, *BREAKOUT])
    assert [game.reference.game for game in result.games] == ["Breakout", "Pong"]
    assert [[each.run.seed for each in game.runs] for game in result.games] == [[2, 3], [0, 1]]


def test_figures_of_some_games_are_over_these_games_for_all_methods() -> None:
    result = summarise([*BREAKOUT, *PONG[:1]])
    assert result.aggregates.games == 2
    assert result.aggregates.runs == 3
    assert result.aggregates.mean.value == pytest.approx(0.5)
    known = {each.game: each for each in references()}
    for column, method in enumerate(result.published):
        scores = [
            known[game].normalise(known[game].published[column].score)
            for game in ("Breakout", "Pong")
        ]
        assert method.same_games.games == 2
        assert method.same_games.mean.value == pytest.approx(sum(scores) / 2)
        assert method.all_games.games == 26


def test_intervals_take_two_runs_of_every_game() -> None:
    sure, unsure = summarise([*BREAKOUT, *PONG]), summarise([*BREAKOUT, *PONG[:1]])
    assert sure.aggregates.mean.low is not None
    assert sure.profile.low is not None
    assert unsure.aggregates.mean.low is None
    assert unsure.profile.low is None


def test_the_order_of_the_runs_does_not_matter() -> None:
    assert summarise([*BREAKOUT, *PONG]) == summarise([*PONG[::-1], *BREAKOUT[::-1]])


def test_a_result_goes_to_json_and_back() -> None:
    result = summarise([*BREAKOUT, *PONG])
    assert Atari100k.from_dict(result.to_dict(), "scores.json") == result


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([], "no runs.*train an agent"),
        ([Run("Tetris", 0, (1.0,))], "'Tetris' is not a game of Atari 100k.*Alien, Amidar"),
        ([*PONG, Run("Pong", 1, (0.0,))], "Pong has 2 runs with seed 1; keep one"),
    ],
)
def test_runs_that_make_no_table_are_refused(runs: list[Run], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        summarise(runs)


@pytest.mark.parametrize(
    ("scores", "problem"),
    [((), "no scores"), ((1.0, math.nan), "not finite"), ((math.inf,), "not finite")],
)
def test_a_run_has_finite_scores(scores: tuple[float, ...], problem: str) -> None:
    with pytest.raises(InputError, match=f"the run of Pong with seed 7 has .*{problem}"):
        Run("Pong", 7, scores)
