"""The state of dreams: all that their future depends on, but the noise to come."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from typing_extensions import Self


@dataclass(frozen=True, eq=False)
class DreamState:
    """The state of N dreams; tensors on one device.

    Attributes:
        frames: uint8 [N, L, C, H, W], the last frames, oldest first.
        actions: int64 [N, L], the action taken at each; the last is yet to be chosen.
        h: float32 [N, D], the hidden state of the heads' LSTM.
        c: float32 [N, D], its cell state.
        since_reward: int64 [N], how many steps ago the last reward came, with its sign; 0 for none.
        steps: int64 [N], steps since the dream began.
        ended: bool [N], whether it has ended and not begun anew.
        next_context: int64 [N], the context of the bank that it would begin anew from.
    """

    frames: Tensor
    actions: Tensor
    h: Tensor
    c: Tensor
    since_reward: Tensor
    steps: Tensor
    ended: Tensor
    next_context: Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.steps)

    def rows(self, indices: Tensor) -> Self:
        """Copies the dreams of those indices, int64 [M]."""
        return type(self)(*(tensor[indices] for tensor in self._tensors()))

    def clone(self) -> Self:
        """Copies the dreams."""
        return type(self)(*(tensor.clone() for tensor in self._tensors()))

    def copy_(self, other: Self) -> None:
        """Puts as many other dreams in the memory of these."""
        for ours, theirs in zip(self._tensors(), other._tensors(), strict=True):
            ours.copy_(theirs)

    def where(self, mask: Tensor, other: Self) -> Self:
        """Takes these dreams where the mask, bool [N], is true, and the other ones elsewhere."""
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return type(self)(*(torch.where(_like(mask, ours), ours, theirs) for ours, theirs in pairs))

    def replace(self, indices: Tensor, other: Self) -> Self:
        """Puts the M other dreams in the place of those of the indices, int64 [M]."""
        copies = [tensor.clone() for tensor in self._tensors()]
        for copy, theirs in zip(copies, other._tensors(), strict=True):
            copy[indices] = theirs
        return type(self)(*copies)

    def to(self, device: torch.device) -> Self:
        """Copies the dreams to another device; on the same one they are these."""
        return type(self)(*(tensor.to(device) for tensor in self._tensors()))

    def is_like(self, other: Self) -> bool:
        """Whether the tensors are of the same types and, but for their number, shapes."""
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return all(
            isinstance(ours, Tensor)
            and (ours.dtype, ours.shape[1:]) == (theirs.dtype, theirs.shape[1:])
            for ours, theirs in pairs
        )

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


def _like(mask: Tensor, tensor: Tensor) -> Tensor:
    """Shapes a mask [N] to choose rows of a tensor [N, ...]."""
    return mask.view(-1, *[1] * (tensor.ndim - 1))
