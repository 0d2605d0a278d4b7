import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from dreamenv.data import Replay
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import DreamenvError, FormatError
from dreamenv.real import describe
from dreamenv.training.collect import CollectConfig
from dreamenv.training.collect_run import collect_into
from dreamenv.training.stopping import Stopped

from .printing import printed

AssertSameReplays = Callable[[Replay, Replay], None]

TOY = CollectConfig(steps=100, num_envs=2)


def test_it_collects_and_says_what_and_what_next(
    tmp_path: Path, catch: EnvironmentSpec, console: Console
) -> None:
    folder = tmp_path / "replay"
    replay = collect_into(folder, catch, TOY, console)
    signs = replay.reward_signs
    assert replay.num_steps == 100
    assert replay.environment == catch
    bar, summary, following = printed(console).splitlines()
    assert bar.startswith("collect: 100/100, ")
    assert summary.startswith(f"collected 100 steps in {replay.num_episodes} episodes, ")
    assert summary.endswith(f"rewards below 0: {signs.negative}, above: {signs.positive}")
    assert following == f"next: dreamenv fit-model --dataset {folder}"


def test_run_again_it_collects_nothing_more(
    tmp_path: Path, catch: EnvironmentSpec, console: Console
) -> None:
    for _ in range(2):
        replay = collect_into(tmp_path, catch, TOY, console)
    assert replay.num_steps == 100
    assert printed(console).count("collected") == 1


def test_run_again_with_other_settings_it_adds(
    tmp_path: Path, catch: EnvironmentSpec, console: Console
) -> None:
    collect_into(tmp_path, catch, TOY, console)
    other = CollectConfig(steps=50, num_envs=2)
    assert collect_into(tmp_path, catch, other, console).num_steps == 150


def test_stopped_by_a_signal_it_keeps_what_it_has_and_goes_on(
    tmp_path: Path,
    catch: EnvironmentSpec,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    assert_same_replays: AssertSameReplays,
) -> None:
    extend = Replay.extend

    def interrupted(replay: Replay, episodes: object) -> None:
        extend(replay, episodes)  # type: ignore[arg-type]
        if replay.num_episodes == 4:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = tmp_path / "stopped"
    with monkeypatch.context() as keyboard:
        keyboard.setattr(Replay, "extend", interrupted)
        with pytest.raises(Stopped, match=r"\d+ steps are kept in .*stopped: run the same"):
            collect_into(stopped, catch, TOY, console)
    kept = Replay.open(stopped)
    assert kept.num_episodes >= 4
    assert kept.num_steps < TOY.steps
    whole = collect_into(tmp_path / "whole", catch, TOY, console)
    assert_same_replays(whole, collect_into(stopped, catch, TOY, console))


def test_damaged_episodes_are_named_and_are_not_fatal(
    tmp_path: Path, catch: EnvironmentSpec, console: Console
) -> None:
    lost = collect_into(tmp_path, catch, TOY, console).lengths[2]
    (tmp_path / "episodes" / "000002.npz").write_bytes(b"PK")
    other = CollectConfig(steps=30, num_envs=2)
    replay = collect_into(tmp_path, catch, other, console)
    assert replay.num_steps == 130 - lost
    assert "skipped: " in printed(console)
    assert "000002.npz" in printed(console)


def test_a_replay_of_another_game_is_refused(
    tmp_path: Path, catch: EnvironmentSpec, console: Console
) -> None:
    collect_into(tmp_path, catch, TOY, console)
    with pytest.raises(FormatError, match="another environment"):
        collect_into(tmp_path, describe(catch.id, 20), TOY, console)


def test_a_replay_that_may_not_be_read_is_told_in_one_line(
    tmp_path: Path, catch: EnvironmentSpec, console: Console, locked: set[Path]
) -> None:
    locked.add(tmp_path / "replay")
    with pytest.raises(DreamenvError, match=r"replay.*: Permission denied; name another"):
        collect_into(tmp_path / "replay", catch, TOY, console)
