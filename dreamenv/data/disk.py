"""What the disk refuses, told in one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamenv.errors import DreamenvError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turns the system's errors of reading and writing files into one of ours.

    Args:
        folder: What is being written to, for the message.

    Raises:
        DreamenvError: The disk is full, or does not let a file be read or written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DreamenvError(
                f"{folder}: the disk is full; free some space and go on: what was there before is "
                f"kept"
            ) from error
        place = error.filename or folder
        raise DreamenvError(
            f"{place}: {error.strerror or error}; name another folder, or make this one writable"
        ) from error
