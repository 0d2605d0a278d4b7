import io
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from dreamenv.errors import ConfigError, DreamenvError
from dreamenv.training import benchmark, sweep
from dreamenv.training.benchmark import BenchmarkConfig, benchmark_atari100k
from dreamenv.training.completion import read_results, results_file
from dreamenv.training.loop_config import ScheduleConfig, TrainConfig
from dreamenv.training.loop_presets import loop_preset
from dreamenv.training.stopping import Stopped
from dreamenv.training.sweep import LOG_FILE, FailedRun, RayConfig, make_run

LOCAL = RayConfig("local", retries=1)
SCHEDULE = ScheduleConfig(
    first_steps=40,
    first_steps_limit=40,
    first_rewards=0,
    epoch_steps=20,
    steps=60,
    epochs_after=0,
    world_model_steps=2,
    agent_steps=2,
    test_episodes=1,
    final_episodes=1,
)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A Ray of this machine's, with room for two runs."""
    before = signal.getsignal(signal.SIGTERM)
    ray.init(
        "local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)


def little(_: str, env: str) -> TrainConfig:
    """Stands for a preset: learns for seconds."""
    tiny = loop_preset("tiny", env)
    return replace(
        tiny,
        size=(32,),
        contexts=4,
        schedule=SCHEDULE,
        world_model=replace(tiny.world_model, steps=4, batch_size=2, reward_end_batch_size=2),
        imagination=replace(tiny.imagination, steps=2, num_envs=2, rollout_length=4),
        denoiser=replace(tiny.denoiser, cond_channels=16, channels=(8, 8, 8)),
        reward_end=replace(tiny.reward_end, cond_channels=8, channels=(8, 8, 8), lstm_dim=16),
    )


def run_at(folder: Path, seed: int = 0) -> TrainConfig:
    run = little("", "ALE/Breakout-v5")
    return replace(run, out=str(folder), seed=seed, device="cpu")


class Screen(io.StringIO):
    """What is printed; something may happen once a text is."""

    def __init__(self, text: str = "", action: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._text, self._action = text, action

    def write(self, printed: str) -> int:
        if self._text and self._text in printed:
            self._action()
        return super().write(printed)


def do(
    *runs: TrainConfig, config: RayConfig = LOCAL, screen: Screen | None = None
) -> tuple[tuple[FailedRun, ...], str]:
    screen = screen or Screen()
    return sweep.sweep(runs, config, Console(file=screen, width=200)), screen.getvalue()


def once_begun(run: TrainConfig, action: Callable[[int], object]) -> threading.Thread:
    """Starts a thread that acts on the run's process once there is a checkpoint to go on from."""

    def wait() -> None:
        deadline = time.monotonic() + 100
        while not run.run_folder.checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        action(int(re.findall(r"process (\d+)", log(run))[-1]))

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def log(run: TrainConfig) -> str:
    return (run.run_folder.path / LOG_FILE).read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run that nothing interrupted."""
    run = run_at(tmp_path_factory.mktemp("whole") / "run")
    failed, printed = do(run)
    assert failed == ()
    assert "runs on Ray: 1, each with CPUs: 1, GPUs: 0\n" in printed
    assert "ALE/Breakout-v5, seed 0: finished, score " in printed
    return run


def assert_same_results(one: TrainConfig, other: TrainConfig) -> None:
    assert replace(read_results(one), settings=other) == read_results(other)


def test_failed_runs_are_tried_again_and_the_finished_ones_are_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # workers stand elsewhere
    monkeypatch.setattr(benchmark, "loop_preset", little)
    config = BenchmarkConfig("Breakout", seeds=3, out="runs", device="cpu", ray=LOCAL)
    _, once, always = (run.run_folder.path for run in config.runs)
    for folder in (once, always):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.write_text("in the way")
    screen = Screen("seed 1: failed, attempt 1 of 2", once.unlink)
    with pytest.raises(DreamenvError) as error:
        benchmark_atari100k(config, Console(file=screen, width=200))
    assert "failed after all retries (1): ALE/Breakout-v5, seed 2 (" in str(error.value)
    assert "File exists" in str(error.value)
    assert "seed 1" not in str(error.value)
    printed = screen.getvalue()
    assert "seed 2: failed, attempt 2 of 2: " in printed
    assert "2 of 3 runs: runs" in printed
    assert len(re.findall(r"seed [01]: finished, score \S+ \([12] of 3\)", printed)) == 2
    assert '"out": "runs/Breakout/seed-0"' in config.runs[0].run_folder.config.read_text()

    written = [results_file(run).stat().st_mtime_ns for run in config.runs[:2]]
    always.unlink()
    screen = Screen()
    result = benchmark_atari100k(config, Console(file=screen, width=200))
    assert "3 of 3 runs: runs" in screen.getvalue()
    assert re.findall(r"seed \d: \w+", screen.getvalue()) == ["seed 2: finished"]
    assert [results_file(run).stat().st_mtime_ns for run in config.runs[:2]] == written
    scores = [read_results(run).agent.score.mean for run in config.runs]
    assert result.games[0].score == pytest.approx(sum(scores) / 3)


def test_without_a_finished_run_the_failed_ones_are_named(tmp_path: Path) -> None:
    config = BenchmarkConfig("Pong", seeds=1, out=str(tmp_path), ray=replace(LOCAL, retries=0))
    config.runs[0].run_folder.path.parent.mkdir()
    config.runs[0].run_folder.path.write_text("in the way")
    with pytest.raises(
        DreamenvError, match=r"failed after all retries \(0\): ALE/Pong-v5, seed 0 \("
    ):
        benchmark_atari100k(config, Console(file=Screen()))


def test_a_run_whose_process_is_lost_goes_on_to_the_same_numbers(
    whole: TrainConfig, tmp_path: Path
) -> None:
    run = run_at(tmp_path / "run")
    killer = once_begun(run, lambda process: os.kill(process, signal.SIGKILL))
    failed, printed = do(run)
    killer.join()
    assert failed == ()
    assert "failed, attempt 1 of 2: WorkerCrashedError: " in printed
    assert len(re.findall(r"^on .*, process \d+:$", log(run), re.MULTILINE)) == 2
    assert_same_results(run, whole)


def test_a_signal_stops_the_runs_and_they_go_on(tmp_path: Path) -> None:
    begun, waiting = run_at(tmp_path / "begun"), run_at(tmp_path / "waiting", seed=1)
    # Long enough to be stopped on a fast machine as well.
    begun = replace(begun, world_model=replace(begun.world_model, steps=250))
    asker = once_begun(begun, lambda _: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Stopped, match="with 0 of 2 runs finished: run the same command again"):
        do(begun, waiting, config=replace(LOCAL, cpus=2.0))
    asker.join()
    assert "\nstopped in epoch 1: run the same command to go on" in log(begun)
    assert not waiting.run_folder.path.exists()
    assert do(begun)[0] == ()
    assert read_results(begun).real_steps == begun.schedule.steps
    assert len(re.findall(r"^on .*, process \d+:$", log(begun), re.MULTILINE)) == 2


def test_results_that_are_not_seen_here_are_an_error(
    whole: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_SECONDS_TO_APPEAR", 0)
    monkeypatch.setattr(sweep, "results_file", lambda _: tmp_path / "results.json")
    with pytest.raises(
        DreamenvError, match=r"is finished, but .*results\.json is not here; .*disk"
    ):
        do(whole)


def test_a_machine_that_does_not_see_the_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_SECONDS_TO_APPEAR", 0)
    with pytest.raises(DreamenvError, match=r"does not see .*elsewhere/runs; it must be on a disk"):
        make_run(run_at(Path("runs/0")), tmp_path / "elsewhere", "")


def test_what_fits_on_no_machine_is_refused_here_and_waited_for_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lower --ray\.cpus or --ray\.gpus"):
        do(run_at(tmp_path), config=replace(LOCAL, gpus=1.0))
    screen = Screen("waiting for one", lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Stopped, match="with 0 of 1 runs finished"):
        do(run_at(tmp_path), config=RayConfig("auto", cpus=64.0), screen=screen)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DreamenvError, match=r"pip install 'dreamenv\[ray\]', or leave out --ray"):
        do(run_at(tmp_path))


def test_where_nothing_is_left_ray_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert do() == ((), "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retries": 5}, r"ray\.retries is for a Ray cluster; add --ray ADDRESS"),
        ({"gpus": 0.0}, r"ray\.gpus is for a Ray cluster"),
        ({"address": "auto", "cpus": 0}, r"ray\.cpus is 0; it must be above 0"),
        ({"address": "auto", "gpus": 1.5}, r"ray\.gpus is 1\.5; it must be a share of 1, or whole"),
        ({"address": "auto", "gpus": -1}, r"ray\.gpus is -1"),
        ({"address": "auto", "retries": -1}, r"ray\.retries is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RayConfig(**settings)
