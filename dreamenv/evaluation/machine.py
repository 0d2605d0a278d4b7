"""The machine that figures of speed are of: its name, and the most it could do."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from typing_extensions import Self

from dreamenv.config import Config
from dreamenv.evaluation.timing import Stopwatch, alternate

_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine(Config):
    """Where something is computed, and by what.

    Attributes:
        device: What torch calls it.
        name: The name of the processor or the GPU.
        threads: How many torch computes with, on a CPU.
        torch_version: Of torch.
    """

    device: str
    name: str
    threads: int
    torch_version: str

    @classmethod
    def of(cls, device: torch.device) -> Self:
        """Describes the machine at hand."""
        return cls(str(device), _name(device), torch.get_num_threads(), version("torch"))

    def __str__(self) -> str:
        threads = f", threads: {self.threads}" if self.device == "cpu" else ""
        return f"{self.name} ({self.device}{threads}), torch {self.torch_version}"


@dataclass(frozen=True)
class Ceiling(Config):
    """How fast a machine multiplies matrices: the most that networks could reach there.

    Attributes:
        dtype: Of the matrices.
        size: Their rows and columns.
        flops: FLOP/s, by the median.
    """

    dtype: str
    size: int
    flops: float


def measure_ceiling(
    device: torch.device, dtype: torch.dtype, seconds: float, size: int | None = None
) -> Ceiling:
    """Times products of two square matrices.

    Args:
        device: Where.
        dtype: Of the matrices.
        seconds: For how long.
        size: Their rows and columns; if None, large enough for the device to be busy.
    """
    size = size or (8192 if device.type == "cuda" else 2048)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    (product,) = alternate([lambda: torch.mm(left, right, out=out)], seconds, Stopwatch.of(device))
    return Ceiling(str(dtype).removeprefix("torch."), size, 2 * size**3 * product.per_second)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
