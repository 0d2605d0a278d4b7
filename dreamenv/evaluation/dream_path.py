"""The paths by which the dreams of one world model can be computed: the fast, and the reference."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from typing_extensions import Self

from dreamenv.dream.contexts import Contexts
from dreamenv.dream.core import DEFAULT_HORIZON, Dream
from dreamenv.models.world_model import WorldModel


@dataclass(frozen=True)
class DreamPath:
    """How the dreams of a world model are computed. The defaults are those of `gymnasium.make`.

    Attributes:
        folder: Of the world model.
        device: Where, as torch names it.
        denoising_steps: How many noise levels a frame is drawn with; the world model's own if None.
        bf16: Whether products are computed in bf16; None for where the device has instructions for
            it.
        contiguous: Whether the weights are contiguous, instead of as `WorldModel.load` lays them.
        in_parts: Whether a CPU draws for a few dreams after the other; see `WorldModel`.
        compile: Whether the networks are compiled.
        recorded: Whether steps on CUDA are played from a recording.
    """

    folder: Path
    device: str
    denoising_steps: int | Sequence[float] | None = None
    bf16: bool | None = None
    contiguous: bool = False
    in_parts: bool = True
    compile: bool = False
    recorded: bool = True

    @property
    def reference(self) -> Self:
        """That of the same weights in float32, contiguous, eager, all dreams at once, no graph."""
        return replace(
            self, bf16=False, contiguous=True, in_parts=False, compile=False, recorded=False
        )

    @property
    def eager(self) -> Self:
        """This path, not compiled."""
        return replace(self, compile=False)

    def open(self, num_envs: int, horizon: int | None = DEFAULT_HORIZON) -> Dream:
        """Opens dreams, of which the first step may allocate, and compile.

        Args:
            num_envs: How many.
            horizon: Steps after which they are truncated; None for never.

        Raises:
            FormatError: The world model or its contexts are missing or damaged.
            ConfigError: A number is out of range.
        """
        world_model = WorldModel.load(self.folder, device=torch.device(self.device), bf16=self.bf16)
        if self.contiguous:
            world_model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        world_model.in_parts = self.in_parts
        dream = Dream(
            world_model,
            Contexts.load(self.folder),
            num_envs,
            horizon=horizon,
            denoising_steps=self.denoising_steps,
            compile=self.compile,
        )
        dream.recorded = self.recorded
        # What waits there would be done within some of the steps that are timed and counted.
        dream.bank.burn_in_all()
        return dream
