"""Files and folders that appear whole or not at all, whenever the process is killed."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COMMITTED = ".committed"
_STAGING_PREFIX = ".staging-"
_PARTIAL = ".partial"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, and renames it to `path` on success.

    Args:
        path: The file to create or replace. Its folder must exist.
    """
    beside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}{_PARTIAL}")
    try:
        yield beside
        _flush(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder_update(folder: Path) -> Iterator[Path]:
    """Yields an empty staging folder whose files then all appear in `folder` at one instant.

    The instant is the rename of the staging folder to `.committed`. From then on
    `committed_path` reads the new files, wherever a kill interrupts the moves that follow.
    Files of `folder` that are not written again stay as they are.

    Args:
        folder: The folder to create or update.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _finish_moves(folder)
    staging = folder / f"{_STAGING_PREFIX}{uuid.uuid4().hex[:8]}"
    staging.mkdir()
    try:
        yield staging
        for file in staging.iterdir():
            _flush(file)
        staging.rename(folder / _COMMITTED)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _finish_moves(folder)
    remove_abandoned(folder)


def committed_path(folder: Path, name: str) -> Path:
    """Returns where the current version of file `name` of `folder` is to be read.

    It differs from `folder / name` only after a kill in the middle of an update.
    """
    pending = folder / _COMMITTED / name
    return pending if pending.exists() else folder / name


def remove_abandoned(folder: Path) -> None:
    """Removes what writers that were killed in the middle have left in `folder`.

    Nobody may be writing there.
    """
    for staging in folder.glob(f"{_STAGING_PREFIX}*"):
        shutil.rmtree(staging, ignore_errors=True)
    for file in folder.glob(f".*{_PARTIAL}"):
        file.unlink(missing_ok=True)


def _finish_moves(folder: Path) -> None:
    committed = folder / _COMMITTED
    if not committed.is_dir():
        return
    for file in committed.iterdir():
        file.replace(folder / file.name)
    committed.rmdir()


def _flush(file: Path) -> None:
    """Waits until the file's bytes are on disk, so that a rename never names a hole."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
