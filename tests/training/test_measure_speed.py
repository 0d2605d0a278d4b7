import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from dreamenv.errors import ConfigError, FormatError, InputError
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.evaluation.dream_speed import DreamSpeedConfig
from dreamenv.evaluation.machine import Ceiling
from dreamenv.models.actor_critic import ActorCriticConfig
from dreamenv.models.world_model import WorldModel, read_description
from dreamenv.training import measure_speed as module
from dreamenv.training.actor_critic import ActorCriticTrainingConfig
from dreamenv.training.measure_speed import measure_speed
from dreamenv.training.presets import PresetName
from dreamenv.training.speed import Speed, SpeedConfig
from dreamenv.training.speed_report import tables
from dreamenv.training.training_speed import TrainingPlan

MakeWorld = Callable[..., Path]

TINY: dict[str, Any] = {
    "imagination": ActorCriticTrainingConfig(num_envs=2, rollout_length=3),
    "actor_critic": ActorCriticConfig(channels=(8, 8), downsample=(True, True), lstm_dim=8),
}
TRAINING = {"part", "steps_per_second", "reference_steps_per_second", "ratio", "batch_size"}
QUICK = SpeedConfig(dream=DreamSpeedConfig((1, 3), seconds=1e-3), device="cpu")


@pytest.fixture(autouse=True)
def ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure_ceiling", lambda *_: Ceiling("float32", 2048, flops=4e12))


def measure(config: SpeedConfig, memory: float | None = 300.0) -> Speed:
    return measure_speed(config, Console(file=io.StringIO()), memory=lambda *_: memory)


def printed(speed: Speed) -> str:
    console = Console(file=io.StringIO(), width=200)
    for table in tables(speed):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, make_world: MakeWorld) -> str:
    return str(make_world(tmp_path_factory.mktemp("home") / "Noise"))


def test_a_world_model_is_measured(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TrainingPlan", partial(TrainingPlan, **TINY))
    speed = measure(replace(QUICK, world_model=world))
    assert speed.name == "Noise"
    assert (speed.obs_shape, speed.num_actions, speed.denoiser_evaluations) == ((3, 16, 16), 3, 2)
    assert [row.num_envs for row in speed.dream] == [1, 3]
    assert [row.part for row in speed.training] == ["denoiser", "heads", "actor-critic"]
    # Those of `small`, but for the last.
    assert [row.batch_size for row in speed.training] == [16, 8, 2]
    for row in speed.dream:
        assert row.flops_per_second == pytest.approx(speed.flops_per_frame * row.fps)
        assert row.share_of_ceiling == pytest.approx(row.flops_per_second / 4e12)
    model = WorldModel.load(world)
    assert speed.parameters == sum(weights.numel() for weights in model.parameters())
    assert all(row.keys() > TRAINING for row in speed.to_dict()["training"])
    assert Speed.from_dict(json.loads(json.dumps(speed.to_dict())), "JSON") == speed
    shown = printed(speed)
    for expected in ("Dreams of Noise", "3x16x16", "evaluations of the denoiser a frame: 2"):
        assert expected in shown
    for expected in ("actor-critic", "16 x 4", "2 x 3", "settings of small"):
        assert expected in shown
    assert "with Python and torch in it" in " ".join(shown.split())
    assert "compiling" not in shown


def test_faces_are_timed_where_they_are_asked_for(world: str) -> None:
    config = replace(QUICK, world_model=world, training=False)
    assert measure(config).faces == ()
    speed = measure(replace(config, faces=2))
    assert {row.num_envs for row in speed.faces} == {2}
    shown = printed(replace(speed, faces=tuple(replace(row, cost=0.034) for row in speed.faces)))
    for expected in ("What the faces cost", "DreamVectorEnv", "DreamVecEnv", "+3.4%"):
        assert expected in shown
    with pytest.raises(ConfigError, match=r"^faces is 0"):
        replace(config, faces=0)


def test_training_can_be_left_out_and_unknown_memory_is_not_made_up(world: str) -> None:
    config = replace(QUICK, world_model=world, training=False)
    speed = measure(replace(config, dream=replace(config.dream, denoising_steps=5)), memory=None)
    assert speed.training == ()
    assert speed.denoiser_evaluations == 5
    assert speed.dream[0].peak_memory_mb is None
    shown = printed(speed)
    assert "Training" not in shown
    assert "cannot be told here" in " ".join(shown.split())


def test_what_compiling_gives_has_a_table_of_its_own(world: str) -> None:
    speed = measure(replace(QUICK, world_model=world, training=False))
    rows = [replace(row, eager_fps=123.4, compile_seconds=56.7) for row in speed.dream]
    settings = replace(QUICK, dream=replace(QUICK.dream, compile=True))
    shown = printed(replace(speed, settings=settings, dream=tuple(rows)))
    assert "What compiling gives" in shown
    assert "not compiled" in shown
    assert "123.4" in shown
    assert "56.7" in shown


def test_training_that_is_compiled_stands_beside_that_which_is_not(
    world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TrainingPlan", partial(TrainingPlan, **TINY))
    speed = measure(replace(QUICK, world_model=world))
    assert printed(speed).count("not compiled") == 0
    rows = [replace(row, eager_steps_per_second=12.345) for row in speed.training]
    settings = replace(QUICK, dream=replace(QUICK.dream, compile=True))
    shown = printed(replace(speed, settings=settings, training=tuple(rows)))
    assert shown.count("not compiled") == 2
    assert shown.count("12.345") == 3


@pytest.mark.parametrize("name", ["small", "atari100k"])
def test_a_preset_has_random_weights_and_leaves_nothing(
    name: PresetName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def measure_(config: SpeedConfig, path: DreamPath, *_: object) -> None:
        assert config.preset == name
        architecture = read_description(path.folder)[0]
        assert (architecture.num_actions, architecture.obs_shape) == (4, (3, 64, 64))
        assert path.open(1).reset(seed=0).shape == (1, 3, 64, 64)
        folders.append(path.folder)

    monkeypatch.setattr(module, "_measure", measure_)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    measure(replace(QUICK, preset=name))
    assert len(folders) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_work_is_told_before_anything_is_timed(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "time_dreams", None)
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path))
    with pytest.raises(FormatError, match="no world model 'Nowhere'"):
        measure(replace(QUICK, world_model="Nowhere"))
    with pytest.raises(InputError, match="cuda:99"):
        measure(replace(QUICK, device="cuda:99"))
    odd = str(make_world(tmp_path / "Odd", side=12))
    with pytest.raises(ConfigError, match="12"):
        measure(replace(QUICK, world_model=odd))


def test_it_says_in_which_type_products_are(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure_ceiling(device: torch.device, dtype: torch.dtype, seconds: float) -> Ceiling:
        asked.append((device.type, dtype, seconds))
        return Ceiling(str(dtype).removeprefix("torch."), 2048, 1e12)

    monkeypatch.setattr(module, "measure_ceiling", measure_ceiling)
    for known, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(module, "computes_in_bf16", lambda _, known=known: known)
        speed = measure(replace(QUICK, world_model=world, training=False))
        assert f"torch.{speed.dtype}" == str(dtype)
        assert asked.pop() == ("cpu", dtype, 1e-3)
