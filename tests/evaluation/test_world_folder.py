from collections.abc import Callable
from pathlib import Path

import pytest

from dreamenv.errors import FormatError
from dreamenv.evaluation.world_folder import world_folder, world_name

MakeWorld = Callable[..., Path]


def test_a_path_comes_before_a_name(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path / "home"))
    make_world(tmp_path / "home" / "Noise")
    assert world_folder("Noise") == tmp_path / "home" / "Noise"
    assert world_folder("DreamEnv/Noise-v0") == tmp_path / "home" / "Noise"
    make_world(tmp_path / "Noise")
    assert world_folder("Noise") == Path("Noise")


def test_a_name_that_nothing_has_is_told_and_a_path_is_left_to_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path))
    with pytest.raises(FormatError, match="no world model 'Nowhere'"):
        world_folder("Nowhere")
    assert world_folder("./no/where") == Path("./no/where")


def test_a_world_model_of_a_run_is_named_by_the_run(tmp_path: Path) -> None:
    assert world_name(tmp_path / "Pong" / "world_model") == "Pong"
    assert world_name(tmp_path / "Pong" / "best") == "Pong-best"
    assert world_name(tmp_path / "Pong") == "Pong"
