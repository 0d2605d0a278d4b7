import platform
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamenv.evaluation import machine
from dreamenv.evaluation.machine import Ceiling, Machine, measure_ceiling
from dreamenv.evaluation.timing import Stopwatch

CPU = torch.device("cpu")


def test_a_machine_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast 9000\nmodel name\t: B\n")
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
    found = Machine.of(CPU)
    assert found == Machine("cpu", "Fast 9000", torch.get_num_threads(), torch.__version__)
    assert str(found) == (
        f"Fast 9000 (cpu, threads: {torch.get_num_threads()}), torch {torch.__version__}"
    )


def test_a_processor_that_linux_does_not_name_is_named_by_its_kind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "nowhere")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert Machine.of(CPU).name == platform.machine()


def test_the_ceiling_is_what_a_product_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now, products = 0.0, set()

    def mm(left: Tensor, right: Tensor, *, out: Tensor) -> None:
        nonlocal now
        now += 0.5
        products.add((left.dtype, left.shape, right.shape, out.dtype))

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(Stopwatch, "of", lambda _: Stopwatch(lambda: None, lambda: now))
    ceiling = measure_ceiling(CPU, torch.bfloat16, 5.0, size=10)
    assert products == {(torch.bfloat16, (10, 10), (10, 10), torch.bfloat16)}
    assert ceiling == Ceiling("bfloat16", 10, flops=2 * 10**3 / 0.5)


def test_matrices_are_large_enough_to_keep_a_cpu_busy() -> None:
    ceiling = measure_ceiling(CPU, torch.float32, 0.01)
    assert (ceiling.dtype, ceiling.size) == ("float32", 2048)
    assert ceiling.flops > 1e9
