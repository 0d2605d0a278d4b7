import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamenv.cli.main import main
from dreamenv.data import Episode, Replay
from dreamenv.environment import EnvironmentSpec
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import Origin, WorldModel, WorldModelConfig

Command = Callable[..., subprocess.CompletedProcess[str]]

ENVIRONMENT = EnvironmentSpec("Test/Noise-v0", (1, 8, 8), ("left", "right"))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with a tiny world model."""
    torch.manual_seed(0)
    denoiser = DenoiserConfig(
        cond_channels=8, channels=(8,), depths=(1,), attention=(False,), fold=4
    )
    heads = RewardEndConfig(
        cond_channels=8, channels=(8,), depths=(1,), attention=(False,), lstm_dim=8, fold=4
    )
    config = WorldModelConfig(2, (1, 8, 8), denoiser, heads, SamplerConfig(num_steps=2))
    WorldModel(config, Origin(environment=ENVIRONMENT)).save(tmp_path / "home" / "Noise")
    return tmp_path / "home" / "Noise"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of a replay of noise."""
    random_numbers = np.random.default_rng(0)
    replay = Replay.create(tmp_path / "data", ENVIRONMENT, held_out_every=2)
    for _ in range(4):
        replay.append(
            Episode(
                obs=random_numbers.integers(0, 256, (31, 1, 8, 8), dtype=np.uint8),
                actions=random_numbers.integers(0, 2, 30),
                rewards=random_numbers.integers(-1, 2, 30).astype(np.float32),
                terminated=True,
                truncated=False,
            )
        )
    return replay.folder


@pytest.mark.usefixtures("world", "data")
def test_a_world_model_is_measured(command: Command, tmp_path: Path) -> None:
    words = (
        "evaluate-model DreamEnv/Noise-v0 --data data --horizons 1,5 --max-windows 4 "
        "--denoising-steps 1,3 --denoising-levels 5,2,1 --denoising-levels 4 --seed 7"
    ).split()
    result = command(*words)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "evaluation" / "Noise"
    assert sorted(path.name for path in folder.iterdir()) == ["fidelity.json", "fidelity.png"]
    figures = json.loads((folder / "fidelity.json").read_text())
    assert figures["command"] == f"dreamenv {' '.join(words)}"
    assert figures["settings"]["seed"] == 7
    assert [frame["horizon"] for frame in figures["dreams"][0]["frames"]] == [1, 5]
    levels = [dream["levels"] for dream in figures["dreams"]]
    assert [len(each) for each in levels] == [2, 1, 3, 3, 1]
    assert levels[3:] == [[5.0, 2.0, 1.0], [4.0]]
    for shown in ("dream: 25/25", "PSNR", "precision / recall", "step 5", "(own)", "fidelity.png"):
        assert shown in result.stdout


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        ("Nowhere --data data", 1, "no world model 'Nowhere'"),
        ("Noise --data nowhere", 1, "nowhere: not a replay"),
        ("Noise --data data --horizons 5,1", 1, "horizons is (5, 1)"),
        ("Noise --data data --denoising-levels 1,5", 1, "falling"),
        ("Noise --data data --device cuda:99", 1, "cuda:99"),
        ("Noise --data data --players random nobody", 1, "policy is 'nobody'"),
        ("Noise --data data --horizons one", 2, "one"),
        ("Noise", 2, "--data"),
    ],
)
@pytest.mark.usefixtures("world", "data")
def test_what_cannot_work_is_told(
    words: str,
    status: int,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path / "home"))
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate-model", *words.split()])
    assert exit_.value.code == status
    error = capsys.readouterr().err
    assert named in error
    assert "Traceback" not in error
    assert status == 2 or error.count("\n") == 1
    assert not (tmp_path / "evaluation").exists()
