"""`benchmark`, without a run that is made: only what becomes of the options."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

ONE_RUN = "benchmark atari100k --games Pong --seeds 1 --preset tiny --out out".split()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--collect-only --ray local", "collect_only runs nothing; leave out --ray"),
        ("--ray 127.0.0.1:1", "there is no Ray at '127.0.0.1:1'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    command: Command, tmp_path: Path, words: str, message: str
) -> None:
    result = command(*ONE_RUN, *words.split())
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_ray_of_this_machine_is_started_and_its_failures_are_told(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "out" / "Pong").mkdir(parents=True)
    (tmp_path / "out" / "Pong" / "seed-0").write_text("in the way")
    result = command(*ONE_RUN, *"--device cpu --ray local --ray.cpus 0.5 --ray.retries 1".split())
    assert result.returncode == 1, result.stderr
    assert "runs on Ray: 1, each with CPUs: 0.5, GPUs: 0\n" in result.stdout
    assert "ALE/Pong-v5, seed 0: failed, attempt 2 of 2: " in result.stdout
    assert result.stderr.startswith("dreamenv: failed after all retries (1): ALE/Pong-v5, seed 0 (")
    assert result.stderr.count("\n") == 1
