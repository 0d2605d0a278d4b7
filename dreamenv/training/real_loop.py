"""Learning in the real game alone: what DIAMOND's loop is compared with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dreamenv.config import Config
from dreamenv.data.disk import naming_disk_errors
from dreamenv.devices import resolve_device
from dreamenv.environment import EnvironmentSpec
from dreamenv.files import atomic_folder_update
from dreamenv.models.actor_critic_file import ActorCriticDescription, write_description
from dreamenv.progress import ProgressBar, say
from dreamenv.training.checkpoint import load_checkpoint, save_checkpoint
from dreamenv.training.loop_agents import make_loop_agent
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.loop_report import LoopReport, TrainResults
from dreamenv.training.real_games import RealGames
from dreamenv.training.stopping import Stopped, StopRequest


@dataclass(frozen=True)
class RealProgress(Config):
    """Where a run in the real game stands.

    Attributes:
        tested_at: Real steps before the last test.
        score: The mean score of the last test.
        best: The mean score of the best test.
    """

    tested_at: int = 0
    score: float | None = None
    best: float | None = None


class RealLoop:
    """One run of an agent that learns in real games, as long as the loop would play them.

    Args:
        config: Of the run.
        environment: The real game.
        console: Where progress is shown.
        stop: Asked after every training step, and in tests.
        to_go_on: What is to be done where it was stopped, in words.
    """

    def __init__(
        self,
        config: TrainConfig,
        environment: EnvironmentSpec,
        console: Console,
        stop: StopRequest,
        to_go_on: str,
    ) -> None:
        self._config, self._environment = config, environment
        self._console, self._stop, self._to_go_on = console, stop, to_go_on
        self._run = config.run_folder
        self._device = resolve_device(config.device)
        self._games = RealGames(environment, config.imagination.num_envs, config.seed)
        torch.manual_seed(config.seed)
        self._agent = make_loop_agent(config, environment, self._device)
        self._agent.enter_games(self._games, config.real_training_steps)
        self._progress = RealProgress()
        self._restore()
        self._report = LoopReport(
            config, environment, console, stop, self._how_to_go_on, self._agent.step_count
        )

    def close(self) -> None:
        """Closes the real games and the curves."""
        self._games.close()
        self._report.close()

    def go(self) -> None:
        """Learns and tests, to the end of the last test."""
        steps = self._config.real_training_steps
        total = steps * self._config.real_steps_a_training_step
        with ProgressBar(self._console, "real steps", total, self._games.steps) as bar:
            while not self._is_done:
                if self._test_is_due:
                    self._test()
                else:
                    self._train(bar)

    def finish(self) -> TrainResults:
        """Plays the games at the end, and writes and prints what came of it all."""
        last, best = (self._agent.saved_in(each) for each in (self._run.agent, self._run.best))
        return self._report.finish(
            self._agent,
            self._games.steps,
            left=f"agent: {last}, {best}",
            next_step=f"dreamenv evaluate-agent {best} {self._config.real_game_options}",
        )

    @property
    def _has_learned(self) -> bool:
        return self._agent.step_count >= self._config.real_training_steps

    @property
    def _test_is_due(self) -> bool:
        steps, tested_at = self._games.steps, self._progress.tested_at
        if self._has_learned:
            return steps > tested_at
        interval = self._config.schedule.test_every * self._config.schedule.epoch_steps
        return steps // interval > tested_at // interval

    @property
    def _is_done(self) -> bool:
        return self._has_learned and not self._test_is_due

    def _train(self, bar: ProgressBar) -> None:
        before = self._games.steps
        figures = self._agent.step()
        done, steps = self._agent.step_count, self._games.steps
        if steps > before:
            # Rollouts of an algorithm that are longer than a training step leave some without any.
            shown = self._report.log(done, "agent", [figures])
            self._report.log_games(done, steps, self._games.take_finished())
            bar.update(steps, f"{self._where()}, {shown}")
        self._leave_if_asked()
        if done % self._config.checkpoint_every == 0 or self._test_is_due:
            self._save_checkpoint()

    def _test(self) -> None:
        steps, seed = self._games.steps, self._config.seed + self._agent.step_count
        mean = self._report.test(self._agent, self._agent.step_count, f"steps-{steps:09d}", seed)
        best = self._progress.best
        self._save_agent(self._run.agent)
        if best is None or mean > best:
            self._save_agent(self._run.best)
            best = mean
        self._progress = RealProgress(tested_at=steps, score=mean, best=best)
        say(self._console, f"{steps:,} real steps: score {mean:.2f}, best {best:.2f}")
        self._save_checkpoint()

    def _where(self) -> str:
        score = "" if self._progress.score is None else f", score {self._progress.score:.2f}"
        return f"step {self._agent.step_count} of {self._config.real_training_steps}{score}"

    def _leave_if_asked(self) -> None:
        if self._stop():
            self._save_checkpoint()
            raise Stopped(self._how_to_go_on())

    def _how_to_go_on(self) -> str:
        return f"stopped after {self._games.steps:,} real steps: {self._to_go_on}"

    def _save_agent(self, folder: Path) -> None:
        architecture, environment = self._agent.architecture, self._environment
        with naming_disk_errors(folder), atomic_folder_update(folder) as staging:
            self._agent.save(staging)
            if architecture is not None:
                description = ActorCriticDescription(
                    architecture, environment.obs_shape, environment.num_actions
                )
                write_description(description, staging)

    def _save_checkpoint(self) -> None:
        state: dict[str, Any] = {
            "progress": self._progress.to_dict(),
            "games": self._games.state_dict(),
            "agent": self._agent.state_dict(),
        }
        save_checkpoint(self._run.checkpoint, state)

    def _restore(self) -> None:
        state = load_checkpoint(self._run.checkpoint)
        if state is None:
            return
        self._progress = RealProgress.from_dict(state["progress"], str(self._run.checkpoint))
        self._games.load_state_dict(state["games"])
        self._agent.load_state_dict(state["agent"])
