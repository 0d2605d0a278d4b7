"""`train`, on tiny networks."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import pytest

import dreamenv  # noqa: F401  # registers the ids
from dreamenv.cli.train import parse
from dreamenv.training.loop_presets import LoopPresetName, loop_preset

Command = Callable[..., subprocess.CompletedProcess[str]]

# Of a preset that takes a minute, a few seconds.
LITTLE = (
    "--preset tiny --size 32 --schedule.first-steps 40 --schedule.first-steps-limit 40 "
    "--schedule.epoch-steps 20 --schedule.steps 60 --schedule.world-model-steps 2 "
    "--schedule.agent-steps 2 --schedule.final-episodes 1 --world-model.steps 4 "
    "--imagination.steps 2 "
    "--denoiser.cond-channels 16 --denoiser.channels 8 8 8 --reward-end.channels 8 8 8 "
    "--reward-end.lstm-dim 16 --device cpu"
).split()


@pytest.mark.parametrize("name", ["atari100k", "small", "tiny"])
def test_a_preset_sets_the_defaults(name: LoopPresetName) -> None:
    options = parse(["--env", "ALE/Pong-v5", "--preset", name])
    assert options.config == loop_preset(name, "ALE/Pong-v5")
    changed = parse(["--env", "ALE/Pong-v5", "--preset", name, "--seed", "3"])
    assert changed.config == replace(options.config, seed=3)


def test_it_ends_with_a_table_a_folder_and_curves(command: Command, tmp_path: Path) -> None:
    result = command("train", "--env", "ALE/Pong-v5", *LITTLE)
    assert result.returncode == 0, result.stderr
    assert "ALE/Pong-v5, raw scores" in result.stdout
    run = tmp_path / "runs" / "Pong-train"
    assert list(run.glob("events.out.tfevents.*"))
    assert json.loads((run / "results.json").read_text())["real_steps"] == 60
    env = gymnasium.make("DreamEnv/Pong-v0", world_model=str(run / "best"))
    assert env.reset(seed=0)[0].shape == (32, 32, 3)
    assert "dreamenv train --env ALE/Pong-v5 --preset tiny" in (run / "best/README.md").read_text()
    again = command("train", "--env", "ALE/Pong-v5", *LITTLE)
    assert again.returncode == 1
    assert again.stderr.startswith("dreamenv: runs/Pong-train holds a run already")
    assert again.stderr.count("\n") == 1
    words = "--env ALE/Pong-v5 --size 32 --episodes 1".split()
    scores = command("evaluate-agent", "runs/Pong-train/best", *words)
    assert scores.returncode == 0, scores.stderr


def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing(
    command: Command, tmp_path: Path
) -> None:
    result = command("train", "--env", "ALE/Pong-v5", "--dry-run", *LITTLE)
    assert result.returncode == 0, result.stderr
    parts = (
        "real steps",
        "steps of the world model",
        "steps of the agent",
        "games of tests",
    )
    for shown in (*parts, "share", "100%"):
        assert shown in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--env ALE/Pog-v5", "ALE/Pog-v5"),
        ("--env ALE/Pong-v5 --epsilon 2", "epsilon is 2.0; it must be in [0, 1]"),
        ("--env ALE/Pong-v5 --resume", "holds no run to go on with; leave out --resume"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    command: Command, tmp_path: Path, words: str, message: str
) -> None:
    result = command("train", *words.split())
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
