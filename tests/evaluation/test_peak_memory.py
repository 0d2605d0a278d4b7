from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamenv.errors import DreamenvError
from dreamenv.evaluation import peak_memory
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.evaluation.peak_memory import dream_memory, forget_peak, read_peak

MakeWorld = Callable[..., Path]

CPU = torch.device("cpu")
IS_KNOWN = Path("/proc/self/clear_refs").exists()


@pytest.mark.skipif(not IS_KNOWN, reason="only Linux tells the peak of a process")
def test_a_peak_is_seen_until_it_is_forgotten() -> None:
    assert forget_peak(CPU)
    before = read_peak(CPU)
    array = np.ones(200_000_000, np.uint8)  # 200 MB, written to
    del array
    assert read_peak(CPU) - before > 150
    assert forget_peak(CPU)
    assert read_peak(CPU) - before < 50


@pytest.mark.skipif(not IS_KNOWN, reason="only Linux tells the peak of a process")
def test_dreams_are_measured_in_a_process_of_their_own(
    tmp_path: Path, make_world: MakeWorld
) -> None:
    ballast = np.ones(1_000_000_000, np.uint8)  # 1 GB of ours, which is not theirs
    memory = dream_memory(DreamPath(make_world(tmp_path / "world"), "cpu"), 2)
    assert memory is not None
    assert 100 < memory < len(ballast) / 1e6


def test_where_the_system_does_not_tell_there_is_no_figure(
    tmp_path: Path, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peak_memory, "_CLEAR", tmp_path / "no" / "proc")
    assert not forget_peak(CPU)
    assert not forget_peak(torch.device("mps"))
    path = DreamPath(make_world(tmp_path / "world"), "cpu")
    assert peak_memory._measure(path, 1, torch.get_num_threads()) is None


def test_want_of_memory_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failed:
        def result(self) -> float:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")

    monkeypatch.setattr(ProcessPoolExecutor, "submit", lambda *_: Failed())
    with pytest.raises(DreamenvError, match=r"^memory does not suffice for 512 dreams; leave .*$"):
        dream_memory(DreamPath(tmp_path, "cuda"), 512)


def test_a_process_that_is_killed_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed:
        def result(self) -> float:
            raise BrokenProcessPool

    monkeypatch.setattr(ProcessPoolExecutor, "submit", lambda *_: Killed())
    with pytest.raises(DreamenvError, match="of 512 dreams was killed, perhaps for want of memory"):
        dream_memory(DreamPath(tmp_path, "cpu"), 512)
