from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamenv.data import storage
from dreamenv.data.storage import FrameStore, MappedStore, MemoryStore, Store, free_memory

CPU = torch.device("cpu")
SHAPE = (1, 2, 3)
FRAME_BYTES = 6


def frames(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *SHAPE), generator=generator, dtype=torch.uint8)


def in_memory(_: Path) -> Store:
    return MemoryStore(SHAPE, torch.uint8, CPU)


def mapped(folder: Path) -> Store:
    return MappedStore(SHAPE, folder)


def moving_to_the_disk(folder: Path) -> Store:
    return FrameStore(SHAPE, CPU, folder, max_memory=10 * FRAME_BYTES)


every_store = pytest.mark.parametrize("make", [in_memory, mapped, moving_to_the_disk])


@every_store
@given(counts=st.lists(st.integers(0, 9), max_size=8), reserved=st.integers(0, 30))
def test_rows_stay_in_order_however_they_come(
    tmp_path_factory: pytest.TempPathFactory,
    make: Callable[[Path], Store],
    counts: list[int],
    reserved: int,
) -> None:
    store = make(tmp_path_factory.getbasetemp())
    store.reserve(reserved)
    pieces = [frames(count, seed) for seed, count in enumerate(counts)]
    for piece in pieces:
        store.append(piece)
    assert torch.equal(store.tensor, torch.cat([frames(0), *pieces]))


@every_store
def test_a_tensor_handed_out_stays_as_it_was(tmp_path: Path, make: Callable[[Path], Store]) -> None:
    store = make(tmp_path)
    store.append(frames(3))
    early = store.tensor
    for seed in range(5):
        store.append(frames(20, seed))
    assert torch.equal(early, frames(3))
    assert len(store.tensor) == 103


@every_store
def test_rows_that_were_dropped_are_followed_by_the_next(
    tmp_path: Path, make: Callable[[Path], Store]
) -> None:
    store = make(tmp_path)
    store.append(frames(12))
    store.truncate(5)
    assert torch.equal(store.tensor, frames(12)[:5])
    store.append(frames(9, seed=1))
    assert torch.equal(store.tensor, torch.cat([frames(12)[:5], frames(9, seed=1)]))


def test_rewriting_leaves_a_tensor_handed_out_as_it_was() -> None:
    store = MemoryStore(SHAPE, torch.uint8, CPU)
    store.append(frames(12))
    early = store.tensor
    store.rewrite(5, frames(3, seed=1))
    assert torch.equal(early, frames(12))
    assert torch.equal(store.tensor, torch.cat([frames(12)[:5], frames(3, seed=1)]))


def test_appending_seldom_moves_what_is_there(tmp_path: Path) -> None:
    store = FrameStore(SHAPE, CPU, tmp_path)
    places = set()
    for _ in range(1000):
        store.append(frames(1))
        places.add(store.tensor.data_ptr())
    assert len(places) <= 11


def test_reserved_room_is_used_in_place(tmp_path: Path) -> None:
    store = FrameStore(SHAPE, CPU, tmp_path)
    store.reserve(40)
    store.append(frames(1))
    place = store.tensor.data_ptr()
    store.append(frames(39))
    assert store.tensor.data_ptr() == place


def test_frames_leave_the_memory_when_they_exceed_it(tmp_path: Path) -> None:
    store = FrameStore(SHAPE, CPU, tmp_path, max_memory=10 * FRAME_BYTES)
    store.append(frames(10))
    assert store.in_memory
    store.append(frames(1))
    assert not store.in_memory


def test_frames_stay_in_memory_where_half_of_it_is_free_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamenv.data.storage.free_memory", lambda _: 20 * FRAME_BYTES)
    store = FrameStore(SHAPE, CPU, tmp_path)
    store.append(frames(10))
    assert store.in_memory
    store.append(frames(1))
    assert not store.in_memory


def test_the_mapped_file_has_no_name_that_a_kill_could_leave(tmp_path: Path) -> None:
    store = MappedStore(SHAPE, tmp_path)
    store.append(frames(100))
    assert list(tmp_path.iterdir()) == []


def test_there_is_free_memory_to_speak_of() -> None:
    assert 2**20 < free_memory(CPU) < 2**50


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("1000000\n", 700_000),  # 400,000 in use but for 100,000 of files
        ("350000\n", 50_000),
        ("200000\n", 0),
        ("100000000000\n", 2_048_000),  # more than the machine has
        ("max\n", 2_048_000),
        (None, 2_048_000),
    ],
)
def test_the_limit_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, expected: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    2000 kB\n")
    (tmp_path / "memory.current").write_text("400000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\ninactive_file 100000\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(storage, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(storage, "_CGROUP", tmp_path)
    assert free_memory(CPU) == expected
