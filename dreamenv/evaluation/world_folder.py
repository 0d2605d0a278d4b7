"""The folder of a world model that a command is to look at, and what to call it."""

import re
from pathlib import Path

from dreamenv.files import committed_path
from dreamenv.models.world_model import CONFIG_FILE
from dreamenv.registration import NAME_PATTERN, NAMESPACE, find_world_model

_RUNS_WORLD_MODEL, _RUNS_BEST = "world_model", "best"  # the folders in that of a run


def world_folder(name: str) -> Path:
    """Returns the folder of a world model: the one of that path, or else of that name.

    Args:
        name: A path; or a name or id, such as `Breakout` or `DreamEnv/Breakout-v0`.

    Raises:
        FormatError: There is none of that name. What is wrong with a path its loading says.
    """
    folder = Path(name)
    if committed_path(folder, CONFIG_FILE).is_file():
        return folder
    is_name = name.startswith(f"{NAMESPACE}/") or re.fullmatch(NAME_PATTERN, name)
    return find_world_model(name) if is_name else folder


def world_name(folder: Path) -> str:
    """Returns the name of a world model that is in that folder, in a run's after the run."""
    folder = folder.resolve()
    if folder.name == _RUNS_WORLD_MODEL:
        return folder.parent.name
    return f"{folder.parent.name}-{_RUNS_BEST}" if folder.name == _RUNS_BEST else folder.name
