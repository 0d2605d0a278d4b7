import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import dreamenv.cli.bench
from dreamenv.cli.main import main

Command = Callable[..., subprocess.CompletedProcess[str]]

COMMANDS = (
    "fit-model",
    "collect",
    "evaluate-model",
    "train",
    "train-agent",
    "evaluate-agent",
    "bench",
    "benchmark",
    "zoo",
    "pull",
)
COMMAND = re.compile(r"(?:(?<=dreamenv )|(?<=`))[a-z]+(?:-[a-z]+)?")
OPTION = re.compile(r"--[a-z][a-z0-9.-]+")
OF_TORCHRUN = {"--nproc-per-node", "--no-python"}


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in COMMANDS)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("dreamenv 0.")


def test_no_command_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
    assert "usage" in capsys.readouterr().out


def test_an_unknown_command_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fitmodel"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == (
        "dreamenv: there is no command 'fitmodel'; see dreamenv --help\n"
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 2.00 GiB."),
        torch.OutOfMemoryError("Unable to allocate 2.00 GiB.\nException raised from malloc"),
    ],
    ids=["host", "GPU"],
)
def test_want_of_memory_is_told_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dreamenv.cli.bench, "run", Mock(side_effect=error))
    with pytest.raises(SystemExit) as exit_:
        main(["bench"])
    assert exit_.value.code == 1
    assert capsys.readouterr().err == (
        "dreamenv: memory does not suffice (Unable to allocate 2.00 GiB.); ask for less at once: "
        "fewer dreams or games, smaller batches\n"
    )


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dreamenv.cli.bench, "run", Mock(side_effect=RuntimeError("a mistake")))
    with pytest.raises(RuntimeError, match="a mistake"):
        main(["bench"])


def test_help_and_the_import_wait_for_no_torch() -> None:
    code = (
        "import sys, dreamenv\n"
        "from dreamenv.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'ale_py', 'stable_baselines3'} & set(sys.modules))"
    )
    started = time.monotonic()
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.endswith("set()\n")
    assert time.monotonic() - started < 1


def test_help_of_a_command_lists_its_options(command: Command) -> None:
    shown = command("fit-model", "--help")
    assert shown.returncode == 0
    for option in (
        "--env",
        "--preset",
        "--collect-steps",
        "--steps",
        "--batch-size",
        "--device",
        "--seed",
        "--name",
        "--out",
        "--resume",
        "--dry-run",
        "--compile",
    ):
        assert option in shown.stdout


def test_every_option_that_the_readme_names_is_one_of_the_commands_around_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known: dict[str, set[str]] = {}
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known[command] = set(OPTION.findall(capsys.readouterr().out))
    sections = (Path(__file__).parents[2] / "README.md").read_text().split("\n## ")
    assert sum(len(OPTION.findall(section)) for section in sections) > 80
    for section in sections:
        commands = set(COMMAND.findall(section)) & set(COMMANDS)
        options = set[str]().union(*(known[command] for command in commands or COMMANDS))
        unknown = set(OPTION.findall(section)) - OF_TORCHRUN - options
        assert not unknown, section.splitlines()[0]
