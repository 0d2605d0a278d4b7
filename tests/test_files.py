import subprocess
import sys
from pathlib import Path

import pytest

from dreamenv.files import atomic_file, atomic_folder_update, committed_path

KILLED = 9

# Exits, without any clean-up, at the n-th thing that the process does to the file system.
KILLED_UPDATE = """
import os, sys
from pathlib import Path
from dreamenv.files import atomic_folder_update

folder, count = Path(sys.argv[1]), int(sys.argv[2])

def die(event, args):
    global count
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open"):
        count -= 1
        if count < 0:
            os._exit(9)

sys.addaudithook(die)
with atomic_folder_update(folder) as staging:
    (staging / "a").write_text("new")
    (staging / "b").write_text("new")
"""


def write(folder: Path, text: str) -> None:
    with atomic_folder_update(folder) as staging:
        (staging / "a").write_text(text)
        (staging / "b").write_text(text)


def read(folder: Path) -> list[str]:
    return [committed_path(folder, name).read_text() for name in ("a", "b")]


def test_a_folder_killed_at_any_moment_is_wholly_old_or_wholly_new(tmp_path: Path) -> None:
    outcomes, kill_at, code = [], 0, KILLED
    while code == KILLED:
        folder = tmp_path / str(kill_at)
        write(folder, "old")
        command = [sys.executable, "-c", KILLED_UPDATE, str(folder), str(kill_at)]
        code = subprocess.run(command, check=False).returncode
        outcomes.append(read(folder))
        write(folder, "newer")
        assert read(folder) == ["newer", "newer"]
        assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
        kill_at += 1
    assert code == 0
    assert outcomes[0] == ["old", "old"]
    assert outcomes[-1] == ["new", "new"]
    assert all(outcome in (["old", "old"], ["new", "new"]) for outcome in outcomes)
    assert len(outcomes) > 8


def test_an_update_that_fails_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "old")
    with pytest.raises(FileNotFoundError), atomic_folder_update(tmp_path) as staging:
        (staging / "a").rename(staging / "b")
    assert read(tmp_path) == ["old", "old"]
    assert len(list(tmp_path.iterdir())) == 2


def test_files_that_are_not_written_again_stay(tmp_path: Path) -> None:
    write(tmp_path, "old")
    with atomic_folder_update(tmp_path) as staging:
        (staging / "a").write_text("new")
    assert read(tmp_path) == ["new", "old"]


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    with atomic_file(path) as beside:
        beside.write_text("old")
        assert not path.exists()
    with atomic_file(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text("old")
    with pytest.raises(TypeError), atomic_file(path) as beside:
        beside.write_text(None)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
