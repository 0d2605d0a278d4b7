from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamenv.evaluation import face_speed
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.evaluation.face_speed import time_faces
from dreamenv.evaluation.timing import Timing

MakeWorld = Callable[..., Path]


@pytest.fixture
def path(tmp_path: Path, make_world: MakeWorld) -> DreamPath:
    return DreamPath(make_world(tmp_path / "world"), "cpu")


def test_every_face_is_timed_beside_the_core(path: DreamPath) -> None:
    rows = list(time_faces(path, 3, seconds=0.05))
    assert [row.face for row in rows] == [
        "DreamVectorEnv",
        "DreamVectorEnv, tensors",
        "DreamVecEnv",
    ]
    for row in rows:
        assert row.num_envs == 3
        assert row.timed_steps > 0
        assert row.core_ms_per_step > 0
        assert row.cost == pytest.approx(row.ms_per_step / row.core_ms_per_step - 1)
    assert len({row.core_ms_per_step for row in rows}) == 1


def test_cost_is_what_a_step_takes_longer_than_the_core_s(
    path: DreamPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    medians = [10.0, 11.0, 10.0, 9.0]

    def alternate(steps: Sequence[Callable[[], Any]], *_: object) -> list[Timing]:
        for step in steps:
            step()
        return [Timing(each, each, each, 1) for each in medians]

    monkeypatch.setattr(face_speed, "alternate", alternate)
    costs = [row.cost for row in time_faces(path, 2, seconds=1.0)]
    assert costs == pytest.approx([0.1, 0.0, -0.1])


def test_faces_and_core_dream_alike(path: DreamPath, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def alternate(steps: Sequence[Callable[[], Any]], *_: object) -> list[Timing]:
        given.extend(step() for step in steps)
        return [Timing(1.0, 1.0, 1.0, 1)] * len(steps)

    monkeypatch.setattr(face_speed, "alternate", alternate)
    list(time_faces(path, 2, seconds=1.0))
    core, vector, tensors, for_sb3 = given
    # The core has the channels first; all began with the same seed.
    expected = core.obs.permute(0, 2, 3, 1)
    assert torch.equal(torch.as_tensor(vector[0]), expected)
    assert torch.equal(tensors[0], expected)
    assert torch.equal(torch.as_tensor(for_sb3[0]), expected)
