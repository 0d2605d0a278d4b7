import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from dreamenv import Dream
from dreamenv.data import Replay
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, InputError
from dreamenv.models.actor_critic_file import load_actor_critic
from dreamenv.models.world_model import WorldModel
from dreamenv.training.batches import Batches
from dreamenv.training.following import check_shares
from dreamenv.training.loop import train
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.ranks import ALONE, Ranks
from dreamenv.training.rollout import RolloutCollector

from .levels import LevelWorld, actor_critic, windows
from .two_ranks import ACT, AGENT_STEPS, CPU, FIT, RUN, act, fit, new_agent, new_model, train_agent

TESTS = Path(__file__).parents[1]
EVENTS = "events.out.tfevents.*"


def job(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Does a job of `two_ranks` by two ranks on the CPU, and waits for them to end."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = [str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    }
    return subprocess.run(
        [*torchrun, "-m", "training.two_ranks", name, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def assert_near(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=tolerance, atol=tolerance, msg=name)


# The trainers.


@pytest.fixture(scope="module")
def learned(played: Replay, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks has learned from the same replay."""
    folder = tmp_path_factory.mktemp("learned")
    (folder / "replay").symlink_to(played.folder)
    result = job("learn", folder / "replay")
    assert result.returncode == 0, result.stderr
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_ranks_fit_the_world_model_as_one_does(
    played: Replay, learned: list[dict[str, Any]]
) -> None:
    alone = fit(ALONE, played)
    for each in (rank["fit"] for rank in learned):
        torch.testing.assert_close(
            each["losses"], alone["losses"], rtol=1e-5, atol=1e-6, equal_nan=True
        )
        assert_near(each["weights"], alone["weights"])
        assert_near(each["fitted"], alone["fitted"])
    moved = [
        (alone["weights"][name] - each).abs().max()
        for name, each in new_model().state_dict().items()
    ]
    assert max(moved) > 1e-3


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are not to be seen here")
def test_no_thread_outlives_the_group(learned: list[dict[str, Any]]) -> None:
    # One that does can take the interpreter down as it ends.
    for threads in (rank["threads"] for rank in learned):
        assert threads
        assert not [name for name in threads if "gloo" in name]


def test_their_shares_have_unequal_numbers_of_steps_to_learn(played: Replay) -> None:
    # Or else a mean of their losses would do as well as the sum of the parts.
    batches = Batches(played, new_model(), FIT, CPU, seed=3)
    drawn = [batches.draw() for _ in range(FIT.steps)]
    halves = [
        [int(batch.part(Ranks(rank, 2).share).mask.sum()) for rank in (0, 1)]
        for pair in drawn
        for batch in pair
        if batch is not None
    ]
    assert sum(one != other for one, other in halves) > len(halves) / 2


def test_two_ranks_train_the_actor_critic_as_one_does(
    played: Replay, learned: list[dict[str, Any]]
) -> None:
    alone = train_agent(ALONE, played)
    for each in (rank["agent"] for rank in learned):
        for half in ("first", "second"):
            torch.testing.assert_close(each[half], alone[half], rtol=1e-5, atol=1e-6)
        for when in ("middle", "end"):
            one, other = each[when], alone[when]
            assert_near(one["network"], other["network"])
            # The dreams of both ranks, in the course that they take beside each other.
            dreams, beside = one["collector"]["dream"], other["collector"]["dream"]
            for name in ("actions", "steps", "next_context"):
                assert torch.equal(dreams[name], beside[name]), name
            assert (dreams["frames"].int() - beside["frames"].int()).abs().max() <= 1
            assert_near(one["collector"]["memory"], other["collector"]["memory"])


def test_both_ranks_have_the_same_weights_to_the_bit(learned: list[dict[str, Any]]) -> None:
    one, other = learned
    pairs = [(one["fit"][part], other["fit"][part]) for part in ("weights", "fitted")]
    pairs.append((one["agent"]["end"]["network"], other["agent"]["end"]["network"]))
    for mine, yours in pairs:
        for name, tensor in mine.items():
            assert torch.equal(tensor, yours[name]), name


def test_what_two_ranks_keep_one_goes_on_with(
    played: Replay, learned: list[dict[str, Any]]
) -> None:
    trainer = new_agent(ALONE, played)
    trainer.load_state_dict(learned[0]["agent"]["middle"])
    statistics = act(trainer, AGENT_STEPS // 2)
    torch.testing.assert_close(statistics, learned[0]["agent"]["second"], rtol=1e-5, atol=1e-6)


def test_a_dream_of_another_share_is_refused() -> None:
    dream = Dream(LevelWorld().eval(), windows(0), 4)
    with pytest.raises(InputError, match=r"^the dream is of Share\(index=0, count=1\), and rank 1"):
        RolloutCollector(actor_critic(), dream, ranks=Ranks(1, 2))


# The loop.


@pytest.fixture(scope="module")
def whole(
    catch: EnvironmentSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, str]:
    """A run of two ranks, and what they printed."""
    config = replace(RUN, env=catch.id, out=str(tmp_path_factory.mktemp("whole") / "run"))
    result = job("run", config.run_folder.path)
    assert result.returncode == 0, result.stderr
    return config, result.stdout


def networks(config: TrainConfig) -> dict[str, Tensor]:
    folder = config.run_folder.world_model
    both = WorldModel.load(folder, bf16=False), load_actor_critic(folder)
    return {
        f"{number}.{name}": tensor
        for number, network in enumerate(both)
        for name, tensor in network.state_dict().items()
    }


def test_a_run_of_two_ranks_ends_near_that_of_one(
    whole: tuple[TrainConfig, str], tmp_path: Path
) -> None:
    config = whole[0]
    alone = replace(config, out=str(tmp_path / "run"))
    train(alone, Console(file=io.StringIO()))
    mine, yours = (json.loads((each.run_folder.results).read_text()) for each in (config, alone))
    assert mine["real_steps"] == yours["real_steps"] == 80
    assert mine["random"] == yours["random"]
    assert mine["agent"] == yours["agent"]
    one, other = (Replay.open(each.run_folder.replay) for each in (config, alone))
    assert one.infos == other.infos
    assert_near(networks(config), networks(alone), 1e-4)


def test_only_the_first_rank_plays_prints_and_writes(whole: tuple[TrainConfig, str]) -> None:
    config, printed = whole
    assert printed.count("raw scores") == 1
    assert printed.count("epoch 2 of 2, 80 real steps: score") == 1
    folder = config.run_folder.path
    assert len(list(folder.glob(EVENTS))) == 1
    assert Replay.open(config.run_folder.replay).num_steps == 80
    assert not [each for each in folder.rglob(".*") if each.name != ".committed"]


def test_asked_to_stop_both_leave_and_go_on_to_the_same_numbers(
    whole: tuple[TrainConfig, str], tmp_path: Path
) -> None:
    config = replace(whole[0], out=str(tmp_path / "run"))
    stopped = job("stop", config.run_folder.path)
    assert stopped.returncode != 0
    line = "dreamenv: stopped in epoch 1: add --resume to go on"
    # Both left with it, having kept what they need.
    assert stopped.stderr.count(line) == 2, stopped.stderr
    resumed = job("resume", config.run_folder.path)
    assert resumed.returncode == 0, resumed.stderr
    mine, yours = networks(config), networks(whole[0])
    for name, tensor in mine.items():
        assert torch.equal(tensor, yours[name]), name


def test_an_error_of_one_rank_ends_both(tmp_path: Path) -> None:
    result = job("fail", tmp_path / "run")
    assert result.returncode != 0
    assert result.stderr.count("dreamenv: the second rank is unwell\n") == 1, result.stderr
    assert result.stderr.count("dreamenv: lost the other ranks (") == 1
    assert not (tmp_path / "run" / "results.json").exists()


# Settings.


def test_a_run_whose_batches_cannot_be_shared_does_not_begin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    config = replace(RUN, out=str(tmp_path / "run"), imagination=replace(ACT, num_envs=7))
    with pytest.raises(ConfigError, match=r"^imagination\.num_envs is 7, and there are 2 ranks"):
        train(config, Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (replace(RUN, world_model=replace(FIT, batch_size=3)), "world_model.batch_size is 3"),
        (
            replace(RUN, world_model=replace(FIT, reward_end_batch_size=3)),
            "world_model.reward_end_batch_size is 3",
        ),
        (
            replace(RUN, world_model=replace(FIT, single_batch_size=3)),
            "world_model.single_batch_size is 3",
        ),
        (replace(RUN, imagination=replace(ACT, num_envs=3)), "imagination.num_envs is 3"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(config: TrainConfig, name: str) -> None:
    check_shares(config, ALONE)
    with pytest.raises(ConfigError, match=f"^{name}, and there are 2 ranks; make it a multiple"):
        check_shares(config, Ranks(1, 2))


def test_an_agent_that_learns_alone_is_refused_by_several_ranks() -> None:
    config = replace(RUN, agent="ppo", frame_stack=2)
    check_shares(config, ALONE)
    with pytest.raises(ConfigError, match="agent is 'ppo', which learns alone"):
        check_shares(config, Ranks(0, 2))


def test_real_games_are_refused_by_several_ranks() -> None:
    config = replace(RUN, real=True)
    check_shares(config, ALONE)
    with pytest.raises(
        ConfigError, match=r"^real games are learned from by one rank alone, and .* 2"
    ):
        check_shares(config, Ranks(0, 2))


def test_a_process_is_alone_if_nothing_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.of_environment() == ALONE
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"^WORLD_SIZE is 4, .* start the run with torchrun"):
        Ranks.of_environment()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Ranks.of_environment() == Ranks(rank=3, count=4, local=1)


def test_each_rank_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    ranks = Ranks(rank=1, count=2, local=1)
    assert ranks.device("cpu") == CPU
    assert ranks.device("auto") == ranks.device("cuda") == torch.device("cuda:1")
    assert ALONE.device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"^device is 'cuda:0'; several ranks compute on"):
        ranks.device("cuda:0")
    with pytest.raises(InputError, match=r"^device 'cuda:2' is not there"):
        Ranks(rank=2, count=3, local=2).device("auto")
