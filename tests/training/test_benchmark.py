import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dreamenv.errors import ConfigError, FormatError
from dreamenv.evaluation.atari100k import Atari100k
from dreamenv.evaluation.bootstrap import estimate_mean
from dreamenv.evaluation.real_scores import Game, RealScores
from dreamenv.real import describe
from dreamenv.training import completion
from dreamenv.training.benchmark import BenchmarkConfig, benchmark_atari100k
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.loop_presets import loop_preset
from dreamenv.training.loop_report import TrainResults


@pytest.fixture
def config(tmp_path: Path) -> BenchmarkConfig:
    return BenchmarkConfig(games="Pong, Breakout", seeds=2, preset="tiny", out=str(tmp_path))


def played(player: str, score: float) -> RealScores:
    games = tuple(Game(score + offset, 10, truncated=False) for offset in (-1.0, 1.0))
    return RealScores(player, estimate_mean([game.score for game in games]), games)


def finish(run: TrainConfig, score: float) -> None:
    """Leaves what a run leaves whose agent earns that score."""
    results = TrainResults(
        dreamenv="0",
        settings=run,
        environment=describe(run.env, 64),
        real_steps=run.schedule.steps,
        random=played("random", 0),
        agent=played("agent", score),
    )
    run.run_folder.path.mkdir(parents=True)
    (run.run_folder.results).write_text(json.dumps(results.to_dict()))


def report(config: BenchmarkConfig, *, collect_only: bool = False) -> tuple[Atari100k, str]:
    printed = io.StringIO()
    console = Console(file=printed, width=160)
    return benchmark_atari100k(config, console, collect_only=collect_only), printed.getvalue()


def test_there_is_a_run_for_each_game_and_seed(config: BenchmarkConfig, tmp_path: Path) -> None:
    runs = config.runs
    assert [(run.env, run.seed) for run in runs] == [
        ("ALE/Pong-v5", 0),
        ("ALE/Pong-v5", 1),
        ("ALE/Breakout-v5", 0),
        ("ALE/Breakout-v5", 1),
    ]
    assert runs[1].run_folder.path == tmp_path / "Pong" / "seed-1"
    assert runs[1].schedule == loop_preset("tiny", "ALE/Pong-v5").schedule
    assert len(BenchmarkConfig().runs) == 26 * 5


def test_what_is_finished_is_not_run_again_and_what_was_begun_is_gone_on_with(
    config: BenchmarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *others = config.runs
    finish(first, 3.0)
    second.run_folder.path.mkdir(parents=True)
    second.run_folder.config.write_text("{}")
    made: list[tuple[TrainConfig, bool]] = []

    def make(run: TrainConfig, _: Console, *, resume: bool, **__: Any) -> None:
        made.append((run, resume))
        (run.run_folder.path / "config.json").unlink(missing_ok=True)
        if run.run_folder.path.exists():
            run.run_folder.path.rmdir()
        finish(run, 5.0)

    monkeypatch.setattr(completion, "train", make)
    result, printed = report(config)
    assert made == [(second, True), *((run, False) for run in others)]
    pong, breakout = sorted(result.games, key=lambda game: game.reference.game)[::-1]
    assert (pong.reference.game, pong.score) == ("Pong", 4.0)
    assert (breakout.reference.game, breakout.score) == ("Breakout", 5.0)
    assert "4 of 4 runs: " in printed
    folder = Path(config.out)
    assert {"table.md", "scores.json", "profile.png"} <= {file.name for file in folder.iterdir()}


def test_runs_can_be_collected_alone(
    config: BenchmarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "train", None)
    with pytest.raises(FormatError, match="has no finished run; leave out --collect-only"):
        report(config, collect_only=True)
    finish(config.runs[2], 30.0)
    result, printed = report(config, collect_only=True)
    assert [game.reference.game for game in result.games] == ["Breakout"]
    assert "1 of 4 runs: " in printed


def test_runs_of_other_settings_are_no_part_of_it(
    config: BenchmarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "train", None)  # refused before the first run
    finish(config.runs[3], 1.0)
    with pytest.raises(ConfigError, match=r"seed-1 was made with .*; .* name another --out"):
        report(replace(config, preset="small"))


def test_where_a_run_was_made_is_of_no_concern(
    config: BenchmarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(config.runs[0], 1.0)
    monkeypatch.chdir(tmp_path)
    result, _ = report(replace(config, out=".", device="cpu"), collect_only=True)
    assert [game.reference.game for game in result.games] == ["Pong"]


def test_damaged_results_are_named(config: BenchmarkConfig) -> None:
    finish(config.runs[0], 1.0)
    (config.runs[0].run_folder.results).write_text("{")
    with pytest.raises(FormatError, match=r"seed-0/results\.json is not JSON .* delete it"):
        report(config, collect_only=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"games": "Pong,Pogn"}, "'Pogn' is no game of Atari 100k; give any of"),
        ({"games": "Pong,Pong"}, "name each game once"),
        ({"seeds": 0}, "seeds is 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BenchmarkConfig(**settings)
