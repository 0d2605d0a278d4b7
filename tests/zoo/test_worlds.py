"""The world models that come with the package: small, documented, and good enough to play."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import dreamenv  # noqa: F401  # registers the ids
from dreamenv import DreamVecEnv
from dreamenv.models.world_model import WorldModel
from dreamenv.real.policy import Policy, RandomPolicy, to_channels_first
from dreamenv.registration import find_world_model
from dreamenv.training.build_world import BuildConfig, Recipe
from dreamenv.training.fit_config import FitModelConfig
from dreamenv.zoo.breakout import Player

NAMES = ("Breakout", "Pong")


@pytest.fixture(autouse=True)
def _empty_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
class TestFolder:
    def test_it_is_small(self, name: str) -> None:
        files = [file for file in find_world_model(name).rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) < 12e6

    def test_it_was_made_on_a_gpu_as_its_recipe_says(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(BuildConfig, "kind", "gpu")
        recipe = Recipe.read(name)
        world_model = WorldModel.load(find_world_model(name))
        assert world_model.origin.environment is not None
        assert world_model.origin.environment.id == recipe.environment
        fit: dict[str, Any] | None = world_model.origin.fit
        for wanted in reversed(BuildConfig(name).fits(recipe)):
            assert fit is not None
            assert FitModelConfig.from_dict(fit["settings"], name) == wanted
            fit = fit["begun_with"]
        assert fit is None
        assert world_model.origin.fit["steps_in_data"] == sum(
            collection.steps for collection in recipe.collections
        )

    def test_the_card_has_the_commands_and_the_figures(self, name: str) -> None:
        folder = find_world_model(name)
        card = (folder / "README.md").read_text()
        assert f"\n    dreamenv zoo build {name}\n" in card
        assert f"\n    dreamenv evaluate-model {name} --data runs/zoo/{name}/replay --pl" in card
        fidelity = json.loads((folder / "fidelity.json").read_text())
        assert f"{fidelity['dreams'][0]['frames'][0]['psnr']:.2f} [" in card
        assert (folder / "fidelity.png").is_file()


@pytest.mark.parametrize("name", NAMES)
class TestDream:
    def test_it_is_made_by_its_id(self, name: str) -> None:
        env = gymnasium.make(f"DreamEnv/{name}-v0")
        obs, _ = env.reset(seed=0)
        assert env.observation_space.contains(obs)
        after, _, _, _, _ = env.step(1)
        assert env.observation_space.contains(after)
        env.close()


def test_who_follows_the_ball_of_breakout_earns_more_than_chance() -> None:
    chance = earned("Breakout", RandomPolicy(4, seed=0), dreams=12, steps=48)
    assert earned("Breakout", Player(), dreams=12, steps=48) > chance + 0.3


def test_random_play_of_pong_loses_points() -> None:
    assert earned("Pong", RandomPolicy(6, seed=0), dreams=32, steps=40) < 0


def test_the_first_step_comes_without_anything_of_training(tmp_path: Path) -> None:
    script = (
        "import sys, gymnasium, dreamenv; env = gymnasium.make('DreamEnv/Breakout-v0');"
        "env.reset(seed=0); env.step(1);"
        "slow = {'stable_baselines3', 'tensorboard', 'matplotlib', 'tyro', 'ale_py'};"
        "print(sorted(slow & sys.modules.keys()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DREAMENV_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "[]"


def earned(name: str, player: Policy, dreams: int, steps: int) -> float:
    """Returns the mean reward of dreams of so many steps, ended or not."""
    env = DreamVecEnv(name, dreams, horizon=steps)
    env.seed(0)
    obs, starts = np.asarray(env.reset()), np.ones(dreams, np.bool_)
    total, alive = np.zeros(dreams), np.ones(dreams, np.bool_)
    for _ in range(steps):
        after, rewards, starts, _ = env.step(player.act(to_channels_first(obs), starts))
        obs = np.asarray(after)
        total += rewards * alive
        alive &= ~starts
    return float(total.mean())
