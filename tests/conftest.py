"""What tests of all rooms use."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dreamenv.dream.contexts import Contexts
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModel, WorldModelConfig

# The shape of what these give depends on data only where an index is a mask.
MASKABLE = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)


def pytest_configure() -> None:
    """Shares the cores among the workers of pytest-xdist: more threads than cores wait for each."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        threads = max(1, torch.get_num_threads() // workers)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that tests start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets what takes minutes begin first: at the end the other cores would wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


class NoWaiting(TorchDispatchMode):
    """Refuses what a host that runs ahead of its device would have to wait for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = func is torch.ops.aten.multinomial.default  # it checks what it is given
        if func in MASKABLE:
            masks = (torch.bool, torch.uint8)
            waits = any(index is not None and index.dtype in masks for index in args[1])
        elif {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
            waits = True
        if waits:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


class OnMPS(Tensor):
    """Stands for a tensor of a device that has no float64."""

    def double(self, *_: Any, **__: Any) -> Tensor:
        raise TypeError("the MPS framework doesn't support float64")

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        return self.as_subclass(Tensor)


@pytest.fixture(scope="session")
def on_mps() -> type[OnMPS]:
    """What a tensor is made to be `as_subclass`, so that it knows no float64."""
    return OnMPS


@pytest.fixture(scope="session")
def no_waiting() -> type[NoWaiting]:
    """The guard: within it, what waits for the device fails."""
    return NoWaiting


@pytest.fixture(scope="session")
def make_world() -> Callable[..., Path]:
    """Writes a world model of a few thousand random weights, that dreams of noise, to a folder."""
    levels: dict[str, Any] = {"channels": (8, 8), "depths": (1, 1), "attention": (False, False)}

    def make(folder: Path, lstm_dim: int = 16, side: int = 16) -> Path:
        torch.manual_seed(0)
        config = WorldModelConfig(
            num_actions=3,
            obs_shape=(3, side, side),
            denoiser=DenoiserConfig(context_length=2, cond_channels=16, **levels),
            reward_end=RewardEndConfig(cond_channels=8, lstm_dim=lstm_dim, **levels),
            sampler=SamplerConfig(num_steps=2),
        )
        model = WorldModel(config)
        for weights in model.parameters():
            torch.nn.init.normal_(weights, std=0.1)  # none is zero, as some are at the start
        frames = torch.randint(0, 256, (4, 2, 3, side, side), dtype=torch.uint8)
        model.save(folder, also=Contexts(frames, torch.zeros(4, 2, dtype=torch.int64)).save)
        return folder

    return make


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Folders that may not be read, which nothing is to root."""
    folders: set[Path] = set()

    def denied(path: Path) -> None:
        if folders & {path, *path.parents}:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    for name in ("exists", "is_file", "is_dir", "iterdir"):
        real = getattr(Path, name)

        def guarded(path: Path, real: Any = real) -> Any:
            denied(path)
            return real(path)

        monkeypatch.setattr(Path, name, guarded)
    return folders
