"""What a step gives, copied from its device to the host all at once."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Array = npt.NDArray[Any]

_ALIGNED = 8  # bytes: where a tensor of any type may begin


class ToHost:
    """Copies tensors from a device to arrays.

    From a GPU of CUDA by one transfer, through page-locked memory that is kept: every copy waits
    for the device, and one of pageable memory goes through such memory of the driver's as well
    (CUDA C++ best practices guide, "Data Transfer Between Host and Device").

    Args:
        device: Where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._landing = torch.empty(0, dtype=torch.uint8)

    def __call__(self, *tensors: Tensor) -> list[Array]:
        """Returns an array for each tensor; from another device than a CPU in memory of its own."""
        if not self._is_cuda:
            return [tensor.cpu().numpy() for tensor in tensors]
        packed = pack(tensors)
        if len(packed) > len(self._landing):
            # Steps may be taken in inference mode or out of it: it is written to in either.
            with torch.inference_mode(False):
                self._landing = torch.empty(
                    len(packed), dtype=torch.uint8, pin_memory=packed.is_cuda
                )
        landed = self._landing[: len(packed)].copy_(packed)
        return [part.numpy().copy() for part in unpack(landed, tensors)]


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Puts the bytes of tensors one after the other: uint8 [B], on their device."""
    parts = []
    for tensor in tensors:
        part = tensor.contiguous().view(-1).view(torch.uint8)
        parts.append(F.pad(part, (0, -len(part) % _ALIGNED)))
    return torch.cat(parts)


def unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Returns what was packed, in the memory of what it was packed into.

    Args:
        packed: uint8 [B].
        like: Tensors of the types and shapes of those that were packed.
    """
    parts, start = [], 0
    for tensor in like:
        size = tensor.numel() * tensor.element_size()
        parts.append(packed[start : start + size].view(tensor.dtype).view(tensor.shape))
        start += size + -size % _ALIGNED
    return parts
