import io
from dataclasses import replace

from rich.console import Console

from dreamenv.evaluation.bootstrap import Estimate
from dreamenv.evaluation.detection import Detection
from dreamenv.evaluation.fidelity import DreamFidelity, Fidelity, FidelityConfig
from dreamenv.evaluation.figures import FrameError, Outcomes, Presence, Score
from dreamenv.evaluation.playing import PlayerRates, Rates
from dreamenv.evaluation.report import tables

OUTCOMES = Outcomes(*(Score.of(Detection(3, 4, count)) for count in (6, 12, 5, 3)))
OWN = DreamFidelity(
    levels=(80.0, 0.292),
    is_own=True,
    frames=(
        FrameError(1, 9, 2, 1.0, 48.131, 47.5, 49.0),
        FrameError(5, 9, 2, 0.5, 51.2, 50.0, None),
        FrameError(20, 4, 1, 0.0, None, None, None),
        FrameError(50, 0, 0, None, None, None, None),
    ),
    ball_at=None,
    ball_up_to=None,
    ball_near_up_to=None,
    false_ball_up_to=None,
    outcomes=OUTCOMES,
)
PRESENCES = (
    Presence(1, 9, 2, 0.912, 0.85, 0.95),
    Presence(5, 9, 1, 0.5, None, None),
    *(Presence(horizon, 0, 0, None, None, None) for horizon in (20, 50)),
)
FIDELITY = Fidelity(
    dreamenv="0",
    command="",
    world_model="W",
    data="D",
    environment="Test/Count-v0",
    device="cpu",
    settings=FidelityConfig(horizons=(1, 5, 20, 50)),
    held_out_episodes=2,
    held_out_steps=1234,
    windows=9,
    outcomes=OUTCOMES,
    dreams=(OWN, replace(OWN, levels=(80.0,), is_own=False)),
    pictured=(),
    pictured_steps=(),
)


def printed(fidelity: Fidelity) -> list[list[str]]:
    """The cells of each line."""
    console = Console(file=io.StringIO(), width=200)
    for table in tables(fidelity):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_frames_have_decibels_with_an_interval_where_there_is_one() -> None:
    lines = printed(FIDELITY)
    figures = ["48.13 [47.50, 49.00]", "51.20 [50.00, exact]", "exact", "-"]
    assert ["80, 0.292 (own)", *figures] in lines
    assert ["80", *figures] in lines
    assert ["windows (episodes)", "9 (2)", "9 (2)", "4 (1)", "0 (0)"] in lines


def test_rewards_and_ends_have_precision_and_recall() -> None:
    lines = printed(FIDELITY)
    shares = [f"0.750 / {3 / count:.3f} ({count})" for count in (6, 12, 5, 3)]
    assert ["real frames", *shares] in lines
    assert ["dreamt, 80, 0.292 (own)", *shares] in lines


def test_balls_have_shares_where_they_can_be_told() -> None:
    assert not any("ball" in cell for line in printed(FIDELITY) for cell in line)
    seen = replace(
        OWN,
        ball_at=PRESENCES,
        ball_up_to=PRESENCES,
        ball_near_up_to=PRESENCES[1:] + PRESENCES[:1],
        false_ball_up_to=PRESENCES,
    )
    lines = printed(replace(FIDELITY, dreams=(seen,)))
    shares = ["91.2% [85.0%, 95.0%]", "50.0%", "-", "-"]
    for label in ("at", "up to", "false"):
        assert ["80, 0.292 (own)", label, *shares] in lines
    near = ["near the real one, up to", *shares[1:], *shares[:1]]
    assert ["80, 0.292 (own)", *near] in lines


def test_players_stand_with_the_dream_above_the_game() -> None:
    assert not any("player" in cell for line in printed(FIDELITY) for cell in line)
    rates = Rates(Estimate(2.5, 2.25, 3.0, 4), Estimate(0.0, 0.0, 0.0, 4), Estimate(1, 0.5, 2, 4))
    real = replace(rates, ends=Estimate(9.0, 8.0, 10.0, 4))
    lines = printed(replace(FIDELITY, players=(PlayerRates("Bold", 6400, rates, real),)))
    both = ["2.50 [2.25, 3.00]", "0.00 [0.00, 0.00]"]
    dreamt = lines.index(["Bold", "dreams", *both, "1.00 [0.50, 2.00]"])
    assert lines[dreamt + 1] == ["Bold", "the real game", *both, "9.00 [8.00, 10.00]"]
    assert any("6,400 steps of either" in cell for line in lines for cell in line)
