from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dreamenv.dream.contexts import Contexts
from dreamenv.dream.core import Dream
from dreamenv.errors import ConfigError, DreamenvError
from dreamenv.evaluation import dream_path, dream_speed
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.evaluation.dream_speed import (
    DreamSpeed,
    DreamSpeedConfig,
    Work,
    count_flops,
    time_dreams,
)
from dreamenv.evaluation.timing import Stopwatch, Timing

MakeWorld = Callable[..., Path]

WORK = Work(flops_per_frame=1_000_000, ceiling=2e9)


@pytest.fixture
def path(tmp_path: Path, make_world: MakeWorld) -> DreamPath:
    return DreamPath(make_world(tmp_path / "world"), "cpu")


def test_rates_are_of_the_median_and_of_all_dreams() -> None:
    fast, reference = Timing(20.0, 18.0, 25.0, 40), Timing(50.0, 45.0, 60.0, 40)
    row = DreamSpeed.of(8, fast, reference, memory=(300.0, 400.0), work=WORK)
    assert (row.fps, row.reference_fps, row.ratio) == pytest.approx((400, 160, 2.5))
    assert (row.ms_per_step, row.ms_per_step_p10, row.ms_per_step_p90) == (20.0, 18.0, 25.0)
    assert row.reference_ms_per_step == 50.0
    assert (row.reference_ms_per_step_p10, row.reference_ms_per_step_p90) == (45.0, 60.0)
    assert (row.peak_memory_mb, row.reference_peak_memory_mb) == (300.0, 400.0)
    assert (row.flops_per_second, row.share_of_ceiling) == pytest.approx((4e8, 0.2))
    assert row.timed_steps == 40
    assert (row.eager_fps, row.compile_seconds) == (None, None)


def test_the_fast_path_and_the_reference_are_timed_in_turn(
    path: DreamPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[torch.Size] = []
    asked: list[tuple[DreamPath, int]] = []

    def memory(of: DreamPath, num_envs: int) -> float:
        asked.append((of, num_envs))
        return float(len(asked))

    def alternate(steps: Sequence[Callable[[], Any]], seconds: float, _: object) -> list[Timing]:
        opened.extend(step().obs.shape for step in steps)
        assert seconds == 3.0
        return [Timing(10.0, 9.0, 11.0, 5), Timing(30.0, 29.0, 31.0, 5)]

    monkeypatch.setattr(dream_speed, "alternate", alternate)
    row = time_dreams(path, 2, 3.0, WORK, memory)
    assert opened == [(2, 3, 16, 16)] * 2
    assert asked == [(path, 2), (path.reference, 2)]
    assert (row.num_envs, row.fps, row.reference_fps) == pytest.approx((2, 200, 200 / 3))
    assert (row.peak_memory_mb, row.reference_peak_memory_mb) == (1.0, 2.0)


def test_compiling_is_timed_apart_and_stands_beside_the_eager_step(
    path: DreamPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, compiled = 0.0, []

    class FakeDream:
        num_envs, device = 4, torch.device("cpu")
        bank = SimpleNamespace(burn_in_all=lambda: None)

        def __init__(self, seconds: float, compile: bool) -> None:
            self._seconds, self._first = seconds, 50.0 if compile else 0.0

        def reset(self, *, seed: int) -> None:
            pass

        def step(self, _: torch.Tensor) -> None:
            nonlocal now
            now += self._seconds + self._first
            self._first = 0.0

    def open_(*_: Any, compile: bool, **__: Any) -> FakeDream:
        compiled.append(compile)
        slowness = 1.0 if compile else 4.0 if len(compiled) == 2 else 2.0
        return FakeDream(slowness, compile)

    monkeypatch.setattr(dream_path, "Dream", open_)
    monkeypatch.setattr(Stopwatch, "of", lambda _: Stopwatch(lambda: None, lambda: now))
    row = time_dreams(DreamPath(path.folder, "cpu", compile=True), 4, 20.0, WORK, lambda *_: None)
    assert compiled == [True, False, False]
    assert row.compile_seconds == 51.0
    assert row.eager_fps is not None
    assert (row.fps, row.eager_fps, row.reference_fps) == pytest.approx((4, 2, 1))


@pytest.mark.parametrize(("owner", "name"), [(DreamPath, "open"), (Dream, "step")])
def test_want_of_memory_is_told_in_one_line(
    path: DreamPath, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(DreamenvError, match=r"^memory does not suffice for 3 dreams; leave .*$"):
        time_dreams(path, 3, 1e-3, WORK, lambda *_: None)


def test_flops_are_of_one_frame(path: DreamPath) -> None:
    dream = path.reference.open(3)
    dream.reset(seed=0)
    with FlopCounterMode(display=False) as counter:
        dream.step(torch.zeros(3, dtype=torch.int64))
    counted = int(counter.get_total_flops()) / 3
    assert counted <= count_flops(path) < 1.1 * counted
    levels = DreamPath(path.folder, "cpu", denoising_steps=4)
    assert 1.2 * count_flops(path) < count_flops(levels) < 2 * count_flops(path)


def test_flops_are_those_of_the_step_however_many_contexts_there_are(path: DreamPath) -> None:
    few, frames = count_flops(path), torch.zeros(200, 5, 3, 16, 16, dtype=torch.uint8)
    Contexts(frames, torch.zeros(200, 5, dtype=torch.int64)).save(path.folder)
    assert count_flops(path) == few


def test_flops_of_the_memory_of_the_heads_are_counted(
    path: DreamPath, make_world: MakeWorld, tmp_path: Path
) -> None:
    larger = DreamPath(make_world(tmp_path / "larger", lstm_dim=64), "cpu")

    def of_matrices(path: DreamPath) -> int:
        heads = path.open(1).world_model.reward_end
        # Each weight of them is multiplied and added once a frame, from the LSTM on.
        return 2 * sum(weight.numel() for weight in heads.parameters() if weight.ndim == 2)

    difference = of_matrices(larger) - of_matrices(path)
    assert difference > 0
    assert count_flops(larger) - count_flops(path) == difference


def test_counting_leaves_the_libraries_in_use(path: DreamPath) -> None:
    before = torch.backends.mkldnn.set_flags(True)[0], torch.backends.cudnn.enabled
    count_flops(path)
    after = torch.backends.mkldnn.set_flags(before[0])[0], torch.backends.cudnn.enabled
    assert after == (True, before[1])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_envs": ()}, r"num_envs is \(\)"),
        ({"num_envs": (1, 0)}, r"num_envs is \(1, 0\)"),
        ({"denoising_steps": 0}, "denoising_steps is 0"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"seconds": float("nan")}, "seconds is nan"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        DreamSpeedConfig(**settings)
