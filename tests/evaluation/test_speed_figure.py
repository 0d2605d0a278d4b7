import struct
from pathlib import Path

import numpy as np
import pytest

from dreamenv.errors import DreamenvError, InputError
from dreamenv.evaluation.dream_speed import DreamSpeed, Work
from dreamenv.evaluation.speed_figure import check_figure_path, save_speed_figure, speed_figure
from dreamenv.evaluation.timing import Timing


def row(num_envs: int, memory: float | None = 300.0) -> DreamSpeed:
    fast, reference = Timing(10.0, 9.0, 11.0, 5), Timing(20.0, 19.0, 21.0, 5)
    both = memory, memory and 2 * memory
    return DreamSpeed.of(num_envs, fast, reference, memory=both, work=Work(1, 1.0))


def test_it_has_speed_and_memory_of_both_paths_by_rising_numbers() -> None:
    fps, memory = speed_figure([row(8), row(1), row(256)], "a world").axes
    drawn = [np.asarray(line.get_xydata()).tolist() for line in (*fps.lines, *memory.lines)]
    assert drawn[0] == [[1, 100], [8, 800], [256, 25_600]]
    assert drawn[1] == [[1, 50], [8, 400], [256, 12_800]]
    assert drawn[2] == [[1, 300], [8, 300], [256, 300]]
    assert drawn[3] == [[1, 600], [8, 600], [256, 600]]
    ticks = [label.get_text() for label in fps.get_xticklabels()]
    assert ticks == ["1", "8", "256"]
    assert memory.get_ylim()[0] == 0


def test_without_memory_there_is_speed() -> None:
    figure = speed_figure([row(1, memory=None)], "a world")
    assert [axes.get_ylabel() for axes in figure.axes] == ["frames a second"]


def test_it_is_a_png_of_a_sensible_size(tmp_path: Path) -> None:
    save_speed_figure(tmp_path / "speed.png", [row(1), row(8)], "a world")
    data = (tmp_path / "speed.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (1500, 675)
    assert 10_000 < len(data) < 500_000
    assert [path.name for path in tmp_path.iterdir()] == ["speed.png"]


def test_where_it_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    check_figure_path(tmp_path / "new.png")
    with pytest.raises(InputError, match="nowhere is not there; make the folder"):
        check_figure_path(tmp_path / "nowhere" / "speed.png")
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        check_figure_path(tmp_path)


def test_what_the_disk_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(DreamenvError, match="name another folder"):
        save_speed_figure(tmp_path / "gone" / "speed.png", [row(1)], "a world")
