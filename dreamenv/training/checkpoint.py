"""Checkpoints: everything that a run needs to go on exactly, in one file."""

import io
from pathlib import Path
from typing import Any

import torch

from dreamenv.data.disk import naming_disk_errors
from dreamenv.errors import DreamenvError, FormatError
from dreamenv.files import atomic_file
from dreamenv.memory import lacks_memory


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        path: The file to create or replace.
        state: Tensors, numbers, strings, and lists and dictionaries of them.

    Raises:
        DreamenvError: The disk is full; the checkpoint before is kept.
    """
    with naming_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Writing to the disk itself, torch.save hides the system's error in one of its own.
        written = io.BytesIO()
        torch.save(state, written)
        with atomic_file(path) as beside:
            beside.write_bytes(written.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Reads a checkpoint, its tensors on the CPU; None where there is none.

    Nothing in it can run code. What takes in its state moves that to its own device.

    Raises:
        FormatError: The file is damaged.
        DreamenvError: The disk does not let it be read, or memory does not suffice.
    """
    with naming_disk_errors(path):
        if not path.exists():
            return None
        # Reading from the disk itself, torch.load takes the system's errors for damage.
        written = io.BytesIO(path.read_bytes())
    try:
        state: dict[str, Any] = torch.load(written, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch's reader raise a dozen kinds
        if lacks_memory(error):
            raise DreamenvError(
                f"{path}: memory does not suffice to read it; free some, and go on"
            ) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FormatError(f"{path} is damaged ({reason}); delete it to start over") from None
    return state
