"""Finding a real environment by its id, and helping where that fails."""

import difflib
import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium
from gymnasium.envs.registration import EnvSpec

from dreamenv.errors import DreamenvError, GameError

_ATARI_ENTRY_POINT = "ale_py.env:AtariEnv"


def find(env_id: str) -> EnvSpec:
    """Finds the registration of a Gymnasium id.

    Args:
        env_id: Such as `ALE/Pong-v5`, `CartPole-v1`, or `package:Id-v0`, which imports
            `package` first. The ids of Atari games before v5 are not accepted: they fix a frame
            skip and sticky actions of their own.

    Raises:
        GameError: No such id, or no such package, or one that cannot be imported.
    """
    import ale_py  # registers the Atari games; not at the top, so that --help stays quick

    gymnasium.register_envs(ale_py)
    package, _, name = env_id.rpartition(":")
    if package:
        with one_line_errors(env_id):
            importlib.import_module(package)
    entry = gymnasium.registry.get(name)
    if entry is None or _is_old_atari(entry):
        raise GameError(_unknown(name))
    return entry


def is_atari(entry: EnvSpec) -> bool:
    """Whether the registration is that of an Atari game of ale-py."""
    return entry.entry_point == _ATARI_ENTRY_POINT


@contextmanager
def one_line_errors(env_id: str) -> Iterator[None]:
    """Turns what keeps an environment from being opened into one line that names it.

    Raises:
        GameError: Gymnasium refused, a package that the environment needs is missing (Gymnasium's
            own message says which to install), or the code of either failed.
    """
    try:
        yield
    except DreamenvError:
        raise
    except ModuleNotFoundError as error:
        raise GameError(f"{env_id}: {error}; install the package that has it") from error
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise GameError(f"{env_id}: {' '.join(str(error).split())}") from error
    except Exception as error:  # code of others: there is no telling what it raises
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise GameError(
            f"{env_id}: its own code fails ({reason}); repair or reinstall it"
        ) from error


def _is_old_atari(entry: EnvSpec) -> bool:
    return is_atari(entry) and entry.namespace != "ALE"


def _unknown(name: str) -> str:
    nearest = _nearest(name)
    if nearest:
        return f"{name!r} is not a known environment; did you mean {', '.join(nearest)}?"
    return (
        f"{name!r} is not a known environment; write package:Id-v0 if another package registers it"
    )


def _nearest(name: str) -> list[str]:
    ids: dict[str, list[str]] = {}
    for known in _newest_ids():
        ids.setdefault(_bare(known), []).append(known)
    wanted = _bare(name)
    matches = [wanted] if wanted in ids else difflib.get_close_matches(wanted, ids, n=3)
    return [known for match in matches for known in ids[match]]


def _newest_ids() -> list[str]:
    """The ids worth a suggestion: the newest version of each, and no dreams."""
    entries = [
        entry
        for entry in gymnasium.registry.values()
        if entry.namespace != "DreamEnv" and not _is_old_atari(entry)
    ]
    by_version = sorted(entries, key=lambda entry: entry.version or 0)
    return list({(entry.namespace, entry.name): entry.id for entry in by_version}.values())


def _bare(name: str) -> str:
    """`pong` for `ALE/Pong-v5`, `PongNoFrameskip-v4`, `pong` and `PONG`."""
    name = name.rpartition("/")[2].lower()
    name = re.sub(r"(noframeskip|deterministic)?(-v\d+)?$", "", name)
    return re.sub(r"[^a-z0-9]", "", name)
