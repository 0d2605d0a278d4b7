"""The ids of dreams, `DreamEnv/<Game>-v0`, and where the world model of each is found."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import gymnasium

from dreamenv.errors import FormatError
from dreamenv.files import committed_path

NAMESPACE = "DreamEnv"
HOME_VARIABLE = "DREAMENV_HOME"
NAME_PATTERN = r"\w[\w.-]*"  # of a world model: what an id can hold

# The games of Kaiser et al., "Model-Based Reinforcement Learning for Atari" (2020): Atari 100k.
ATARI_100K = (
    "Alien",
    "Amidar",
    "Assault",
    "Asterix",
    "BankHeist",
    "BattleZone",
    "Boxing",
    "Breakout",
    "ChopperCommand",
    "CrazyClimber",
    "DemonAttack",
    "Freeway",
    "Frostbite",
    "Gopher",
    "Hero",
    "Jamesbond",
    "Kangaroo",
    "Krull",
    "KungFuMaster",
    "MsPacman",
    "Pong",
    "PrivateEye",
    "Qbert",
    "RoadRunner",
    "Seaquest",
    "UpNDown",
)

_BUNDLED = Path(__file__).parent / "zoo" / "worlds"


def home() -> Path:
    """Returns where world models are kept: `$DREAMENV_HOME`, or `~/.cache/dreamenv`."""
    named = os.environ.get(HOME_VARIABLE) or "~/.cache/dreamenv"
    # Path.expanduser raises where the user has no home.
    return Path(os.path.expanduser(named))  # noqa: PTH111


def register_ids() -> None:
    """Registers `DreamEnv/<Name>-v0` with Gymnasium, for Atari 100k and all worlds here.

    Importing dreamenv does it. Call it again for a world model that was fitted since.
    """
    for name in dict.fromkeys((*ATARI_100K, *_names_in(home()), *_names_in(_BUNDLED))):
        env_id = f"{NAMESPACE}/{name}-v0"
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id,
                entry_point="dreamenv.dream.gymnasium:DreamEnv",
                vector_entry_point="dreamenv.dream.gymnasium:DreamVectorEnv",
                kwargs={"name": name},
            )


def find_world_model(name: str) -> Path:
    """Returns the folder of the world model of that name.

    Those in `home()` come before those that dreamenv brings with it.

    Args:
        name: Such as `Breakout`; the id `DreamEnv/Breakout-v0` will do as well.

    Raises:
        FormatError: There is none, or it cannot be read; the message says what to do.
    """
    if name.startswith(f"{NAMESPACE}/"):
        name = name.removeprefix(f"{NAMESPACE}/").removesuffix("-v0")
    for folder in (home() / name, _BUNDLED / name):
        try:
            if _holds_world_model(folder):
                return folder
        except OSError as error:
            raise FormatError(
                f"{folder} cannot be read ({error.strerror}); make it readable, or name another "
                f"place for world models in ${HOME_VARIABLE}"
            ) from None
    env_id = f"ALE/{name}-v5" if name in ATARI_100K else "ID"
    raise FormatError(
        f"there is no world model {name!r} in {home()}; fit one with `dreamenv fit-model --env "
        f"{env_id} --name {name}`, or fetch one with `dreamenv pull OWNER/REPOSITORY --name {name}`"
    )


def _names_in(folder: Path) -> Iterator[str]:
    # What cannot be read has no ids; making one of its dreams says why.
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if re.fullmatch(NAME_PATTERN, entry.name) and _holds_world_model(entry):
                yield entry.name


def _holds_world_model(folder: Path) -> bool:
    return committed_path(folder, "config.json").is_file()
