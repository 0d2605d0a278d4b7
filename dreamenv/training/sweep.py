"""Runs as tasks of Ray: several at once, on one machine or on many."""

import importlib
import logging
import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from tyro.conf import arg

from dreamenv.config import Config
from dreamenv.data.disk import naming_disk_errors
from dreamenv.errors import ConfigError, DreamenvError
from dreamenv.progress import say
from dreamenv.training.completion import complete, results_file
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.loop_report import TrainResults
from dreamenv.training.stopping import Stopped, stop_on_signal

LOG_FILE = "log.txt"

_LOCAL = "local"
_SHARED = "it must be on a disk that all machines share, under the same path"
_SECONDS_A_LOOK = 1.0
_SECONDS_TO_CONNECT = 10.0
_SECONDS_TO_APPEAR = 60.0  # for so long network disks may hide what others have written
_LONGEST_REASON = 200
_STORE_BYTES = 100 * 2**20  # what goes through Ray are settings and scores; it asks for 75 MB


@dataclass(frozen=True)
class RayConfig(Config):
    """Whether runs are tasks of a Ray cluster, many at once, and what each of them gets.

    All machines must have this version of dreamenv, and must see the folder of the runs under the
    same path, on a disk that they share.

    Attributes:
        address: The cluster: HOST:PORT, `auto` for the one that this machine belongs to, or
            `local` for this machine alone. Left out, there is one run after the other, and no Ray.
        cpus: CPUs that are kept for a run.
        gpus: GPUs that are kept for a run, such as 0.5 where two share one; by default 1 if the
            cluster has any and `device` is not the CPU.
        retries: How often a run that failed, or whose machine was lost, is gone on with.
    """

    address: Annotated[str | None, arg(name="", metavar="ADDRESS")] = None
    cpus: float = 1.0
    gpus: float | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            if self.address is None and getattr(self, field.name) != field.default:
                raise ConfigError(f"ray.{field.name} is for a Ray cluster; add --ray ADDRESS")
        if self.cpus <= 0:
            raise ConfigError(f"ray.cpus is {self.cpus}; it must be above 0")
        if self.gpus is not None and (self.gpus < 0 or (self.gpus > 1 and self.gpus % 1)):
            raise ConfigError(f"ray.gpus is {self.gpus}; it must be a share of 1, or whole")
        if self.retries < 0:
            raise ConfigError(f"ray.retries is {self.retries}; it must be at least 0")


@dataclass(frozen=True)
class FailedRun:
    """A run that failed as often as it was tried.

    Attributes:
        run: Which one.
        reason: Why it failed the last time.
    """

    run: TrainConfig
    reason: str


def sweep(
    runs: Sequence[TrainConfig], config: RayConfig, console: Console, command: str = ""
) -> tuple[FailedRun, ...]:
    """Brings runs to their ends as tasks of Ray, one task a run.

    A run that was begun is gone on with, whichever machine it was on: its folder has what it
    needs, and must be on a disk that all machines share. What a run prints is in `log.txt` there.
    A process that is connected to Ray already stays with that cluster.

    Args:
        runs: What learns to play what, and how; each in a folder of its own.
        config: Which cluster, and what of it each run gets.
        console: Where it is shown that runs finish or fail.
        command: The command line, for the model cards.

    Returns:
        Those that failed in the end.

    Raises:
        Stopped: SIGINT or SIGTERM came; the runs have kept what they need to go on.
        DreamenvError: Ray is not installed or not there, or the disk is not shared.
    """
    if not runs:
        return ()
    with _connected(config) as ray:
        return _Sweep(ray, config, console, command, len(runs)).go(runs)


def make_run(run: TrainConfig, base: Path, command: str) -> TrainResults:
    """Brings one run to its end, on the machine that Ray has chosen for it.

    Args:
        run: What learns to play what, and how.
        base: What a relative folder of the run is relative to.
        command: The command line, for the model cards.

    Raises:
        Stopped: It was cancelled; what is needed to go on was kept.
        DreamenvError: It cannot be done; what was collected is kept.
    """
    folder = base / run.run_folder.path
    if not _appears(folder.parent):
        raise DreamenvError(f"{socket.gethostname()} does not see {folder.parent}; {_SHARED}")
    if not run.run_folder.path.is_absolute():
        # The folder is a setting of the run; another spelling would be that of another run.
        os.chdir(base)
    with naming_disk_errors(folder):
        folder.mkdir(exist_ok=True)
        with (folder / LOG_FILE).open("a", buffering=1) as log:
            console = Console(file=log, width=120)
            say(console, f"on {socket.gethostname()}, process {os.getpid()}:")
            try:
                return complete(run, console, command)
            except DreamenvError as error:
                say(console, str(error))
                raise
            except Exception:
                traceback.print_exc(file=log)
                raise


@dataclass(frozen=True)
class _Attempt:
    run: TrainConfig
    number: int


class _Sweep:
    """The tasks of runs: those under way, and what came of the others."""

    def __init__(
        self, ray: Any, config: RayConfig, console: Console, command: str, total: int
    ) -> None:
        self._ray, self._config, self._console = ray, config, console
        self._command, self._total = command, total
        self._under_way: dict[Any, _Attempt] = {}
        self._finished = 0
        self._failed: list[FailedRun] = []

    def go(self, runs: Sequence[TrainConfig]) -> tuple[FailedRun, ...]:
        """Makes the runs, each as often as it takes and is allowed."""
        with stop_on_signal() as stop:
            self._look_for_room(max(self._gpus(run) for run in runs))
            try:
                for run in runs:
                    self._start(_Attempt(run, 1))
                while self._under_way:
                    self._take_what_is_done()
                    if stop():
                        raise Stopped(
                            f"stopped with {self._finished} of {self._total} runs finished: run "
                            f"the same command again to go on"
                        )
            finally:
                self._cancel()
        return tuple(self._failed)

    def _look_for_room(self, gpus: float) -> None:
        """Looks whether any machine can take a run: Ray would wait for ever, and say nothing."""
        cpus = self._config.cpus
        self._say(f"runs on Ray: {self._total}, each with CPUs: {cpus:g}, GPUs: {gpus:g}")
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(one.get("CPU", 0) >= cpus and one.get("GPU", 0) >= gpus for one in machines):
            return
        if self._config.address == _LOCAL:
            raise ConfigError("this machine has less for a run; lower --ray.cpus or --ray.gpus")
        self._say("no machine of the cluster has as much now; waiting for one that has")

    def _gpus(self, run: TrainConfig) -> float:
        if self._config.gpus is not None:
            return self._config.gpus
        return float(run.device != "cpu" and self._ray.cluster_resources().get("GPU", 0) > 0)

    def _start(self, attempt: _Attempt) -> None:
        run = attempt.run
        with naming_disk_errors(run.run_folder.path):
            run.run_folder.path.parent.mkdir(parents=True, exist_ok=True)
        # Ray's own retries are silent.
        task = self._ray.remote(make_run).options(
            name=_name(run), num_cpus=self._config.cpus, num_gpus=self._gpus(run), max_retries=0
        )
        self._under_way[task.remote(run, Path.cwd(), self._command)] = attempt

    def _take_what_is_done(self) -> None:
        done, _ = self._ray.wait(list(self._under_way), timeout=_SECONDS_A_LOOK)
        for task in done:
            attempt = self._under_way.pop(task)
            try:
                results: TrainResults = self._ray.get(task)
            except self._ray.exceptions.RayError as error:
                self._take_failure(attempt, _reason(error))
            else:
                self._take_results(attempt.run, results)

    def _take_results(self, run: TrainConfig, results: TrainResults) -> None:
        file = results_file(run)
        if not _appears(file):
            raise DreamenvError(f"{_name(run)} is finished, but {file} is not here; {_SHARED}")
        self._finished += 1
        score = f"score {results.agent.score.mean:.2f}"
        self._say(f"{_name(run)}: finished, {score} ({self._finished} of {self._total})")

    def _take_failure(self, attempt: _Attempt, reason: str) -> None:
        run, attempts = attempt.run, 1 + self._config.retries
        self._say(f"{_name(run)}: failed, attempt {attempt.number} of {attempts}: {reason}")
        if attempt.number < attempts:
            self._start(_Attempt(run, attempt.number + 1))
        else:
            self._failed.append(FailedRun(run, reason))

    def _cancel(self) -> None:
        """Stops what is under way, and waits until it has kept what it needs to go on."""
        if not self._under_way:
            return
        self._say("stopping: the runs keep what they have")
        for task in self._under_way:
            self._ray.cancel(task)
        self._ray.wait(list(self._under_way), num_returns=len(self._under_way))

    def _say(self, line: str) -> None:
        say(self._console, line)


def failed_error(failed: Sequence[FailedRun], config: RayConfig) -> DreamenvError:
    """Returns the error that names the runs that failed.

    Args:
        failed: At least one.
        config: How often they were tried.
    """
    named = "; ".join(f"{_name(one.run)} ({one.reason})" for one in failed)
    return DreamenvError(
        f"failed after all retries ({config.retries}): {named}; see {LOG_FILE} in "
        f"{failed[0].run.run_folder.path}, and run the same command again: what is finished is "
        f"kept, and the others go on"
    )


@contextmanager
def _connected(config: RayConfig) -> Iterator[Any]:
    """Yields Ray's module, connected to the cluster."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        _connect(ray, str(config.address))
        yield ray
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)  # Ray leaves one of its own, which exits.


def _import_ray() -> Any:
    """Imports Ray, which is of an optional extra.

    Raises:
        DreamenvError: It is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise DreamenvError(
            f"Ray cannot be used ({error}); install it with pip install 'dreamenv[ray]', or leave "
            f"out --ray"
        ) from error


def _connect(ray: Any, address: str) -> None:
    settings: dict[str, Any] = {}
    if address == _LOCAL:
        # Otherwise what was started for this one command would tell Ray's makers of itself.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        _look_for_server(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (OSError, ValueError, RuntimeError) as error:
        raise DreamenvError(
            f"there is no Ray at {address!r} ({_first_line(error)}); start one with ray start "
            f"--head, or give --ray local for this machine alone"
        ) from error


def _look_for_server(address: str) -> None:
    """Raises an OSError where nobody listens: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host, int(port)), _SECONDS_TO_CONNECT).close()


def _appears(path: Path) -> bool:
    deadline = time.monotonic() + _SECONDS_TO_APPEAR
    while not path.exists():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_SECONDS_A_LOOK)
    return True


def _name(run: TrainConfig) -> str:
    return f"{run.env}, seed {run.seed}"


def _reason(error: Exception) -> str:
    """Says in a line what made a task fail: an error of the run's, or the loss of its machine."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, DreamenvError):
        return _first_line(cause)
    return f"{type(cause).__name__}: {_first_line(cause)}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_LONGEST_REASON]
