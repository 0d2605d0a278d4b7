import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dreamenv.cli.fit_model import parse
from dreamenv.data import Episode, Replay, to_minari
from dreamenv.dream.contexts import Contexts
from dreamenv.environment import EnvironmentSpec, Preprocessing
from dreamenv.models.presets import atari100k, small
from dreamenv.models.world_model import WorldModel

Command = Callable[..., subprocess.CompletedProcess[str]]

# Kills the process, once everything is imported, after so many seconds.
KILLED = """
import os, signal, sys, threading
import dreamenv.cli.fit_model
from dreamenv.cli.main import main

delay = float(sys.argv.pop(1))
timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
timer.daemon = True
timer.start()
main()
"""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "world_model.safetensors")


def assert_one_line(result: subprocess.CompletedProcess[str], *named: str) -> None:
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    for name in named:
        assert name in result.stderr


@pytest.mark.parametrize("env", ["ALE/Breakout-v5", "CartPole-v1"])
def test_an_environment_becomes_a_world_model(
    command: Command, tiny: list[str], tmp_path: Path, env: str
) -> None:
    result = command("fit-model", "--env", env, *tiny)
    assert result.returncode == 0, result.stderr
    name = env.removeprefix("ALE/").split("-")[0]
    world = tmp_path / "home" / name
    model = WorldModel.load(world)
    assert model.origin.environment is not None
    assert model.origin.environment.id == env
    contexts = Contexts.load(world)
    assert contexts.obs.shape[1:] == (4, *model.config.obs_shape)
    frame = model.next_obs(contexts.obs[:2], contexts.actions[:2])
    assert frame.shape == (2, *model.config.obs_shape)
    assert f"dreamenv fit-model --env {env}" in (world / "README.md").read_text()
    dream = (
        f"import dreamenv, gymnasium; env = gymnasium.make('DreamEnv/{name}-v0'); "
        "env.reset(seed=0); print(env.step(1)[0].shape)"
    )
    channels, height, width = model.config.obs_shape
    assert command(python=dream).stdout == f"{(height, width, channels)}\n"
    run = tmp_path / "runs" / name
    assert list(run.glob("events.out.tfevents.*"))
    assert sorted(path.name for path in (run / "evaluation").iterdir()) == [
        f"step-{step:06d}.{kind}" for step in (20, 40) for kind in ("json", "png")
    ]
    for shown in ("collect: 400/400", "fit: 40/40", "PSNR", "waiting for batches", "next: "):
        assert shown in result.stdout


def test_a_replay_and_a_minari_dataset_become_world_models(
    command: Command, learn: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("minari")
    environment = EnvironmentSpec(
        id="Test/Noise-v0",
        obs_shape=(1, 16, 24),
        action_meanings=("left", "right"),
        preprocessing=Preprocessing(source="observation"),
    )
    random_numbers = np.random.default_rng(0)
    replay = Replay.create(tmp_path / "replay", environment)
    for _ in range(4):
        replay.append(
            Episode(
                obs=random_numbers.integers(0, 256, (31, 1, 16, 24), dtype=np.uint8),
                actions=random_numbers.integers(0, 2, 30),
                rewards=random_numbers.integers(-1, 2, 30).astype(np.float32),
                terminated=True,
                truncated=False,
            )
        )
    to_minari(replay, tmp_path / "noise-v0")
    for dataset, name in (("replay", "A"), ("./noise-v0", "B")):
        result = command("fit-model", "--dataset", dataset, "--name", name, *learn)
        assert result.returncode == 0, result.stderr
        assert WorldModel.load(tmp_path / "home" / name).config.obs_shape == (1, 16, 24)
    first, second = (weights(tmp_path / "home" / name) for name in "AB")
    assert all(torch.equal(first[key], second[key]) for key in first)

    other = command("fit-model", "--env", "CartPole-v1", "--dataset", "replay", *learn)
    assert_one_line(other, "dataset of another environment", "Test/Noise-v0")
    missing = command("fit-model", "--dataset", "nowhere", *learn)
    assert_one_line(missing, "nowhere")


@pytest.mark.slow
def test_killed_ten_times_it_ends_with_the_same_weights(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    arguments = ["fit-model", "--env", "ALE/Breakout-v5", *tiny]
    whole = command(*arguments, "--out", "whole", "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    moments = random.Random(0)
    killed = [*arguments, "--out", "killed", "--name", "killed"]
    kills = 0
    mode: list[str] = []
    for _ in range(40):
        delay = str(moments.uniform(0.0, 2.5))
        result = command(delay, *killed, *mode, python=KILLED)
        mode = ["--resume"] if (tmp_path / "killed" / "config.json").exists() else []
        kills += result.returncode == -signal.SIGKILL
        if kills == 10:
            break
        if result.returncode == 0:  # It got to the end: kill it in another one from the start.
            mode = ["--overwrite"]
    assert kills == 10
    finished = command(*killed, *mode)
    assert finished.returncode == 0, finished.stderr
    expected, found = (weights(tmp_path / "home" / name) for name in ("whole", "killed"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_there_is_and_says_how_to_go_on(
    command: Command, tiny: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    ask = KILLED.replace("signal.SIGKILL", f"signal.{number.name}")
    arguments = ["fit-model", "--env", "ALE/Breakout-v5", *tiny, "--steps", "100000"]
    result = command("3", *arguments, python=ask)
    assert result.returncode == 130
    assert_one_line(result, "stopped", "--resume")
    assert (tmp_path / "runs" / "Breakout" / "replay" / "index.json").exists()


def test_a_player_may_stand_in_the_current_folder(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("def act(obs):\n    return [1] * len(obs)\n")
    script = "from dreamenv.cli.main import main; import sys; sys.path.remove(''); main()"
    arguments = ["--env", "CartPole-v1", "--policy", "mine:act", *tiny]
    result = command("fit-model", *arguments, python=script)
    assert result.returncode == 0, result.stderr
    replay = Replay.open(tmp_path / "runs" / "CartPole" / "replay")
    assert all((episode.actions == 1).all() for episode in replay.episodes())


def test_overwriting_removes_nothing_before_the_new_run_has_a_source(
    command: Command, tiny: list[str], learn: list[str], tmp_path: Path
) -> None:
    words = ["fit-model", "--name", "W", "--overwrite", *learn]
    assert command(*words, *tiny, "--env", "CartPole-v1").returncode == 0
    assert_one_line(command(*words, "--env", "CartPol-v1"), "CartPole-v1")
    assert_one_line(command(*words, "--dataset", "nowhere"), "nowhere")
    within = command(*words, "--dataset", "runs/W/replay")
    assert_one_line(within, "--overwrite would remove")
    assert Replay.open(tmp_path / "runs" / "W" / "replay").num_steps == 400


class TestBadInput:
    def test_nothing_to_learn_from(self, command: Command) -> None:
        assert_one_line(command("fit-model"), "--env or --dataset")

    def test_an_unknown_environment_suggests_the_nearest_and_leaves_nothing(
        self, command: Command, tmp_path: Path
    ) -> None:
        assert_one_line(command("fit-model", "--env", "ALE/Pnog-v5"), "ALE/Pong-v5")
        assert not (tmp_path / "runs").exists()

    def test_continuous_actions(self, command: Command) -> None:
        assert_one_line(command("fit-model", "--env", "Pendulum-v1"), "Pendulum-v1", "Discrete")

    def test_a_device_that_is_not_there(self, command: Command) -> None:
        result = command("fit-model", "--env", "ALE/Pong-v5", "--device", "cuda:99")
        assert_one_line(result, "cuda:99")

    def test_a_policy_that_is_not_there(self, command: Command) -> None:
        result = command("fit-model", "--env", "ALE/Pong-v5", "--policy", "agent.zip")
        assert_one_line(result, "agent.zip")

    def test_a_player_that_cannot_be_imported(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text("def act(obs:\n")
        result = command("fit-model", "--env", "ALE/Pong-v5", "--policy", "mine:act")
        assert_one_line(result, "mine:act", "SyntaxError")

    def test_how_to_play_together_with_a_dataset(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        result = command("fit-model", "--dataset", "data", "--epsilon", "0.1")
        assert_one_line(result, "--epsilon", "--dataset")

    @pytest.mark.parametrize("option", ["--out", "--dataset"])
    def test_a_file_where_a_folder_is_meant(
        self, command: Command, tmp_path: Path, option: str
    ) -> None:
        (tmp_path / "file").write_text("")
        env = ["--env", "CartPole-v1"] if option == "--out" else []
        assert_one_line(command("fit-model", *env, option, "file"), "file")

    def test_a_home_that_cannot_be_written(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "home").write_text("")
        assert_one_line(command("fit-model", "--env", "CartPole-v1"), "home")

    def test_a_missing_rom(
        self, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
        assert_one_line(command("fit-model", "--env", "ALE/Pong-v5"), "ROM", "ALE/Pong-v5")

    def test_a_world_model_that_is_there_already(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "home" / "Pong").mkdir(parents=True)
        (tmp_path / "home" / "Pong" / "config.json").write_text("{}")
        assert_one_line(command("fit-model", "--env", "ALE/Pong-v5"), "--overwrite", "--name")

    def test_a_run_that_is_there_already(
        self, command: Command, tiny: list[str], tmp_path: Path
    ) -> None:
        (tmp_path / "runs" / "Pong").mkdir(parents=True)
        (tmp_path / "runs" / "Pong" / "config.json").write_text("{}")
        result = command("fit-model", "--env", "ALE/Pong-v5", *tiny)
        assert_one_line(result, "--resume", "--overwrite", "--out")

    def test_a_setting_that_cannot_work(self, command: Command) -> None:
        result = command("fit-model", "--env", "ALE/Pong-v5", "--denoiser.fold", "3")
        assert result.returncode == 2
        assert "fold is 3; it must be 1, 2 or 4" in result.stderr
        assert "Traceback" not in result.stderr

    def test_a_truncated_episode_is_named_and_skipped(
        self, command: Command, learn: list[str], tmp_path: Path
    ) -> None:
        collected = command(
            "collect", "--env", "ALE/Breakout-v5", "--size", "32", "--steps", "300", "--out", "data"
        )
        assert collected.returncode == 0, collected.stderr
        episode = tmp_path / "data" / "episodes" / "000002.npz"
        episode.write_bytes(episode.read_bytes()[:100])
        result = command("fit-model", "--dataset", "data", "--name", "Rest", *learn)
        assert result.returncode == 0, result.stderr
        assert f"skipped: {episode.relative_to(tmp_path)}" in result.stdout


class TestParsing:
    def test_the_preset_sets_the_defaults(self) -> None:
        config = parse(["--env", "ALE/Pong-v5"]).config
        assert config.denoiser == small(4).denoiser
        published = parse(["--env", "ALE/Pong-v5", "--preset", "atari100k"]).config
        assert published.denoiser == atari100k(4).denoiser
        assert published.training.ema_decay == 0

    def test_what_is_given_overrides_the_preset(self) -> None:
        words = "--preset atari100k --env X --steps 7 --denoiser.fold 2 --size 48 80".split()
        config = parse(words).config
        assert config.training.steps == 7
        assert config.denoiser.fold == 2
        assert config.height_width == (48, 80)

    def test_a_world_model_to_begin_with_brings_its_networks(self, tmp_path: Path) -> None:
        known = atari100k(4)
        known = replace(known, denoiser=replace(known.denoiser, channels=(8, 8, 8, 8)))
        WorldModel(known).save(tmp_path / "known")
        words = ["--env", "ALE/Pong-v5", "--begin-with", str(tmp_path / "known")]
        config = parse(words).config
        assert (config.denoiser, config.reward_end) == (known.denoiser, known.reward_end)
        assert config.sampler == known.sampler
        assert config.training == parse(["--env", "ALE/Pong-v5"]).config.training
        assert parse([*words, "--denoiser.start-share", "1"]).config.denoiser.start_share == 1

    def test_an_unknown_preset_lists_the_known(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exit_:
            parse(["--preset", "large"])
        assert exit_.value.code == 2
        printed = capsys.readouterr().err
        assert "small" in printed
        assert "atari100k" in printed


def test_a_dry_run_leaves_nothing(command: Command, tiny: list[str], tmp_path: Path) -> None:
    result = command("fit-model", "--env", "ALE/Pong-v5", "--dry-run", *tiny)
    assert result.returncode == 0, result.stderr
    assert "dreaming what" not in result.stdout
    for shown in (
        "parameters, denoiser",
        "a step of the denoiser on cpu",
        "a step of the heads",
        "in all, about",
        "3x32x32",
    ):
        assert shown in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_times_what_is_dreamt_to_learn_from(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    dreamt = "--unrolled-crop 16 --reward-end-dreamt 0.5 --reward-end-length 6".split()
    result = command("fit-model", "--env", "ALE/Pong-v5", "--dry-run", *tiny, *dreamt)
    assert result.returncode == 0, result.stderr
    for learner in "denoiser", "heads":
        assert f"a step of dreaming what the {learner} learn" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_fit_goes_on_from_a_world_model(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    first = command("fit-model", "--env", "CartPole-v1", *tiny)
    assert first.returncode == 0, first.stderr
    again = "fit-model --env CartPole-v1 --name Again --begin-with CartPole --steps 1".split()
    result = command(*again, "--collect-steps", "60", "--size", "32")
    assert result.returncode == 0, result.stderr
    before, after = (WorldModel.load(tmp_path / "home" / name) for name in ("CartPole", "Again"))
    assert after.config == before.config
    assert after.origin.fit["begun_with"] == before.origin.fit
    others = command(*again, "--overwrite", "--denoiser.cond-channels", "64")
    assert_one_line(others, "CartPole has a denoiser with cond_channels", "not 64")
    nowhere = command(*again[:5], "--begin-with", "Nowhere")
    assert_one_line(nowhere, "there is no world model 'Nowhere'")


def test_collecting_alone_goes_on_where_it_was_stopped(command: Command, tmp_path: Path) -> None:
    words = "collect --env CartPole-v1 --size 16 --steps 60".split()
    for folder in ("a", "a"):
        result = command(*words, "--out", folder)
        assert result.returncode == 0, result.stderr
    assert Replay.open(tmp_path / "a").num_steps == 60
    more = command(*words, "--out", "a", "--epsilon", "0.5")
    assert more.returncode == 0, more.stderr
    assert Replay.open(tmp_path / "a").num_steps == 120
    unknown = command("collect", "--env", "CartPole-v7", "--out", "b")
    assert_one_line(unknown, "CartPole-v1")
    assert not (tmp_path / "b").exists()
    other = command("collect", "--env", "Acrobot-v1", "--size", "16", "--out", "a")
    assert_one_line(other, "another environment")
