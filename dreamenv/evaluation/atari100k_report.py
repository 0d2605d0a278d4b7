"""The result of Atari 100k as tables and a figure: for people, for papers, for machines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from dreamenv.data.disk import naming_disk_errors
from dreamenv.evaluation.aggregates import Aggregate, Aggregates
from dreamenv.evaluation.atari100k import Atari100k, GameScore
from dreamenv.files import atomic_folder_update

TABLE_FILE = "table.md"
JSON_FILE = "scores.json"
PROFILE_FILE = "profile.png"

_NOT_THERE = "-"


@dataclass(frozen=True)
class _Grid:
    """A table of words. Its first column is of labels, the others are of numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str

    def to_rich(self) -> Table:
        table = Table(title=escape(self.title), caption=escape(self.caption))
        for place, column in enumerate(self.columns):
            # A number whose end is cut off in a narrow terminal would be another number.
            table.add_column(escape(column), justify="right" if place else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table

    def to_markdown(self) -> str:
        rule = ("---", *("---:" for _ in self.columns[1:]))
        rows = "\n".join(_markdown_row(row) for row in (self.columns, rule, *self.rows))
        return f"## {self.title}\n\n{rows}\n\n{self.caption}\n"


def tables(result: Atari100k) -> Iterator[Table]:
    """Lays the result out for the terminal."""
    return (grid.to_rich() for grid in _grids(result))


def to_markdown(result: Atari100k) -> str:
    """Lays the result out as Markdown."""
    return "\n".join(["# Atari 100k\n", *(grid.to_markdown() for grid in _grids(result))])


def write_report(result: Atari100k, folder: Path) -> Path:
    """Writes the tables, all figures, and the performance profile: all of them, or none.

    Args:
        result: What `summarise` gave.
        folder: Where `table.md`, `scores.json` and `profile.png` go, replacing older ones.

    Returns:
        The file of the tables.

    Raises:
        DreamenvError: The files cannot be written.
    """
    text = json.dumps(result.to_dict(), indent=2, allow_nan=False)
    others = {f"{each.method}, mean of each game": each.profile for each in result.published}
    label = f"{result.player}, {_count(len(result.games), 'game')}"
    figure = result.profile.to_figure(label, others)
    with naming_disk_errors(folder), atomic_folder_update(folder) as staging:
        (staging / TABLE_FILE).write_text(to_markdown(result), encoding="utf-8")
        (staging / JSON_FILE).write_text(f"{text}\n", encoding="utf-8")
        figure.savefig(staging / PROFILE_FILE)
    return folder / TABLE_FILE


def _grids(result: Atari100k) -> Iterator[_Grid]:
    yield _scores(result)
    yield _seeds(result)
    yield _aggregates(result)


def _scores(result: Atari100k) -> _Grid:
    return _Grid(
        title="Mean raw scores",
        columns=("game", "random", "human", *_methods(result), result.player),
        rows=tuple(_score_row(game) for game in result.games),
        caption=f"All but {result.player}: as published in {result.source}.",
    )


def _score_row(game: GameScore) -> tuple[str, ...]:
    reference = game.reference
    published = (each.score for each in reference.published)
    scores = (reference.random, reference.human, *published, game.score)
    return (reference.game, *map(_raw, scores))


def _seeds(result: Atari100k) -> _Grid:
    seeds = sorted({each.run.seed for game in result.games for each in game.runs})
    counts = [len(each.run.scores) for game in result.games for each in game.runs]
    least, most = min(counts), max(counts)
    episodes = _count(most, "test episode") if least == most else f"{least} to {most} test episodes"
    return _Grid(
        title=f"The runs of {result.player}",
        columns=("game", *(f"seed {seed}" for seed in seeds), "mean", "human-normalised"),
        rows=tuple(_seed_row(game, seeds) for game in result.games),
        caption=f"The score of a run is the mean of its {episodes}. Human-normalised: 0 is random "
        "play, 1 is human.",
    )


def _seed_row(game: GameScore, seeds: list[int]) -> tuple[str, ...]:
    scores = {each.run.seed: _raw(each.score) for each in game.runs}
    runs = (scores.get(seed, _NOT_THERE) for seed in seeds)
    return (game.reference.game, *runs, _raw(game.score), f"{game.normalised:.3f}")


def _aggregates(result: Atari100k) -> _Grid:
    own, total = result.aggregates, result.published[0].all_games
    rows = _aggregate_rows(own, [each.same_games for each in result.published])
    if own.games < total.games:
        rows += _aggregate_rows(None, [each.all_games for each in result.published])
    intervals = (
        "Intervals take two seeds of every game"
        if own.mean.low is None
        else "In brackets: 95% intervals by the stratified bootstrap over seeds"
    )
    return _Grid(
        title=f"Human-normalised scores over {own.games} of {total.games} games",
        columns=("figure", "over games", *_methods(result), result.player),
        rows=rows,
        caption=f"{result.player}: {_count(own.runs, 'run')}, all games counting the same. "
        f"{intervals}. Published methods: worked out from their mean scores in each game "
        f"({result.source}), so that their interquartile mean and optimality gap are of games and "
        "not of runs.",
    )


def _aggregate_rows(
    own: Aggregates | None, published: list[Aggregates]
) -> tuple[tuple[str, ...], ...]:
    """Returns a row for each figure; without our own over the games that we have not all run."""
    figures = [field.name for field in fields(Aggregates) if field.name not in ("games", "runs")]
    return tuple(
        (
            figure.replace("_", " "),
            str(published[0].games),
            *(_figure(figure, each) for each in published),
            _figure(figure, own) if own else _NOT_THERE,
        )
        for figure in figures
    )


def _figure(name: str, aggregates: Aggregates) -> str:
    each: Aggregate = getattr(aggregates, name)
    digits = 0 if name == "human_or_above" else 3
    if each.low is None or each.high is None:
        return f"{each.value:.{digits}f}"
    return f"{each.value:.{digits}f} [{each.low:.{digits}f}, {each.high:.{digits}f}]"


def _methods(result: Atari100k) -> tuple[str, ...]:
    return tuple(each.method for each in result.published)


def _raw(score: float) -> str:
    return f"{score:.1f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _markdown_row(cells: tuple[str, ...]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
