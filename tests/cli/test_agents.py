"""`train-agent` and `evaluate-agent`, on a tiny dream of CartPole."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamenv import Contexts, WorldModel
from dreamenv.cli.main import main
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import Origin, WorldModelConfig
from dreamenv.real import describe
from dreamenv.training import agent_film

LITTLE = (
    "--steps 32 --num-envs 2 --horizon 5 --frame-stack 2 --denoising-steps 2 --episodes 3 "
    "--device cpu"
).split()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(agent_film, "_LENGTH", 6)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A dream of CartPole, in the home, that has learned nothing."""
    level: dict[str, Any] = {"channels": (8,), "depths": (1,), "attention": (False,), "fold": 4}
    config = WorldModelConfig(
        num_actions=2,
        obs_shape=(3, 40, 40),
        denoiser=DenoiserConfig(context_length=2, cond_channels=8, **level),
        reward_end=RewardEndConfig(cond_channels=8, lstm_dim=8, **level),
        sampler=SamplerConfig(num_steps=1),
    )
    frames = torch.randint(0, 256, (4, 2, 3, 40, 40), dtype=torch.uint8)
    contexts = Contexts(frames, torch.zeros(4, 2, dtype=torch.int64))
    folder = tmp_path / "home" / "Pole"
    model = WorldModel(config, Origin(environment=describe("CartPole-v1", 40)))
    model.eval().save(folder, also=contexts.save)
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command that must end with an error of one line, and returns that."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("dreamenv: ")
    assert error.count("\n") == 1
    return error


def test_an_agent_is_trained_and_evaluated(
    world: Path,  # noqa: ARG001
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["train-agent", "--env", "DreamEnv/Pole-v0", "--algo", "a2c", *LITTLE])
    out = tmp_path / "runs" / "Pole-a2c"
    results = json.loads((out / "results.json").read_text())
    assert results["algorithm"]["name"] == "A2C"
    assert (out / "agent.gif").is_file()
    assert "CartPole-v1, raw scores" in capsys.readouterr().out

    play = "--env CartPole-v1 --size 40 --episodes 3 --out scores.json".split()
    main(["evaluate-agent", str(out / "agent.zip"), *play])
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["players"][0]["games"] == results["after"]["games"]
    printed = capsys.readouterr().out
    for shown in ("agent.zip", "random", "scores: scores.json"):
        assert shown in printed
    main(["evaluate-agent", str(out / "agent.zip"), "--no-sample", *play])
    assert json.loads((tmp_path / "scores.json").read_text())["sample"] is False

    wrong_size = ["evaluate-agent", str(out / "agent.zip"), "--env", "CartPole-v1"]
    assert "CartPole-v1 has frames [3, 64, 64]" in refused(capsys, *wrong_size)
    again = refused(capsys, "train-agent", "--env", "Pole", "--algo", "a2c")
    assert "runs/Pole-a2c is there already; add --overwrite" in again


def test_a_world_model_is_named_by_its_folder(world: Path, tmp_path: Path) -> None:
    main(["train-agent", "--world-model", str(world), "--out", "there", *LITTLE])
    assert (tmp_path / "there" / "agent.zip").is_file()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train-agent", "give --env or --world-model"),
        ("train-agent --env DreamEnv/Nowhere-v0", "there is no world model 'Nowhere'"),
        ("train-agent --world-model nowhere", "nowhere"),
        ("evaluate-agent nowhere.zip --env CartPole-v1", "'nowhere.zip' is not there"),
        ("evaluate-agent random --env Nowhere-v0", "Nowhere"),
        ("evaluate-agent random --env CartPole-v1 --episodes 0", "episodes is 0"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    assert message in refused(capsys, *command.split())
