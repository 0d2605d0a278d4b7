"""Checkpoints: everything that a run needs to go on exactly, in one file."""

import io
from pathlib import Path
from typing import Any

import torch

from dreamenv.data.disk import naming_disk_errors
from dreamenv.errors import FormatError
from dreamenv.files import atomic_file


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


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Reads a checkpoint; None where there is none. Nothing in it can run code.

    Raises:
        FormatError: The file is damaged.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damaged bytes make torch's reader raise a dozen kinds
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FormatError(f"{path} is damaged ({reason}); delete it to start over") from None
    return state
