"""World models of others, from the Hugging Face Hub: fetched, checked, and only then kept.

What is fetched are the files of a world model and no others; none of them can run code.
"""

import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import Self

from dreamenv.data.disk import naming_disk_errors
from dreamenv.errors import ConfigError, DreamenvError, FormatError, InputError
from dreamenv.files import atomic_folder_update
from dreamenv.models.world_model import CONFIG_FILE, WEIGHTS_FILE, WorldModel
from dreamenv.registration import NAME_PATTERN, NAMESPACE, home

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NEEDED = (CONFIG_FILE, WEIGHTS_FILE, "contexts.npz")
_OPTIONAL = ("README.md", "agent.safetensors")
_MEASURED = ("fidelity.json", "fidelity.png")  # what `zoo build` leaves beside a world it made
_TIMEOUT = 30.0
_UNAUTHORISED = 401
_WORLDS_NAMED = 8


def pull(
    source: str,
    *,
    check_contexts: Callable[[Path], object],
    name: str | None = None,
    revision: str | None = None,
    overwrite: bool = False,
    endpoint: str | None = None,
) -> Path:
    """Fetches a world model from the Hugging Face Hub into `home()`.

    It appears there whole, once it is known to be one; before that nothing is changed. Call
    `dreamenv.register_ids()` to use its id in the same process.

    Args:
        source: `OWNER/REPOSITORY`, or `OWNER/REPOSITORY/SUBFOLDER` where one holds several.
        check_contexts: Called with the fetched folder; raises a `DreamenvError` where its contexts
            cannot be dreamt from. `Contexts.load` does.
        name: What it will be called here; by default the last part of `source`. The `-v0` of an
            id is left out.
        revision: A branch, a tag or a commit; the main branch if None.
        overwrite: Replace a world model of that name.
        endpoint: Address of the Hub; that of huggingface_hub, `$HF_ENDPOINT`, if None.

    Returns:
        The folder of the world model.

    Raises:
        InputError: `source` is no name of a repository, or there is none of that name.
        ConfigError: `name` cannot be part of an id.
        FormatError: There is no whole world model in it, or one of that name is here already.
        DreamenvError: The Hub cannot be reached or refuses, the disk is full, or huggingface_hub
            is not installed.
    """
    place = _Place.parse(source)
    folder = home() / _name_here(source.rsplit("/", maxsplit=1)[-1] if name is None else name)
    with naming_disk_errors(home()):
        _refuse_existing(folder, overwrite=overwrite)
        hub = _Hub(_api(endpoint), place)
        found = hub.find(revision)
        home().mkdir(parents=True, exist_ok=True)
        _check_space(found)
        # Beside the folder, so that its files are moved there and not copied.
        with tempfile.TemporaryDirectory(dir=home(), prefix=f".{folder.name}-") as beside:
            fetched = hub.fetch(found, Path(beside))
            _check(fetched, place, check_contexts)
            _refuse_existing(folder, overwrite=overwrite)  # others may have been faster
            _appear(folder, fetched, found.names)
    return folder


@dataclass(frozen=True)
class _Place:
    """Where on the Hub a world model is."""

    repository: str
    subfolder: str

    @classmethod
    def parse(cls, source: str) -> Self:
        parts = source.split("/")
        if len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
            raise InputError(
                f"{source!r} names no world model on the Hub; give OWNER/REPOSITORY, or "
                f"OWNER/REPOSITORY/SUBFOLDER"
            )
        return cls("/".join(parts[:2]), "/".join(parts[2:]))

    def __str__(self) -> str:
        return "/".join(part for part in (self.repository, self.subfolder) if part)

    def path(self, name: str) -> str:
        """The file's path in the repository."""
        return f"{self.subfolder}/{name}" if self.subfolder else name


@dataclass(frozen=True)
class _Found:
    """What of a world model is in a repository, at one commit of it."""

    commit: str
    names: tuple[str, ...]
    size: int


class _Hub:
    """One world model on the Hub, whose errors are told as ours."""

    def __init__(self, api: "HfApi", place: _Place) -> None:
        self._api, self._place = api, place

    def find(self, revision: str | None) -> _Found:
        """Looks up the files of the world model, and the commit they are of."""
        place = self._place
        with _telling_hub_errors(place, revision):
            info = self._api.model_info(
                place.repository, revision=revision, files_metadata=True, timeout=_TIMEOUT
            )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        missing = [name for name in _NEEDED if place.path(name) not in sizes]
        if missing:
            raise FormatError(
                f"{place} is not a world model of dreamenv: it has no {missing[0]}; "
                f"{_advice(place, list(sizes))}"
            )
        names = tuple(name for name in (*_NEEDED, *_OPTIONAL) if place.path(name) in sizes)
        size = sum(sizes[place.path(name)] for name in names)
        return _Found(info.sha or revision or "main", names, size)

    def fetch(self, found: _Found, into: Path) -> Path:
        """Fetches the files, and returns the folder they are in."""
        for name in found.names:
            with _telling_hub_errors(self._place, found.commit):
                self._api.hf_hub_download(
                    self._place.repository,
                    self._place.path(name),
                    revision=found.commit,
                    local_dir=into,
                )
        return into / self._place.subfolder


def _name_here(name: str) -> str:
    short = name.removeprefix(f"{NAMESPACE}/").removesuffix("-v0")
    if not re.fullmatch(NAME_PATTERN, short):
        raise ConfigError(
            f"name is {name!r}; it must be of letters, digits, '_', '-' and '.': add --name"
        )
    return short


def _refuse_existing(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise FormatError(
            f"{folder} is there already; add --overwrite to replace it, or --name to keep both"
        )


def _api(endpoint: str | None) -> "HfApi":
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise DreamenvError(
            f"the Hub cannot be reached without huggingface_hub ({error}); install it with "
            f"pip install 'dreamenv[hub]'"
        ) from error
    return HfApi(endpoint=endpoint)


def _advice(place: _Place, paths: list[str]) -> str:
    ending = f"/{WEIGHTS_FILE}"
    worlds = [path.removesuffix(ending) for path in paths if path.endswith(ending)]
    if not worlds:
        return "name a repository that holds one"
    more = ", ..." if len(worlds) > _WORLDS_NAMED else ""
    named = ", ".join(f"{place.repository}/{world}" for world in worlds[:_WORLDS_NAMED])
    return _printable(f"name one of {named}{more}")


def _check_space(found: _Found) -> None:
    free = shutil.disk_usage(home()).free
    if found.size > free:
        raise DreamenvError(
            f"{home()}: the disk is full: {found.size / 1e6:,.0f} MB are needed and "
            f"{free / 1e6:,.0f} MB free; free some space, or let $DREAMENV_HOME name another disk"
        )


def _check(fetched: Path, place: _Place, check_contexts: Callable[[Path], object]) -> None:
    try:
        WorldModel.load(fetched)
        check_contexts(fetched)
    except DreamenvError as error:
        # What is fetched is gone when this is read: the file on the Hub is what to look at.
        message = str(error).replace(str(fetched), str(place))
        raise FormatError(f"{_printable(message)}; nothing was changed") from None
    except (MemoryError, RecursionError):
        raise FormatError(
            f"{place} asks for more memory than there is; name another, or a larger machine"
        ) from None


def _appear(folder: Path, fetched: Path, names: tuple[str, ...]) -> None:
    with atomic_folder_update(folder) as staging:
        for name in names:
            (fetched / name).replace(staging / name)
    for name in {*_NEEDED, *_OPTIONAL, *_MEASURED} - {*names}:
        (folder / name).unlink(missing_ok=True)  # the agent and the figures of another world


@contextmanager
def _telling_hub_errors(place: _Place, revision: str | None) -> Iterator[None]:
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)  # its warnings of retries would stand around our one line
    try:
        yield
    except Exception as error:
        # Any, for its HTTP client and its native downloader have errors of their own.
        if _is_of_the_disk(error):
            raise
        raise _explain(error, place, revision) from error
    finally:
        log.setLevel(level)


def _is_of_the_disk(error: Exception) -> bool:
    of_the_network = isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, OSError) and error.errno is not None and not of_the_network


def _explain(error: Exception, place: _Place, revision: str | None) -> DreamenvError:
    from huggingface_hub import errors

    repository = place.repository
    if isinstance(error, errors.GatedRepoError):
        return DreamenvError(
            f"{repository} is gated: ask for access on its page, log in with `hf auth login`, and "
            f"try again"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(
            f"there is no {repository} on the Hub, or it is private; check the name, or log in "
            f"with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(
            f"{repository} has no revision {revision!r}; name a branch, a tag or a commit of it"
        )
    if isinstance(error, errors.HFValidationError):
        return InputError(f"{repository!r} cannot be a repository on the Hub; check the name")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return DreamenvError(f"{place} cannot be fetched: HF_HUB_OFFLINE is set; unset it")
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code == _UNAUTHORISED:
        return DreamenvError(
            f"the Hub does not give {repository} to strangers; check the name, or log in with "
            f"`hf auth login`"
        )
    # What it raises where it could not connect speaks of its cache; the cause says why.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    reason = _printable(str(cause or error)) or type(error).__name__
    return DreamenvError(
        f"{place} cannot be fetched ({reason}); check the network, and try again later"
    )


def _printable(text: str) -> str:
    """Leaves out what strangers could steer a terminal with."""
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())
