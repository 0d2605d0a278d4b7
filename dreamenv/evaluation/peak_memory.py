"""The memory that dreams take, each measured in a process of its own.

In one process a row of figures would tell of the rows before it: the allocator keeps what they
have freed, and the libraries what they have prepared.
"""

import ctypes
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch

from dreamenv.errors import DreamenvError
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.memory import lacks_memory

_STEPS = 2
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CLEAR_PEAK = "5"  # Linux, proc(5): forget the highest resident memory so far
_MB = 1e6


def dream_memory(path: DreamPath, num_envs: int) -> float | None:
    """Measures the memory that dreams take at most, from the second step on.

    Args:
        path: How they are computed.
        num_envs: How many.

    Returns:
        In MB (10^6 bytes). On a CPU, of the whole process: Python, torch and weights are in it. On
        CUDA, of all tensors there. None on other devices, and where the system does not tell: only
        Linux does.

    Raises:
        DreamenvError: Memory does not suffice, or the process was killed, as for want of it.
    """
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with telling_want_of_memory(num_envs), pool as process:
        measured = process.submit(_measure, path, num_envs, torch.get_num_threads())
        try:
            return measured.result()
        except BrokenProcessPool:
            raise DreamenvError(
                f"the process of {num_envs} dreams was killed, perhaps for want of memory; leave "
                f"that number out of num_envs"
            ) from None


@contextmanager
def telling_want_of_memory(num_envs: int) -> Iterator[None]:
    """Turns the error where memory does not suffice into one line of ours.

    Args:
        num_envs: How many dreams.

    Raises:
        DreamenvError: Memory does not suffice.
    """
    try:
        yield
    except Exception as error:
        if not lacks_memory(error):
            raise
        raise DreamenvError(
            f"memory does not suffice for {num_envs} dreams; leave that number out of num_envs"
        ) from None


def _measure(path: DreamPath, num_envs: int, threads: int) -> float | None:
    torch.set_num_threads(threads)
    dream = path.open(num_envs)
    dream.reset(seed=0)
    actions = torch.zeros(num_envs, dtype=torch.int64, device=dream.device)
    dream.step(actions)
    if not forget_peak(dream.device):
        return None
    for _ in range(_STEPS):
        dream.step(actions)
    return read_peak(dream.device)


def forget_peak(device: torch.device) -> bool:
    """Begins to look for the peak of this process's memory anew; returns whether it can be known.

    Args:
        device: Of its memory; that of a CPU is all that is resident.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if device.type != "cpu":
        return False
    _give_back()
    try:
        _CLEAR.write_text(_CLEAR_PEAK)
    except OSError:
        return False
    return True


def read_peak(device: torch.device) -> float:
    """Returns the peak of this process's memory since `forget_peak`, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MB
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024 / _MB


def _give_back() -> None:
    """Has the allocator return what was freed, as after loading: else that is resident as well."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)
