import multiprocessing
import os
import shlex
import subprocess
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


# What commands import of others takes seconds: a server has it, and each command is a fork of it.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "torch",
        "torch._dynamo",  # which the first optimiser imports
        "torch.utils.tensorboard",
        "gymnasium",
        "ale_py",
        "cv2",
        "imageio.v3",
        "tyro",
        "stable_baselines3",
    ]
)

_COMMAND = """
import multiprocessing, os, runpy, sys

multiprocessing.set_start_method(None, force=True)
os.chdir(folder)
os.environ.clear()
os.environ.update(environment)
for number, name in (1, "stdout"), (2, "stderr"):
    os.dup2(os.open(printed + "/" + name, os.O_WRONLY | os.O_CREAT), number)
sys.path.insert(0, "")  # as -m and -c have it
sys.argv = ["dreamenv", *arguments]
if python is None:
    runpy.run_module("dreamenv", run_name="__main__")
else:
    exec(python, {"__name__": "__main__"})
"""


@pytest.fixture
def command(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs the command line in an empty folder, as a process of its own."""

    def run(*arguments: str, python: str | None = None) -> subprocess.CompletedProcess[str]:
        printed = tmp_path_factory.mktemp("printed")
        settings = {
            "DREAMENV_HOME": str(tmp_path / "home"),
            "XDG_RUNTIME_DIR": str(tmp_path),  # else SDL says on stderr that it has none
            "COLUMNS": "200",
        }
        names = {
            "folder": str(tmp_path),
            "environment": os.environ | settings,
            "printed": str(printed),
            "arguments": arguments,
            "python": python,
        }
        process = _FORKS.Process(target=exec, args=(_COMMAND, names))
        process.start()
        process.join(120)
        if process.exitcode is None:
            process.kill()
            pytest.fail(f"dreamenv {shlex.join(arguments)} took more than two minutes")
        texts = [(printed / name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(arguments, process.exitcode, *texts)

    return run
