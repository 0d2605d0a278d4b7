from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dreamenv
from dreamenv.dream.core import Dream
from dreamenv.errors import ConfigError, FormatError
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.models import world_model

MakeWorld = Callable[..., Path]


@pytest.fixture
def path(tmp_path: Path, make_world: MakeWorld) -> DreamPath:
    return DreamPath(make_world(tmp_path / "world"), "cpu")


def kernels(dream: Dream) -> list[torch.Tensor]:
    """The weights of convolutions wider than a pixel: of others both formats look the same."""
    weights = dream.world_model.parameters()
    return [weight for weight in weights if weight.ndim == 4 and weight.shape[-1] > 1]


def test_the_reference_is_float32_and_contiguous(
    path: DreamPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_model, "computes_in_bf16", lambda _: True)
    fast, reference = path.open(2), path.reference.open(2)
    assert fast.world_model.bf16
    assert not reference.world_model.bf16
    assert fast.world_model.in_parts
    assert not reference.world_model.in_parts
    assert all(weight.is_contiguous() for weight in kernels(reference))
    assert not any(weight.is_contiguous() for weight in kernels(fast))
    assert {weight.dtype for weight in reference.world_model.parameters()} == {torch.float32}


def test_the_fast_path_has_the_channels_last_in_float32_too(path: DreamPath) -> None:
    fast = replace(path, bf16=False).open(2)
    assert not any(weight.is_contiguous() for weight in kernels(fast))


def test_both_dream_the_same_to_within_rounding(
    path: DreamPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_model, "computes_in_bf16", lambda _: True)
    frames = []
    for each in (path, path.reference):
        dream = each.open(8)
        first = dream.reset(seed=0)
        frames.append(dream.step(torch.ones(8, dtype=torch.int64)).obs.float())
    assert (frames[0] - frames[1]).abs().mean() < 2  # grey levels
    assert (frames[0] - first).abs().mean() > 10


@pytest.mark.parametrize("name", ["Breakout", "Pong"])
def test_bundled_worlds_dream_the_same_to_within_two_grey_levels(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_model, "computes_in_bf16", lambda _: True)
    folder = Path(dreamenv.__file__).parent / "zoo" / "worlds" / name
    frames = []
    for each in (DreamPath(folder, "cpu"), DreamPath(folder, "cpu").reference):
        dream = each.open(6)
        first = dream.reset(seed=0)
        frames.append(dream.step(torch.ones(6, dtype=torch.int64)).final_obs.float())
    assert 0 < (frames[0] - frames[1]).abs().mean() < 2
    moved = frames[1] != first
    assert moved.float().mean() > 0.001
    assert (frames[0] - frames[1])[moved].abs().mean() < (frames[1] - first)[moved].abs().mean() / 2


@pytest.mark.slow
def test_both_give_rewards_and_ends_as_often(
    tmp_path: Path, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_model, "computes_in_bf16", lambda _: True)
    path = DreamPath(make_world(tmp_path / "world", side=8), "cpu")
    num_envs, steps = 100, 100
    rates = []
    for seed, each in enumerate((path, path.reference)):  # of chance that has nothing in common
        dream = each.open(num_envs)
        dream.reset(seed=seed)
        actions = torch.Generator().manual_seed(seed)
        counts = torch.zeros(3)
        for _ in range(steps):
            step = dream.step(torch.randint(0, 3, (num_envs,), generator=actions))
            counts += torch.stack([step.reward == -1, step.reward == 1, step.terminated]).sum(1)
        rates.append(counts / (num_envs * steps))
    mean = (rates[0] + rates[1]) / 2
    assert ((mean > 0.05) & (mean < 0.95)).all()
    deviation = (mean * (1 - mean) * 2 / (num_envs * steps)).sqrt()
    assert ((rates[0] - rates[1]).abs() < 4 * deviation).all()


def test_it_dreams_as_asked(path: DreamPath) -> None:
    dream = DreamPath(path.folder, "cpu", denoising_steps=5).open(3, horizon=7)
    assert (dream.num_envs, dream.horizon, dream.sampler.num_evaluations) == (3, 7, 5)
    assert path.open(1).sampler.num_evaluations == 2


def test_only_the_fast_path_is_compiled(path: DreamPath, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = DreamPath(path.folder, "cpu", denoising_steps=5, compile=True)
    assert compiled.eager == DreamPath(path.folder, "cpu", denoising_steps=5)
    plain = replace(compiled.eager, bf16=False, contiguous=True, in_parts=False, recorded=False)
    assert compiled.reference == plain
    asked: list[object] = []

    def compile_(network: Any, **_: Any) -> Any:
        asked.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    for each in (compiled.eager, compiled.reference):
        each.open(1)
    assert not asked
    networks = compiled.open(1).world_model
    denoiser = networks.denoiser
    assert asked == [denoiser, denoiser.modulate, networks.reward_end]


def test_what_cannot_be_opened_is_told(path: DreamPath, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_envs is 0"):
        path.open(0)
    with pytest.raises(FormatError, match="nowhere"):
        DreamPath(tmp_path / "nowhere", "cpu").open(1)
