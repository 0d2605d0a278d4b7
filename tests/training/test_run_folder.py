import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dreamenv.config import Config
from dreamenv.errors import ConfigError, DreamenvError, FormatError
from dreamenv.training.run_folder import RunFolder


@dataclass(frozen=True)
class Part(Config):
    rate: float = 0.5


@dataclass(frozen=True)
class Settings(Config):
    steps: int = 3
    levels: tuple[int, ...] = (1, 2)
    part: Part = field(default_factory=Part)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "Pong")


def begin(
    run: RunFolder, config: Config | None = None, *, resume: bool = False, overwrite: bool = False
) -> None:
    run.check(config or Settings(), resume=resume, overwrite=overwrite)
    if not resume:
        run.begin(config or Settings())


def test_a_new_run_keeps_its_configuration(run: RunFolder) -> None:
    begin(run)
    begin(run, resume=True)
    assert [path.name for path in run.path.iterdir()] == ["config.json"]


def test_everything_of_a_run_is_in_its_folder(run: RunFolder) -> None:
    models = run.world_model, run.agent, run.best
    places = (run.config, run.replay, run.checkpoint, *models, run.evaluation, run.results)
    assert len(set(places)) == 8
    assert all(place.is_relative_to(run.path) for place in places)


def test_a_run_that_is_there_is_not_touched_unasked(run: RunFolder) -> None:
    begin(run)
    with pytest.raises(FormatError, match=r"Pong holds a run already; .*--resume.*--overwrite"):
        begin(run, Settings(steps=4))
    begin(run, resume=True)


def test_an_overwritten_run_leaves_nothing(run: RunFolder) -> None:
    begin(run)
    written = (run.replay, run.world_model, run.agent, run.best, run.evaluation)
    for folder in written:
        folder.mkdir()
        (folder / "index.json").write_text("{}")
    run.results.write_text("{}")
    begin(run, Settings(steps=4), overwrite=True)
    assert not any(folder.exists() for folder in written)
    assert not run.results.exists()
    begin(run, Settings(steps=4), resume=True)


def test_there_may_be_nothing_to_overwrite(run: RunFolder) -> None:
    begin(run, overwrite=True)
    begin(run, resume=True)


def test_overwriting_leaves_a_folder_that_holds_no_run_as_it_is(run: RunFolder) -> None:
    run.path.mkdir(parents=True)
    (run.path / "thesis.tex").write_text("years of work")
    begin(run, overwrite=True)
    assert (run.path / "thesis.tex").read_text() == "years of work"


def test_a_run_that_is_not_there_cannot_be_gone_on_with(run: RunFolder) -> None:
    with pytest.raises(FormatError, match="Pong holds no run to go on with; leave out --resume"):
        begin(run, resume=True)
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (Settings(steps=4), "steps 3, not 4"),
        (Settings(levels=(1, 3)), r"levels \[1, 2\], not \[1, 3\]"),
        (Settings(part=Part(rate=0.25)), r"part\.rate 0\.5, not 0\.25"),
    ],
)
def test_a_run_is_not_gone_on_with_under_other_settings(
    run: RunFolder, other: Settings, difference: str
) -> None:
    begin(run)
    with pytest.raises(ConfigError, match=f"Pong was begun with {difference}; give"):
        begin(run, other, resume=True)


@pytest.mark.parametrize("text", ["", '{"steps": 3', '{"colour": 1}', "[]"])
def test_a_damaged_configuration_is_named(run: RunFolder, text: str) -> None:
    begin(run)
    run.config.write_text(text)
    with pytest.raises(FormatError, match=r"config\.json") as error:
        begin(run, resume=True)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_told_in_one_line(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dreamenv.training.run_folder.atomic_file", no_space)
    with pytest.raises(DreamenvError, match="the disk is full"):
        begin(run)


def test_checking_changes_nothing(run: RunFolder) -> None:
    run.check(Settings(), resume=False, overwrite=False)
    assert not run.path.exists()
    begin(run)
    run.check(Settings(steps=4), resume=False, overwrite=True)
    run.check(Settings(), resume=True, overwrite=False)


def test_a_checkpoint_without_its_run_is_not_taken_for_the_new_ones(run: RunFolder) -> None:
    run.checkpoint.parent.mkdir(parents=True)
    run.checkpoint.write_bytes(b"of another run")
    begin(run)
    assert not run.checkpoint.exists()


def test_going_on_removes_what_was_left_half_written(run: RunFolder) -> None:
    begin(run)
    run.checkpoint.parent.mkdir()
    whole = run.checkpoint
    half = whole.with_name(f".{whole.name}-0a1b2c3d.partial")
    for file in (whole, half):
        file.write_bytes(b"")
    run.go_on()
    assert whole.exists()
    assert not half.exists()
