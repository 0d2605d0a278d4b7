import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

# A world model of a few thousand weights: the commands are tested, not what it learns.
TINY = (
    "--steps 40 --batch-size 4 --reward-end-batch-size 4 --reward-end-length 6 "
    "--checkpoint-every 5 --validate-every 20 "
    "--denoiser.cond-channels 16 --denoiser.channels 8 8 --denoiser.depths 1 1 "
    "--denoiser.attention False False --reward-end.cond-channels 8 --reward-end.channels 8 8 "
    "--reward-end.depths 1 1 --reward-end.attention False False --reward-end.lstm-dim 16 "
    "--sampler.sigmas 20 5 --device cpu"
).split()


PLAYED = "--size 32 --collect-steps 400 --num-envs 2".split()


@pytest.fixture
def learn() -> list[str]:
    """Options for learning little, from any source."""
    return list(TINY)


@pytest.fixture
def tiny() -> list[str]:
    """Options for playing and learning little."""
    return PLAYED + TINY


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs the command line in an empty folder, as a process of its own."""

    def run(*arguments: str, python: str | None = None) -> subprocess.CompletedProcess[str]:
        start = ["-m", "dreamenv"] if python is None else ["-c", python]
        return subprocess.run(
            [sys.executable, *start, *arguments],
            cwd=tmp_path,
            env=os.environ
            | {
                "DREAMENV_HOME": str(tmp_path / "home"),
                "XDG_RUNTIME_DIR": str(tmp_path),  # else SDL says on stderr that it has none
                "COLUMNS": "200",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run
