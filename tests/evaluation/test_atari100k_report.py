import io
import json
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from dreamenv.errors import DreamenvError
from dreamenv.evaluation.atari100k import Atari100k, Run, references, summarise
from dreamenv.evaluation.atari100k_report import tables, to_markdown, write_report

RUNS = [
    Run("Pong", 0, (-20.7, 14.6)),
    Run("Pong", 1, (14.6,)),
    Run("Breakout", 0, (1.7, 1.7)),
    Run("Breakout", 4, (30.5, 30.5)),
]
FILES = ["profile.png", "scores.json", "table.md"]
METHODS = ["SimPLe", "TWM", "IRIS", "DreamerV3", "STORM", "DIAMOND"]


def shown(result: Atari100k, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    for table in tables(result):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().replace("┃", "│")


def cells(text: str) -> list[list[str]]:
    """Those of each line of either kind of table."""
    lines = text.replace("│", "|").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def result() -> Atari100k:
    return summarise(RUNS, player="mine")


either_kind = pytest.mark.parametrize("lay_out", [shown, to_markdown])
LayOut = Callable[[Atari100k], str]


@either_kind
def test_scores_stand_beside_those_published_and_name_their_source(
    lay_out: LayOut, result: Atari100k
) -> None:
    text = lay_out(result)
    lines = cells(text)
    assert ["game", "random", "human", *METHODS, "mine"] in lines
    pong = ["Pong", "-20.7", "14.6", "12.8", "18.8", "14.6", "18.0", "11.3", "20.4", "5.8"]
    assert pong in lines
    assert "as published in Alonso et al., NeurIPS 2024, Table 1" in text


@either_kind
def test_each_seed_is_told_and_which_are_missing(lay_out: LayOut, result: Atari100k) -> None:
    text = lay_out(result)
    lines = cells(text)
    assert ["game", "seed 0", "seed 1", "seed 4", "mean", "human-normalised"] in lines
    assert ["Breakout", "1.7", "-", "30.5", "16.1", "0.500"] in lines
    assert ["Pong", "-3.0", "14.6", "-", "5.8", "0.750"] in lines
    assert "mean of its 1 to 2 test episodes" in text


@either_kind
def test_figures_of_some_games_say_so_and_all_games_stand_below(
    lay_out: LayOut, result: Atari100k
) -> None:
    text = lay_out(result)
    lines = cells(text)
    assert "Human-normalised scores over 2 of 26 games" in text
    assert "mine: 4 runs, all games counting the same" in text
    some, whole = (line for line in lines if line[0] == "mean")
    assert some[1] == "2"
    assert some[-1].startswith("0.625 [")
    everywhere = ["0.332", "0.956", "1.046", "1.130", "1.266", "1.459"]
    assert whole == ["mean", "26", *everywhere, "-"]
    assert [line[-1] for line in lines if line[0] == "human or above"] == ["0 [0, 2]", "-"]


@either_kind
def test_figures_of_all_games_are_told_once(lay_out: LayOut) -> None:
    all_games = [Run(each.game, 0, (each.human,)) for each in references()]
    text = lay_out(summarise(all_games))
    assert "over 26 of 26 games" in text
    assert [line[-1] for line in cells(text) if line[0] == "human or above"] == ["26"]
    assert "Intervals take two seeds of every game" in text


def test_a_narrow_terminal_cuts_no_number_off(result: Atari100k) -> None:
    assert "…" not in shown(result, width=60)


@either_kind
def test_a_name_is_shown_as_it_is(lay_out: LayOut) -> None:
    text = lay_out(summarise(RUNS, player="[bold]mine"))
    assert "The runs of [bold]mine" in text


def test_a_bar_in_a_name_does_not_break_a_row() -> None:
    assert "| mine\\|yours |" in to_markdown(summarise(RUNS, player="mine|yours"))


def test_the_report_is_tables_figures_and_a_picture(tmp_path: Path, result: Atari100k) -> None:
    table = write_report(result, tmp_path / "deep" / "report")
    assert table == tmp_path / "deep" / "report" / "table.md"
    assert sorted(path.name for path in table.parent.iterdir()) == FILES
    assert table.read_text(encoding="utf-8") == to_markdown(result)
    data = json.loads((table.parent / "scores.json").read_text(encoding="utf-8"))
    assert Atari100k.from_dict(data, "scores.json") == result
    height, width, _ = imageio.imread(table.parent / "profile.png").shape
    assert height > 400
    assert width > 700


def test_a_report_that_fails_leaves_the_one_before(
    tmp_path: Path, result: Atari100k, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_report(result, tmp_path).read_text(encoding="utf-8")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(DreamenvError, match="the disk is full"):
        write_report(summarise(RUNS[:2]), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == before
