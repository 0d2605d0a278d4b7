import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamenv.errors import DreamenvError, FormatError
from dreamenv.training.checkpoint import load_checkpoint, save_checkpoint

FULL_DEVICE = Path("/dev/full")


def some_state() -> dict[str, Any]:
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))])
    return {
        "weights": {"a": torch.arange(300.0), "b": torch.ones(2, dtype=torch.bfloat16)},
        "optimiser": optimiser.state_dict(),
        "generator": torch.Generator().manual_seed(1).get_state(),
        "step_count": 7,
        "nothing": None,
    }


class Malicious:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._folder),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint" / "trainer.pt"


def test_a_checkpoint_comes_back_as_it_was(path: Path) -> None:
    state = some_state()
    save_checkpoint(path, state)
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded["step_count"] == 7
    assert loaded["nothing"] is None
    assert loaded["optimiser"] == state["optimiser"]
    tensors: list[tuple[Tensor, Tensor]] = [
        (loaded["weights"]["a"], state["weights"]["a"]),
        (loaded["weights"]["b"], state["weights"]["b"]),
        (loaded["generator"], state["generator"]),
    ]
    for got, expected in tensors:
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


def test_where_there_is_none_there_is_none(path: Path) -> None:
    assert load_checkpoint(path) is None


def test_the_next_checkpoint_replaces_the_last(path: Path) -> None:
    save_checkpoint(path, {"step_count": 1})
    save_checkpoint(path, {"step_count": 2})
    assert load_checkpoint(path) == {"step_count": 2}
    assert [file.name for file in path.parent.iterdir()] == ["trainer.pt"]


def test_a_truncated_file_is_named(path: Path) -> None:
    save_checkpoint(path, some_state())
    whole = path.read_bytes()
    for length in (*range(0, 64, 3), *range(64, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"trainer\.pt is damaged .*; delete it") as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_whatever_bytes_are_there_the_file_is_named(path: Path) -> None:
    path.parent.mkdir()
    rng = np.random.default_rng(0)
    for length in rng.integers(1, 60, 200):
        path.write_bytes(rng.bytes(length))
        with pytest.raises(FormatError, match=r"trainer\.pt is damaged"):
            load_checkpoint(path)


def test_what_the_disk_does_not_let_be_read_is_not_called_damaged(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(DreamenvError, match=r"trainer\.pt: Is a directory; name another") as error:
        load_checkpoint(path)
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize(
    "full",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_what_memory_does_not_hold_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch, full: Exception
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise full

    save_checkpoint(path, some_state())
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(DreamenvError, match=r"trainer\.pt: memory does not suffice .*; free some"):
        load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_it_is_run(path: Path, tmp_path: Path, zipped: bool) -> None:
    state = {"step_count": Malicious(tmp_path / "made")}
    path.parent.mkdir()
    if zipped:
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))
    with pytest.raises(FormatError, match="is damaged"):
        load_checkpoint(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.skipif(
    not FULL_DEVICE.is_char_device(), reason="the system has no device that is full"
)
def test_a_full_disk_is_told_in_one_line_and_keeps_the_checkpoint_before(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(path, {"step_count": 1})
    full = tmp_path / "full"
    full.symlink_to(FULL_DEVICE)

    @contextlib.contextmanager
    def on_a_full_disk(_: Path) -> Iterator[Path]:
        yield full

    monkeypatch.setattr("dreamenv.training.checkpoint.atomic_file", on_a_full_disk)
    with pytest.raises(DreamenvError, match=r"trainer\.pt: the disk is full") as error:
        save_checkpoint(path, some_state())
    assert "\n" not in str(error.value)
    assert load_checkpoint(path) == {"step_count": 1}
