"""The `dreamenv` command: finds the command that is asked for, and tells errors in one line."""

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from dreamenv.errors import DreamenvError
from dreamenv.memory import lacks_memory

# Imported only when asked for: most of them need torch, and --help must not wait for it.
_COMMANDS = {
    "fit-model": ("dreamenv.cli.fit_model", "fit a world model to a real environment"),
    "collect": ("dreamenv.cli.collect", "collect episodes of a real environment"),
    "evaluate-model": ("dreamenv.cli.evaluate_model", "measure how faithful a world model is"),
    "train": ("dreamenv.cli.train", "learn to play in imagination, as DIAMOND does"),
    "train-agent": ("dreamenv.cli.train_agent", "train an agent in a dream"),
    "evaluate-agent": ("dreamenv.cli.evaluate_agent", "have an agent play the real game"),
    "bench": ("dreamenv.cli.bench", "measure how fast a world model dreams and trains"),
    "benchmark": ("dreamenv.cli.benchmark", "compare with published methods"),
    "zoo": ("dreamenv.cli.zoo", "make a world model of the zoo again from nothing"),
    "pull": ("dreamenv.cli.pull", "fetch a world model from the Hugging Face Hub"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command, and exits.

    With 0 where it did what was asked, 1 on an error, 2 on misuse, 130 where it was stopped.

    Args:
        arguments: Those of the command line if None.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        sys.stdout.write(f"dreamenv {version('dreamenv')}\n")
        sys.exit(0)
    if words[0] not in _COMMANDS:
        sys.stderr.write(f"dreamenv: there is no command {words[0]!r}; see dreamenv --help\n")
        sys.exit(2)
    module_name, _ = _COMMANDS[words[0]]
    # Players and environments of the user's own are modules beside them.
    sys.path.insert(0, str(Path.cwd()))
    try:
        importlib.import_module(module_name).run(words[1:])
    except DreamenvError as error:
        sys.stderr.write(f"dreamenv: {' '.join(str(error).split())}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("dreamenv: interrupted\n")
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        sys.stderr.write(
            f"dreamenv: memory does not suffice ({reason}); ask for less at once: fewer dreams or "
            f"games, smaller batches\n"
        )
        sys.exit(1)


def _help() -> str:
    width = max(len(name) for name in _COMMANDS)
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: dreamenv COMMAND [OPTIONS]",
            "",
            "Learned world models as environments.",
            "",
            *lines,
            "",
            "dreamenv COMMAND --help shows the options of a command.",
            "dreamenv --version shows the version.",
            "",
        ]
    )
