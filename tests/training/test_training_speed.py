from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamenv.errors import ConfigError
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.evaluation.timing import Timing
from dreamenv.models.actor_critic import ActorCriticConfig
from dreamenv.models.world_model import WorldModel, read_description
from dreamenv.training import training_speed
from dreamenv.training import world_model as trainers
from dreamenv.training.actor_critic import ActorCriticTrainingConfig
from dreamenv.training.training_config import TrainingConfig
from dreamenv.training.training_speed import (
    TrainingPlan,
    TrainingSpeed,
    check_plan,
    make_reference_trainer,
    make_trainer,
    time_training,
)

MakeWorld = Callable[..., Path]

PLAN = TrainingPlan(
    TrainingConfig(batch_size=3, reward_end_batch_size=2, predictions=2, reward_end_length=5),
    ActorCriticTrainingConfig(num_envs=4, rollout_length=3),
    ActorCriticConfig(channels=(8, 8), downsample=(True, True), lstm_dim=8),
)


@pytest.fixture
def path(tmp_path: Path, make_world: MakeWorld) -> DreamPath:
    return DreamPath(make_world(tmp_path / "world"), "cpu")


@pytest.fixture(autouse=True)
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainers, "computes_in_bf16", lambda _: True)


def kernels(model: WorldModel) -> list[torch.Tensor]:
    """The weights of convolutions wider than a pixel: of others both formats look the same."""
    return [each for each in model.parameters() if each.ndim == 4 and each.shape[-1] > 1]


def test_rates_are_of_the_median() -> None:
    fast, reference = Timing(250.0, 240.0, 260.0, 7), Timing(1000.0, 900.0, 1100.0, 7)
    assert TrainingSpeed.of("heads", 8, 12, fast, reference) == TrainingSpeed(
        part="heads",
        batch_size=8,
        length=12,
        steps_per_second=4.0,
        reference_steps_per_second=1.0,
        ratio=4.0,
        timed_steps=7,
    )
    eager = Timing(500.0, 400.0, 600.0, 7)
    assert TrainingSpeed.of("heads", 8, 12, fast, reference, eager).eager_steps_per_second == 2.0


def test_the_reference_learns_in_float32_contiguous_and_eager(path: DreamPath) -> None:
    fast = make_trainer(path, PLAN.world_model).fitted
    reference = make_reference_trainer(path, PLAN.world_model).fitted
    assert (fast.bf16, reference.bf16) == (True, False)
    assert all(weight.is_contiguous() for weight in kernels(reference))
    assert not any(weight.is_contiguous() for weight in kernels(fast))
    for ours, theirs in zip(fast.parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype == torch.float32


def test_each_network_is_timed_by_its_own_steps(
    path: DreamPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[list[Any]] = []

    def alternate(steps: Sequence[Callable[[], Any]], seconds: float, _: object) -> list[Timing]:
        assert seconds == 3.0
        timed.append([step() for step in steps])
        return [Timing(10.0, 10.0, 10.0, 1), Timing(20.0, 20.0, 20.0, 1)]

    monkeypatch.setattr(training_speed, "alternate", alternate)
    rows = list(time_training(path, PLAN, 3.0))
    assert [(row.part, row.batch_size, row.length) for row in rows] == [
        ("denoiser", 3, 4),
        ("heads", 2, 5),
        ("actor-critic", 4, 3),
    ]
    assert {(row.steps_per_second, row.reference_steps_per_second) for row in rows} == {(100, 50)}
    assert [len(losses) for losses in timed] == [2, 2, 2]
    for losses in timed[0]:
        assert losses.denoiser.isfinite()
        assert losses.reward.isnan()
    for losses in timed[1]:
        assert losses.denoiser.isnan()
        assert losses.reward.isfinite()
    for statistics in timed[2]:
        assert statistics.value.isfinite()


def test_the_actor_critic_of_the_reference_learns_in_reference_dreams(
    path: DreamPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    open_ = DreamPath.open

    def spy(self: DreamPath, *arguments: Any, **options: Any) -> Any:
        opened.append((self, arguments, options))
        return open_(self, *arguments, **options)

    monkeypatch.setattr(DreamPath, "open", spy)
    monkeypatch.setattr(training_speed, "alternate", lambda *_: [Timing(1, 1, 1, 1)] * 2)
    list(time_training(path, PLAN, 1.0))
    assert opened == [(each, (4,), {"horizon": 3}) for each in (path, path.reference)]


def test_compiled_steps_are_timed_beside_those_that_are_not(
    path: DreamPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    def compile_network(loss: Callable[..., Any]) -> Callable[..., Any]:
        compiled.append(loss.__qualname__)
        return loss

    monkeypatch.setattr(trainers, "compile_network", compile_network)
    timings = [Timing(each, each, each, 1) for each in (10.0, 40.0, 20.0)]

    def alternate(steps: Sequence[Callable[[], Any]], *_: object) -> list[Timing]:
        assert len(steps) == 3
        return timings

    monkeypatch.setattr(training_speed, "alternate", alternate)
    rows = list(time_training(replace(path, compile=True), PLAN, 1.0))
    # Of three trainers one compiles what it learns by.
    assert compiled == ["Denoiser.losses", "RewardEndModel.losses"]
    assert [row.ratio for row in rows] == [4.0] * 3
    assert [row.eager_steps_per_second for row in rows] == [50.0] * 3


def test_the_world_model_stays_as_it_is(path: DreamPath) -> None:
    before = {file.name: file.read_bytes() for file in path.folder.iterdir()}
    rows = list(time_training(path, PLAN, 1e-3))
    assert [row.timed_steps for row in rows] == [1, 1, 1]
    assert all(row.steps_per_second > 0 for row in rows)
    assert {file.name: file.read_bytes() for file in path.folder.iterdir()} == before


def test_an_actor_critic_that_does_not_fit_is_refused(
    tmp_path: Path, make_world: MakeWorld
) -> None:
    architecture, _ = read_description(make_world(tmp_path / "world"))
    check_plan(architecture, TrainingPlan())
    architecture, _ = read_description(make_world(tmp_path / "odd", side=12))
    with pytest.raises(ConfigError, match="12"):
        check_plan(architecture, TrainingPlan())
