"""Devices: which one is meant, and in which precision it computes."""

from collections.abc import Mapping

import torch

from dreamenv.errors import InputError

AUTO = "auto"


def resolve_device(name: str) -> torch.device:
    """Returns the device of that name.

    Args:
        name: `cpu`, `cuda`, `cuda:1` and so on, `mps`, or `auto`: CUDA, then MPS, then the CPU,
            whichever is there first.

    Raises:
        InputError: The name is unknown, or there is no such device here.
    """
    if name == AUTO:
        name = next((kind for kind in ("cuda", "mps") if _is_there(kind)), "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise InputError(
            f"device is {name!r}; it must be 'auto', 'cpu', 'cuda', 'cuda:1' and so on, or 'mps'"
        ) from None
    if not _is_there(device.type) or (device.index or 0) >= _count(device.type):
        raise InputError(
            f"device {name!r} is not there; use 'cpu', or 'auto' for the best there is"
        )
    return device


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for products in bf16, which makes them pay.

    An older torch cannot tell of a CPU, which is then taken to have none.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # it is asked of the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _is_there(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available()
    if kind == "mps":
        return torch.backends.mps.is_available()
    return kind == "cpu"


def _count(kind: str) -> int:
    return torch.cuda.device_count() if kind == "cuda" else 1
