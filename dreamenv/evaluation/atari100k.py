"""Atari 100k: scores of runs beside those of random play, of people, and of published methods."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files

import numpy as np

from dreamenv.config import Config
from dreamenv.errors import InputError
from dreamenv.evaluation.aggregates import Aggregates, aggregate
from dreamenv.evaluation.performance_profile import PerformanceProfile, profile

SOURCE = "Alonso et al., NeurIPS 2024, Table 1"

_DATA = "atari100k_scores.csv"


@dataclass(frozen=True)
class Run(Config):
    """One agent, trained with one seed on one game.

    Attributes:
        game: As the benchmark names it, such as BankHeist.
        seed: Of its training.
        scores: The raw returns of its final test episodes.
    """

    game: str
    seed: int
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.scores:
            raise InputError(f"{self} has no scores; let its agent play some test episodes")
        if not np.isfinite(self.scores).all():
            raise InputError(f"{self} has scores that are not finite; let its agent play again")

    def __str__(self) -> str:
        return f"the run of {self.game} with seed {self.seed}"

    @property
    def score(self) -> float:
        """The mean of its test episodes."""
        return float(np.mean(self.scores))


@dataclass(frozen=True)
class PublishedScore(Config):
    """The mean raw score of a published method in a game.

    Attributes:
        method: Such as DIAMOND.
        score: The mean of its runs.
    """

    method: str
    score: float


@dataclass(frozen=True)
class Reference(Config):
    """What the scores of a game are compared with.

    Attributes:
        game: Its name.
        random: The score of random play.
        human: The score of people.
        published: The scores of published methods, always the same ones in the same order.
    """

    game: str
    random: float
    human: float
    published: tuple[PublishedScore, ...]

    def normalise(self, score: float) -> float:
        """Returns a raw score in units where random play has 0 and people have 1."""
        return (score - self.random) / (self.human - self.random)


@dataclass(frozen=True)
class RunScore(Config):
    """How well a run did.

    Attributes:
        run: The run with its raw scores.
        score: Their mean.
        normalised: The same, human-normalised.
    """

    run: Run
    score: float
    normalised: float


@dataclass(frozen=True)
class GameScore(Config):
    """How well the runs of a game did.

    Attributes:
        reference: What they are compared with.
        runs: By seed.
        score: The mean raw score of the runs.
        normalised: The same, human-normalised.
    """

    reference: Reference
    runs: tuple[RunScore, ...]
    score: float
    normalised: float


@dataclass(frozen=True)
class PublishedAggregates(Config):
    """What a published method comes to, worked out from its mean score in each game.

    Only means of runs are published: there are no intervals, and the interquartile mean and the
    optimality gap, which are of single runs elsewhere, are of games here.

    Attributes:
        method: Such as DIAMOND.
        same_games: Over the games that have runs here.
        all_games: Over all games of the benchmark.
        profile: Over the games that have runs here.
    """

    method: str
    same_games: Aggregates
    all_games: Aggregates
    profile: PerformanceProfile


@dataclass(frozen=True)
class Atari100k(Config):
    """The result of the benchmark, as far as it was run.

    Attributes:
        dreamenv: The version that worked it out.
        source: Where the scores of people, of random play, and of published methods are from.
        player: What the runs are called.
        games: The scores of the games that have runs.
        aggregates: Over these games.
        profile: Over these games.
        published: What published methods come to.
    """

    dreamenv: str
    source: str
    player: str
    games: tuple[GameScore, ...]
    aggregates: Aggregates
    profile: PerformanceProfile
    published: tuple[PublishedAggregates, ...]


def references() -> tuple[Reference, ...]:
    """Returns what is published of the 26 games of the benchmark."""
    text = files("dreamenv.evaluation").joinpath(_DATA).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return tuple(_reference(row) for row in csv.DictReader(lines))


def summarise(runs: Sequence[Run], player: str = "dreamenv") -> Atari100k:
    """Works out the result of the benchmark.

    Not all games need to have runs, nor all games as many: every figure is over the games that
    have some, and a game counts as much as any other.

    Args:
        runs: In any order.
        player: What to call them in tables.

    Raises:
        InputError: There are no runs, one is of a game that is not of the benchmark, or two are of
            the same game and seed.
        DreamenvError: SciPy is not installed.
    """
    known = references()
    _check(runs, known)
    ran = {run.game for run in runs}
    games = tuple(_score(each, runs) for each in known if each.game in ran)
    normalised = [[run.normalised for run in game.runs] for game in games]
    return Atari100k(
        dreamenv=version("dreamenv"),
        source=SOURCE,
        player=player,
        games=games,
        aggregates=aggregate(normalised),
        profile=profile(normalised),
        published=_published([game.reference for game in games], known),
    )


def _reference(row: dict[str, str]) -> Reference:
    game, random, human, *scores = row.values()
    methods = list(row)[3:]
    published = zip(methods, map(float, scores), strict=True)
    return Reference(
        game, float(random), float(human), tuple(PublishedScore(*each) for each in published)
    )


def _check(runs: Sequence[Run], known: Sequence[Reference]) -> None:
    if not runs:
        raise InputError("there are no runs to make a table of; train an agent on a game first")
    names = [each.game for each in known]
    for run in runs:
        if run.game not in names:
            raise InputError(
                f"{run.game!r} is not a game of Atari 100k; name one of {', '.join(names)}"
            )
    (game, seed), times = Counter((run.game, run.seed) for run in runs).most_common(1)[0]
    if times > 1:
        raise InputError(f"{game} has {times} runs with seed {seed}; keep one of them")


def _score(reference: Reference, runs: Sequence[Run]) -> GameScore:
    own = sorted((run for run in runs if run.game == reference.game), key=lambda run: run.seed)
    score = float(np.mean([run.score for run in own]))
    scored = tuple(RunScore(run, run.score, reference.normalise(run.score)) for run in own)
    return GameScore(reference, scored, score, reference.normalise(score))


def _published(
    same: Sequence[Reference], known: Sequence[Reference]
) -> tuple[PublishedAggregates, ...]:
    return tuple(
        PublishedAggregates(
            method.method,
            same_games=aggregate(_normalised(same, column)),
            all_games=aggregate(_normalised(known, column)),
            profile=profile(_normalised(same, column)),
        )
        for column, method in enumerate(known[0].published)
    )


def _normalised(games: Sequence[Reference], column: int) -> list[list[float]]:
    """Returns a published method's score of each game, as if it had one run of it."""
    return [[game.normalise(game.published[column].score)] for game in games]
