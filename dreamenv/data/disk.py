"""A full disk, told in one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamenv.errors import DreamenvError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Turns the system's error for a disk or a quota that is full into one of ours.

    Args:
        folder: What was being written to, for the message.

    Raises:
        DreamenvError: The disk is full. Other errors of the disk stay as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise DreamenvError(
            f"{folder}: the disk is full; free some space and go on: what was there before is kept"
        ) from error
