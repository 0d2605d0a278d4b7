"""What a run tells of how it goes: curves, tests in the real game, and its results."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from dreamenv.config import Config
from dreamenv.environment import EnvironmentSpec
from dreamenv.evaluation.real_scores import PlayConfig, RealScores, play_games, scores_table
from dreamenv.files import atomic_file
from dreamenv.progress import say
from dreamenv.real.policy import Policy, RandomPolicy
from dreamenv.training.experience import FinishedGame
from dreamenv.training.loop_agent import Figures, LoopAgent
from dreamenv.training.loop_config import ScheduleConfig, TrainConfig
from dreamenv.training.stopping import Stopped, StopRequest

_FIGURES_SHOWN = 5
_GAMES_AT_ONCE = 10


@dataclass(frozen=True)
class TrainResults(Config):
    """What came of a run.

    Attributes:
        dreamenv: The version.
        settings: Of the run.
        environment: The real game.
        real_steps: Real steps that were learned from.
        random: The scores of random play.
        agent: Those of the agent as it is at the end.
    """

    dreamenv: str
    settings: TrainConfig
    environment: EnvironmentSpec
    real_steps: int
    random: RealScores
    agent: RealScores


class LoopReport:
    """The curves of a run, its tests, and what it leaves at its end.

    Args:
        config: Of the run.
        environment: The real game.
        console: Where the results are shown.
        stop: Asked at every step of a test.
        if_stopped: Gives what to say where it was.
        steps_done: Training steps before it; points of curves after them are replaced.
    """

    def __init__(
        self,
        config: TrainConfig,
        environment: EnvironmentSpec,
        console: Console,
        stop: StopRequest,
        if_stopped: Callable[[], str],
        steps_done: int,
    ) -> None:
        self._config, self._environment, self._console = config, environment, console
        self._stop, self._if_stopped = stop, if_stopped
        self._run = config.run_folder
        self._writer = SummaryWriter(str(self._run.path), purge_step=steps_done + 1)

    def close(self) -> None:
        """Closes the curves."""
        self._writer.close()

    def log(self, step: int, name: str, recent: Sequence[Figures]) -> str:
        """Adds the means of recent steps to the curves, and returns the first of them in words.

        Args:
            step: The training step.
            name: Of what they are figures.
            recent: The figures of each of those steps.
        """
        parts = dict.fromkeys(part for each in recent for part in each)
        values = {part: [each[part] for each in recent if part in each] for part in parts}
        stacked = torch.stack([torch.stack(each).nanmean() for each in values.values()])
        means = dict(zip(parts, stacked.tolist(), strict=True))
        for part, mean in means.items():
            self._writer.add_scalar(f"{name}/{part}", mean, step)
        shown = list(means.items())[:_FIGURES_SHOWN]
        return ", ".join(f"{part} {mean:.3f}" for part, mean in shown)

    def log_games(self, step: int, real_steps: int, finished: Sequence[FinishedGame]) -> None:
        """Adds real steps, and the mean score of the games that they finished, to the curves.

        Args:
            step: The training step.
            real_steps: So far.
            finished: The games.
        """
        self._writer.add_scalar("real/steps", real_steps, step)
        if not finished:
            return
        scores = [game.score for game in finished]
        self._writer.add_scalar("real/score", sum(scores) / len(scores), step)

    def test(self, agent: LoopAgent, step: int, name: str, seed: int) -> float:
        """Has the agent play a test, and leaves its scores.

        Args:
            agent: Who plays, as it is.
            step: The training step.
            name: Of the file for the scores.
            seed: Of the games, and of the agent's chance.

        Returns:
            The mean score.

        Raises:
            Stopped: It was asked to stop.
        """
        scores = self._play("agent", agent.new_player(seed), self._schedule.test_episodes, seed)
        self._writer.add_scalar("test/score", scores.score.mean, step)
        self._run.evaluation.mkdir(exist_ok=True)
        _write(self._run.evaluation / f"{name}.json", scores)
        return scores.score.mean

    def finish(
        self, agent: LoopAgent, real_steps: int, *, left: str, next_step: str
    ) -> TrainResults:
        """Plays the games at the end, and writes and prints what came of it all.

        Args:
            agent: Who has learned.
            real_steps: That were learned from.
            left: What is left where, in words.
            next_step: What to do with it.

        Raises:
            Stopped: It was asked to stop.
        """
        episodes, seed = self._schedule.final_episodes, self._config.seed
        chance = RandomPolicy(self._environment.num_actions, seed)
        results = TrainResults(
            dreamenv=version("dreamenv"),
            settings=self._config,
            environment=self._environment,
            real_steps=real_steps,
            random=self._play("random", chance, episodes, seed),
            agent=self._play("agent", agent.new_player(seed), episodes, seed),
        )
        _write(self._run.results, results)
        players = (results.random, results.agent)
        self._console.print(scores_table(f"{self._environment.id}, raw scores", players))
        say(self._console, f"real steps: {results.real_steps:,}")
        say(self._console, left)
        say(self._console, f"curves: tensorboard --logdir {self._run.path}")
        say(self._console, f"next: {next_step}")
        return results

    @property
    def _schedule(self) -> ScheduleConfig:
        return self._config.schedule

    def _play(self, player: str, policy: Policy, episodes: int, seed: int) -> RealScores:
        def on_step(_: int) -> None:
            if self._stop():
                raise Stopped(self._if_stopped())

        games = PlayConfig(episodes, num_envs=_GAMES_AT_ONCE, seed=seed)
        return play_games(self._environment, policy, games, player=player, on_step=on_step)


def _write(file: Path, content: Config) -> None:
    with atomic_file(file) as beside:
        beside.write_text(json.dumps(content.to_dict(), indent=2) + "\n")
