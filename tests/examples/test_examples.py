"""The examples run, each as a process of its own, on a tiny dream."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import PPO

from dreamenv import Contexts, WorldModel
from dreamenv.environment import EnvironmentSpec
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import Origin, WorldModelConfig

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a dream named Breakout, of noise."""
    level: dict[str, Any] = {"channels": (8,), "depths": (1,), "attention": (False,), "fold": 4}
    config = WorldModelConfig(
        num_actions=4,
        obs_shape=(3, 40, 40),
        denoiser=DenoiserConfig(context_length=2, cond_channels=8, **level),
        reward_end=RewardEndConfig(cond_channels=8, lstm_dim=8, **level),
        sampler=SamplerConfig(num_steps=1),
    )
    environment = EnvironmentSpec("ALE/Breakout-v5", (3, 40, 40), ("NOOP", "FIRE", "R", "L"))
    frames = torch.randint(0, 256, (4, 2, 3, 40, 40), dtype=torch.uint8)
    contexts = Contexts(frames, torch.zeros(4, 2, dtype=torch.int64))
    model = WorldModel(config, Origin(environment=environment))
    model.eval().save(tmp_path / "home" / "Breakout", also=contexts.save)
    return tmp_path / "home"


def run(name: str, home: Path, *arguments: str) -> str:
    """Runs an example beside the home, and returns what it printed."""
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=home.parent,
        env=os.environ | {"DREAMENV_HOME": str(home), "XDG_RUNTIME_DIR": str(home.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text()
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in tested


def test_ppo_learns_in_a_dream(home: Path) -> None:
    printed = run("ppo_in_dream.py", home, "--num-envs", "4", "--steps", "128")
    assert "total_timesteps | 128" in printed
    assert PPO.load(home.parent / "ppo_in_dream.zip").num_timesteps == 128


def test_ppo_in_a_dream_is_a_short_script() -> None:
    assert len((EXAMPLES / "ppo_in_dream.py").read_text().splitlines()) < 30


def test_random_play(home: Path) -> None:
    printed = run("random_dream.py", home, "--dreams", "2", "--horizon", "5")
    assert printed.startswith("dream 0 ")
    assert printed.count("\n") == 2


def test_dreams_as_tensors(home: Path) -> None:
    printed = run("vector_dream.py", home, "--num-envs", "4", "--steps", "20")
    assert "steps a second" in printed


def test_an_environment_of_ones_own(home: Path) -> None:
    little = "--size 24 --collect-steps 80 --steps 2".split()
    printed = run("fit_your_own_env.py", home, *little)
    assert "step 10: " in printed
    assert (home / "MyCartPole" / "world_model.safetensors").is_file()
