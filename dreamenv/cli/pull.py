"""`dreamenv pull`: fetch a world model from the Hugging Face Hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from dreamenv.dream.contexts import Contexts
from dreamenv.progress import say
from dreamenv.registration import NAMESPACE
from dreamenv.zoo.hub import pull


@dataclass(frozen=True)
class Options:
    """Fetch a world model from the Hugging Face Hub.

    Its own files are fetched and nothing else; none of them can run code.

    Attributes:
        source: Where on the Hub it is. A repository may hold several, each in a subfolder.
        name: What it will be called here, in $DREAMENV_HOME; by default the last part of source.
        revision: A branch, a tag or a commit; by default the main branch.
        overwrite: Replace a world model of that name.
    """

    source: Positional[Annotated[str, arg(metavar="OWNER/REPOSITORY[/SUBFOLDER]")]]
    name: str | None = None
    revision: str | None = None
    overwrite: bool = False


def run(arguments: Sequence[str]) -> None:
    """Runs `dreamenv pull`."""
    options, console = tyro.cli(Options, prog="dreamenv pull", args=list(arguments)), Console()
    folder = pull(
        options.source,
        check_contexts=Contexts.load,
        name=options.name,
        revision=options.revision,
        overwrite=options.overwrite,
    )
    say(console, f"world model: {folder}")
    say(console, f'next: gym.make("{NAMESPACE}/{folder.name}-v0")')
