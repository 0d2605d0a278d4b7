"""One episode: what was seen, done and got, and how it ended."""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from dreamenv.errors import FormatError, InputError
from dreamenv.files import atomic_file

# What zipfile and numpy raise for bytes that are not a whole, readable archive of arrays.
_UNREADABLE = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Episode:
    """An episode of T steps, T >= 1.

    Attributes:
        obs: uint8 [T + 1, C, H, W]. `obs[t]` is what `actions[t]` was chosen on; the last frame is
            the true final one, not that of the next reset.
        actions: int64 [T], from 0.
        rewards: float32 [T], finite.
        terminated: Whether the last step ended the episode by the game's own rules.
        truncated: Whether a limit ended it. With `terminated` also False, the recording was cut.

    Raises:
        InputError: An array of the wrong type, shape or range.
    """

    obs: NDArray[np.uint8]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: bool
    truncated: bool

    def __post_init__(self) -> None:
        _check_type("obs", self.obs, np.uint8, "[T + 1, C, H, W]")
        _check_type("actions", self.actions, np.int64, "[T]")
        _check_type("rewards", self.rewards, np.float32, "[T]")
        steps = len(self.actions)
        if steps == 0:
            raise InputError("the episode has no steps; it must have at least one")
        if len(self.rewards) != steps:
            raise InputError(f"{steps} actions need {steps} rewards; got {len(self.rewards)}")
        if len(self.obs) != steps + 1:
            raise InputError(
                f"{steps} actions need {steps + 1} frames, the final one included; "
                f"got {len(self.obs)}"
            )
        if self.actions.min() < 0:
            raise InputError(f"actions has {self.actions.min()}; actions must be at least 0")
        if not np.isfinite(self.rewards).all():
            raise InputError("rewards has a value that is not finite; each must be a number")

    def __len__(self) -> int:
        """The number of steps T."""
        return len(self.actions)

    @property
    def total_reward(self) -> float:
        """The sum of the rewards, in double precision."""
        return float(self.rewards.sum(dtype=np.float64))

    def save(self, path: Path) -> None:
        """Writes the episode to `path`, whole or not at all, as a compressed `.npz`.

        Args:
            path: The file to create or replace. Its folder must exist.
        """
        # Deflate finds the previous frame in its window of 32 KB: a 64x64 Atari frame takes about
        # 150 bytes. Differences would take a third less on Breakout, more on Pong, and load at
        # least six times slower.
        with atomic_file(path) as beside, beside.open("wb") as file:
            np.savez_compressed(
                file,
                obs=self.obs,
                actions=self.actions,
                rewards=self.rewards,
                terminated=np.bool_(self.terminated),
                truncated=np.bool_(self.truncated),
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads an episode that `save` wrote.

        Raises:
            FormatError: The file is missing, damaged, or not an episode, or the disk does not let
                it be read.
        """
        content = _read_bytes(path)
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return cls(
                    obs=_read_array(archive, "obs"),
                    actions=_read_array(archive, "actions"),
                    rewards=_read_array(archive, "rewards"),
                    terminated=bool(_read_array(archive, "terminated")),
                    truncated=bool(_read_array(archive, "truncated")),
                )
        except _UNREADABLE as error:
            reason = str(error) or type(error).__name__
            raise FormatError(
                f"{path}: not a whole episode file ({reason}); restore it from a copy or delete it"
            ) from error


def _check_type(name: str, array: NDArray[np.generic], dtype: type[np.generic], form: str) -> None:
    dims = form.count(",") + 1
    if array.dtype != dtype or array.ndim != dims:
        raise InputError(
            f"{name} is {array.dtype} {list(array.shape)}; it must be {np.dtype(dtype)} {form}"
        )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FormatError(f"{path}: missing; restore the episode file from a copy") from None
    except OSError as error:
        raise FormatError(
            f"{path}: cannot be read ({error.strerror or error}); make it readable and open the "
            f"replay anew"
        ) from error


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    # Reading the member whole checks its CRC before numpy believes the header inside.
    content = archive.read(f"{name}.npy")
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array
