"""Where dreams begin: windows of real frames, and the actions taken between them."""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from dreamenv.data import PUBLISHED_WEIGHTS, Replay, SegmentSampler
from dreamenv.errors import FormatError, InputError
from dreamenv.files import committed_path

CONTEXTS_FILE = "contexts.npz"

# What numpy and zipfile raise for bytes that are not a whole archive of arrays.
_UNREADABLE = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Contexts:
    """K windows of L real frames.

    Attributes:
        obs: uint8 [K, L, C, H, W], oldest first. Before the first frame of an episode a window is
            mid grey (128), as in training.
        actions: int64 [K, L]; the action taken at each frame. The last is the agent's to replace.
        since_reward: int64 [K]; how many steps before the last frame the last reward came, with its
            sign (1 or -1 for the step that led to it), 0 for none. None is none anywhere.
    """

    obs: Tensor
    actions: Tensor
    since_reward: Tensor | None = None

    def __post_init__(self) -> None:
        if self.obs.dtype != torch.uint8 or self.obs.ndim != 5 or len(self.obs) == 0:
            raise InputError(
                f"obs is {self.obs.dtype} {list(self.obs.shape)}; it must be torch.uint8 "
                f"[K, L, C, H, W], K at least 1"
            )
        if self.actions.dtype != torch.int64 or self.actions.shape != self.obs.shape[:2]:
            raise InputError(
                f"actions is {self.actions.dtype} {list(self.actions.shape)}; it must be "
                f"torch.int64 {list(self.obs.shape[:2])}"
            )
        since = self.since_reward
        if since is not None and (since.dtype != torch.int64 or since.shape != self.obs.shape[:1]):
            raise InputError(
                f"since_reward is {since.dtype} {list(since.shape)}; it must be torch.int64 "
                f"[{len(self.obs)}]"
            )

    @classmethod
    def draw(
        cls,
        replay: Replay,
        length: int,
        count: int,
        *,
        device: torch.device | str = "cpu",
        weights: tuple[float, float, float, float] | None = PUBLISHED_WEIGHTS,
        favoured: Tensor | None = None,
        seed: int = 0,
    ) -> Self:
        """Draws windows from the episodes of a replay that are trained on.

        Args:
            replay: Where the episodes are.
            length: L, the frames of a window.
            count: K, how many windows.
            device: Where the frames of the replay are; the windows come to the CPU.
            weights: The probabilities of the quarters of the episodes by age, oldest first.
            favoured: The probability of each row of the replay to be the last of a window, instead
                of weights; see `SegmentSampler.favour`.
            seed: Of the random numbers.
        """
        sampler = SegmentSampler(
            replay, length, count, device, weights, beyond_end=False, seed=seed
        )
        if favoured is not None:
            sampler.favour(favoured, 1)
        segments = sampler.sample()
        since_reward = segments.since_reward[:, -1]
        return cls(segments.obs.cpu(), segments.actions.cpu(), since_reward.cpu())

    def save(self, folder: Path) -> None:
        """Writes the windows into a world model's folder, as a compressed `.npz`."""
        given = {name: each for name, each in vars(self).items() if each is not None}
        np.savez_compressed(
            folder / CONTEXTS_FILE, **{name: each.numpy() for name, each in given.items()}
        )

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads the windows of a world model's folder. Nothing in them can run code.

        Raises:
            FormatError: The file is missing, damaged or foreign.
        """
        path = committed_path(Path(folder), CONTEXTS_FILE)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                since = arrays.get("since_reward")
                return cls(
                    torch.from_numpy(arrays["obs"]),
                    torch.from_numpy(arrays["actions"]),
                    None if since is None else torch.from_numpy(since),
                )
        except _UNREADABLE as error:
            raise FormatError(
                f"{path} holds no contexts of dreams ({error}); restore or fit the world model"
            ) from None
