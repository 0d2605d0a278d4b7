import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamenv.cli import bench
from dreamenv.cli.main import main
from dreamenv.training.presets import PresetName
from dreamenv.training.speed import SpeedConfig

Command = Callable[..., subprocess.CompletedProcess[str]]
MakeWorld = Callable[..., Path]

ROW = {"num_envs", "fps", "reference_fps", "ratio", "ms_per_step", "peak_memory_mb"}


@pytest.fixture
def home(make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny world model, where commands run."""
    make_world(tmp_path / "home" / "Noise")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path / "home"))
    return tmp_path


def test_json_is_one_object_and_nothing_else(command: Command, home: Path) -> None:
    words = (
        "bench --world-model Noise --num-envs 2 --denoising-steps 3 --seconds 0.01 --device cpu "
        "--no-training --json --plot"
    )
    result = command(*words.split())
    assert result.returncode == 0, result.stderr
    speed = json.loads(result.stdout)
    assert speed["command"] == f"dreamenv {words}"
    assert (speed["name"], speed["denoiser_evaluations"]) == ("Noise", 3)
    assert speed["flops_per_frame"] > 0
    assert speed["ceiling"]["flops"] > 0
    (row,) = speed["dream"]
    assert row.keys() > ROW
    assert row["num_envs"] == 2
    assert row["fps"] == pytest.approx(2000 / row["ms_per_step"])
    assert row["reference_fps"] == pytest.approx(row["fps"] / row["ratio"])
    assert row["ms_per_step_p10"] <= row["ms_per_step"] <= row["ms_per_step_p90"]
    assert row["peak_memory_mb"] is None or row["peak_memory_mb"] > 100
    assert speed["training"] == []
    assert (home / "bench-Noise.png").read_bytes().startswith(b"\x89PNG")
    assert "dreams, 2 at once" in result.stderr
    rates = f"{row['fps']:.1f} frames a second, reference {row['reference_fps']:.1f}"
    assert rates in result.stderr


class StoppedError(Exception):
    """What was asked for is known."""


def asked(words: str, monkeypatch: pytest.MonkeyPatch) -> SpeedConfig:
    """Returns what a command line would measure."""

    def measure_speed(config: SpeedConfig, *_: Any, **__: Any) -> None:
        raise StoppedError(config)

    monkeypatch.setattr(bench, "measure_speed", measure_speed)
    with pytest.raises(StoppedError) as stopped:
        main(["bench", *words.split()])
    config = stopped.value.args[0]
    assert isinstance(config, SpeedConfig)
    return config


def test_options_are_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    config = asked("", monkeypatch)
    assert config == SpeedConfig()
    assert config.dream.num_envs == (1, 8, 32)
    config = asked(
        "--preset atari100k --num-envs 1,2,4 --denoising-steps 5 --seconds 2.5 --no-training "
        "--faces 64 "
        "--compile --device cpu --world-model DreamEnv/Noise-v0",
        monkeypatch,
    )
    assert (config.preset, config.world_model) == ("atari100k", "DreamEnv/Noise-v0")
    dream = config.dream
    assert (dream.num_envs, dream.denoising_steps, dream.seconds) == ((1, 2, 4), 5, 2.5)
    assert dream.compile
    assert (config.training, config.device, config.faces) == (False, "cpu", 64)


@pytest.mark.parametrize(
    ("words", "preset", "file"),
    [
        ("", "small", None),
        ("--plot", "small", "bench-small.png"),
        ("--plot --preset atari100k", "atari100k", "bench-atari100k.png"),
        ("--plot speed.png", "small", "speed.png"),
        ("--world-model Noise --plot", "small", "bench-Noise.png"),
    ],
)
@pytest.mark.usefixtures("home")
def test_a_figure_is_where_it_is_asked_for(
    words: str, preset: PresetName, file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Path] = []
    monkeypatch.setattr(bench, "check_figure_path", checked.append)
    assert asked(words, monkeypatch).preset == preset
    assert checked == ([] if file is None else [Path(file)])


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        ("--world-model Nowhere", 1, "no world model 'Nowhere'"),
        ("--world-model ./no/where", 1, "no/where is not a world model"),
        ("--num-envs 1,0", 1, "num_envs is (1, 0)"),
        ("--denoising-steps 0", 1, "denoising_steps is 0"),
        ("--seconds 0", 1, "seconds is 0.0"),
        ("--device cuda:99", 1, "cuda:99"),
        ("--plot no/where.png", 1, "no is not there"),
        ("--num-envs one", 2, "one"),
        ("--preset tiny", 2, "tiny"),
        ("--plot one.png two.png", 2, "one file, not 2"),
    ],
)
@pytest.mark.usefixtures("home")
def test_what_cannot_work_is_told(
    words: str, status: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["bench", *words.split()])
    assert exit_.value.code == status
    captured = capsys.readouterr()
    assert named in captured.err
    assert "Traceback" not in captured.err
    assert status == 2 or captured.err.count("\n") == 1
    assert captured.out == ""
