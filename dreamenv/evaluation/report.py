"""The figures of a world model's fidelity as tables."""

from collections.abc import Iterator

from rich.table import Table

from dreamenv.evaluation.ball import NEAR
from dreamenv.evaluation.fidelity import DreamFidelity, Fidelity
from dreamenv.evaluation.figures import FrameError, Outcomes, Presence


def tables(fidelity: Fidelity) -> Iterator[Table]:
    """Lays the figures out for people."""
    yield _outcomes(fidelity)
    yield _frames(fidelity)
    if any(dream.ball_at for dream in fidelity.dreams):
        yield _balls(fidelity)
    if fidelity.players:
        yield _players(fidelity)


def _outcomes(fidelity: Fidelity) -> Table:
    table = Table(
        "predicted from",
        *("reward -1", "reward 0", "reward 1", "end"),
        title="Rewards and ends, precision / recall (times)",
        caption=f"real frames: all {fidelity.held_out_steps:,} steps of the held-out episodes, "
        f"{fidelity.held_out_episodes:,} in number; dreamt: those of the windows below",
    )
    table.add_row("real frames", *_scores(fidelity.outcomes))
    for dream in fidelity.dreams:
        table.add_row(f"dreamt, {_levels(dream)}", *_scores(dream.outcomes))
    return table


def _frames(fidelity: Fidelity) -> Table:
    horizons = fidelity.settings.horizons
    frames = fidelity.dreams[0].frames
    table = Table(
        "noise levels",
        *(f"step {horizon}" for horizon in horizons),
        title="Dreamt frames, PSNR in dB [95% interval]",
        caption=f"{fidelity.windows:,} windows along their own actions; intervals are of resampled "
        f"episodes, and take two",
    )
    for dream in fidelity.dreams:
        table.add_row(_levels(dream), *(_decibels(frame) for frame in dream.frames))
    table.add_row("windows (episodes)", *(f"{each.windows} ({each.episodes})" for each in frames))
    return table


def _balls(fidelity: Fidelity) -> Table:
    table = Table(
        "noise levels",
        "frames",
        *(f"step {horizon}" for horizon in fidelity.settings.horizons),
        title="A dreamt frame has a ball [95% interval]",
        caption="at a step, and in all frames up to it, where the real frame has one; near: less "
        f"than {NEAR:g} pixels from it; false: in all frames up to the step, where the real frame "
        "has none",
    )
    for dream in fidelity.dreams:
        rows = {
            "at": dream.ball_at,
            "up to": dream.ball_up_to,
            "near the real one, up to": dream.ball_near_up_to,
            "false": dream.false_ball_up_to,
        }
        for label, presences in rows.items():
            table.add_row(_levels(dream), label, *(_share(each) for each in presences or ()))
    return table


def _players(fidelity: Fidelity) -> Table:
    table = Table(
        *("player", "of", "rewards above 0", "below 0", "ends"),
        title="How players fare, per 100 steps [95% interval]",
        caption=f"dreams of {fidelity.settings.horizons[-1]} steps from the world model's "
        f"contexts; real games from their beginnings, where the loss of a life is an end; "
        f"{fidelity.players[0].steps:,} steps of either",
    )
    for player in fidelity.players:
        for label, rates in (("dreams", player.dreamt), ("the real game", player.real)):
            cells = (rates.positive, rates.negative, rates.ends)
            table.add_row(player.player, label, *map(str, cells))
    return table


def _levels(dream: DreamFidelity) -> str:
    levels = ", ".join(f"{level:.3g}" for level in dream.levels)
    return f"{levels} (own)" if dream.is_own else levels


def _scores(outcomes: Outcomes) -> Iterator[str]:
    scores = (outcomes.negative, outcomes.zero, outcomes.positive, outcomes.end)
    return (str(score.counts) for score in scores)


def _decibels(frame: FrameError) -> str:
    if frame.windows == 0:
        return "-"
    value = "exact" if frame.psnr is None else f"{frame.psnr:.2f}"
    if frame.episodes < 2:
        return value
    low, high = ("exact" if x is None else f"{x:.2f}" for x in (frame.psnr_low, frame.psnr_high))
    return f"{value} [{low}, {high}]"


def _share(presence: Presence) -> str:
    if presence.share is None:
        return "-"
    value = f"{presence.share:.1%}"
    if presence.low is None or presence.high is None:
        return value
    return f"{value} [{presence.low:.1%}, {presence.high:.1%}]"
