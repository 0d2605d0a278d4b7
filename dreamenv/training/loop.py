"""DIAMOND's loop: collect, refresh the world model, train the agent in its dreams."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor

from dreamenv.config import Config
from dreamenv.data import Replay
from dreamenv.data.disk import naming_disk_errors
from dreamenv.environment import EnvironmentSpec
from dreamenv.models.skeleton import skeleton
from dreamenv.models.world_model import Origin, WorldModel
from dreamenv.progress import ProgressBar, say
from dreamenv.real import describe
from dreamenv.training.batches import check_dreamt_length
from dreamenv.training.checkpoint import load_checkpoint, save_checkpoint
from dreamenv.training.experience import Experience
from dreamenv.training.following import Lead, LedLearning, check_shares, follow, leading
from dreamenv.training.learning import Learning
from dreamenv.training.loop_agent import Figures
from dreamenv.training.loop_agents import make_loop_agent
from dreamenv.training.loop_config import TrainConfig, architecture
from dreamenv.training.loop_report import LoopReport, TrainResults
from dreamenv.training.model_card import CARD_FILE, model_card
from dreamenv.training.ranks import Ranks
from dreamenv.training.real_loop import RealLoop
from dreamenv.training.stopping import Stopped, StopRequest, stop_on_signal
from dreamenv.training.world_model import check_converges

Phase = Literal["collect", "world_model", "agent", "test"]
_NEXT: dict[Phase, Phase] = {"collect": "world_model", "world_model": "agent", "agent": "test"}
_STEPS_A_LOG = 10


@dataclass(frozen=True)
class Progress(Config):
    """Where the loop stands.

    Attributes:
        epoch: The first is 1.
        phase: What is done in it now.
        done: Training steps of the phase that are done.
        collected_first: Real steps of the first epoch; 0 until they are collected.
        score: The mean score of the last test.
        best: The mean score of the best test.
    """

    epoch: int = 1
    phase: Phase = "collect"
    done: int = 0
    collected_first: int = 0
    score: float | None = None
    best: float | None = None

    def after_phase(self) -> "Progress":
        """Returns where the loop stands when the phase is done."""
        if self.phase == "test":
            return replace(self, epoch=self.epoch + 1, phase="collect", done=0)
        return replace(self, phase=_NEXT[self.phase], done=0)


def train(
    config: TrainConfig,
    console: Console,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    to_go_on: str = "add --resume to go on",
) -> TrainResults:
    """Runs Algorithm 1 of Alonso et al. (2024), or goes on with it.

    Killed at any moment, it goes on with `resume` from the last checkpoint; on a CPU, to the same
    numbers that it would have had. Started by torchrun, its ranks learn together from the batches
    of one, each on a device of its own; the first one plays, tests, prints and writes.

    Args:
        config: Who learns to play what, and how.
        console: Where progress is shown, by the first rank.
        resume: Go on with the run that was begun in the folder.
        overwrite: Replace a run in the folder.
        command: The command line, for the model cards.
        to_go_on: What is to be done where it was stopped, in words.

    Raises:
        Stopped: SIGINT or SIGTERM came; what is needed to go on was kept.
        DreamenvError: It cannot be done; what was collected is kept.
    """
    ranks = Ranks.of_environment()
    check_shares(config, ranks)
    ranks.join(ranks.device(config.device))
    if not ranks.is_first:
        results = follow(ranks, config)
        assert isinstance(results, TrainResults)
        return results
    run = config.run_folder
    with leading(ranks) as lead, stop_on_signal() as stop, naming_disk_errors(run.path):
        run.check(config, resume=resume, overwrite=overwrite)
        environment = describe(
            config.env, config.height_width, sticky_actions=config.sticky_actions
        )
        if resume:
            run.go_on()
        else:
            _check_networks(config, environment)
            run.begin(config)
        loop: RealLoop | _Loop
        if config.real:
            loop = RealLoop(config, environment, console, stop, to_go_on)
        else:
            loop = _Loop(config, environment, console, stop, command, to_go_on, lead)
        try:
            loop.go()
            results = loop.finish()
        finally:
            loop.close()
        lead.leave(results)
        return results


def _check_networks(config: TrainConfig, environment: EnvironmentSpec) -> None:
    """Makes what a run begins with, so that what cannot be made removes no run before it."""
    make_loop_agent(config, environment, torch.device("cpu"))
    if not config.real:
        check_dreamt_length(config.world_model, config.denoiser.context_length)
        with skeleton():
            WorldModel(architecture(config, environment))


class _Loop:
    """One run: its networks, its real game, and how far it has come."""

    def __init__(
        self,
        config: TrainConfig,
        environment: EnvironmentSpec,
        console: Console,
        stop: StopRequest,
        command: str,
        to_go_on: str,
        lead: Lead,
    ) -> None:
        self._config, self._environment = config, environment
        self._console, self._stop, self._command = console, stop, command
        self._to_go_on = to_go_on
        self._lead = lead
        self._run = config.run_folder
        self._device = lead.ranks.device(config.device)
        self._replay = Replay.open_or_create(self._run.replay, environment, held_out_every=None)
        state = load_checkpoint(self._run.checkpoint)
        if state is None:
            self._replay.truncate(0)  # what was collected for a checkpoint that is gone
        self._experience = Experience(self._replay, seed=config.seed)
        torch.manual_seed(config.seed)
        self._world_model = WorldModel(architecture(config, environment)).to(self._device)
        self._agent = make_loop_agent(config, environment, self._device)
        self._progress = Progress()
        self._learning: Learning | None = None
        self._last_loss: Tensor | None = None
        if state is not None:
            self._restore(state)
        self._report = LoopReport(
            config, environment, console, stop, self._how_to_go_on, self._training_steps
        )

    def close(self) -> None:
        """Closes the real game and the curves."""
        self._experience.close()
        self._report.close()

    def go(self) -> None:
        """Goes through the epochs, to the end of the last one's test."""
        if self._learning is None:
            self._collect_first()
        total = self._learn.fit_steps + self._learn.agent_steps
        with ProgressBar(self._console, "train", total, self._training_steps) as bar:
            while self._progress.epoch <= self._epochs:
                if self._progress.phase == "collect":
                    self._collect()
                elif self._progress.phase == "world_model":
                    self._fit(bar)
                elif self._progress.phase == "agent":
                    self._train_agent(bar)
                else:
                    self._test()
                self._end_phase()

    def finish(self) -> TrainResults:
        """Plays the games at the end, and writes and prints what came of it all."""
        return self._report.finish(
            self._agent,
            self._experience.steps,
            left=f"world model and agent: {self._run.world_model}, {self._run.best}",
            next_step=_opened_by(self._run.best),
        )

    @property
    def _learn(self) -> Learning:
        assert self._learning is not None
        return self._learning

    @property
    def _epochs(self) -> int:
        return self._config.schedule.epochs(self._progress.collected_first)

    @property
    def _training_steps(self) -> int:
        return 0 if self._learning is None else self._learning.steps_done

    def _collect_first(self) -> None:
        """Collects what the first epoch learns from, and makes what learns."""
        schedule, experience = self._config.schedule, self._experience
        if self._progress == Progress():
            self._save_checkpoint()  # one to go on from if it is killed before the next
        with ProgressBar(self._console, "collect", schedule.first_steps_limit) as bar:
            wanted = schedule.first_steps
            while wanted > 0:
                self._play_on(wanted)
                bar.update(experience.steps, f"{_rare_rewards(self._replay)} rewards")
                enough = _rare_rewards(self._replay) >= schedule.first_rewards
                left = schedule.first_steps_limit - experience.steps
                wanted = 0 if enough else min(schedule.epoch_steps, left)
        self._progress = replace(self._progress, collected_first=experience.steps)
        self._learning = self._begin_to_learn()
        self._end_phase()

    def _collect(self) -> None:
        self._play_on(self._config.schedule.real_steps(self._experience.steps))

    def _fit(self, bar: ProgressBar) -> None:
        first = self._config.world_model.steps
        steps = first if self._progress.epoch == 1 else self._config.schedule.world_model_steps
        self._repeat(self._fit_step, steps, "world_model", bar)

    def _fit_step(self) -> Figures:
        figures = self._learn.fit_step()
        self._last_loss = figures["denoiser"]
        return figures

    def _train_agent(self, bar: ProgressBar) -> None:
        first = self._config.imagination.steps
        steps = first if self._progress.epoch == 1 else self._config.schedule.agent_steps
        self._learn.begin_dreams(self._progress.epoch)
        self._repeat(self._learn.agent_step, steps, "agent", bar)
        self._learn.end_dreams()

    def _test(self) -> None:
        epoch, schedule = self._progress.epoch, self._config.schedule
        if epoch % schedule.test_every and epoch < self._epochs:
            return
        mean = self._report.test(
            self._agent, self._training_steps, f"epoch-{epoch:05d}", self._config.seed + epoch
        )
        best = self._progress.best
        self._save_world(self._run.world_model)
        if best is None or mean > best:
            self._save_world(self._run.best)
            best = mean
        self._progress = replace(self._progress, score=mean, best=best)
        say(
            self._console,
            f"epoch {epoch} of {self._epochs}, {self._experience.steps:,} real steps: "
            f"score {mean:.2f}, best {best:.2f}",
        )

    def _repeat(self, step: Callable[[], Figures], steps: int, name: str, bar: ProgressBar) -> None:
        """Trains for the rest of a phase's steps, and shows how it goes."""
        recent: list[Figures] = []
        while self._progress.done < steps:
            recent.append(step())
            done = self._progress.done + 1
            self._progress = replace(self._progress, done=done)
            if done % _STEPS_A_LOG == 0 or done == steps:
                figures = self._report.log(self._training_steps, name, recent)
                bar.update(self._training_steps, f"{self._where()}, {figures}")
                check_converges(self._last_loss, self._training_steps)
                recent.clear()
            self._leave_if_asked()
            if done % self._config.checkpoint_every == 0:
                self._save_checkpoint()

    def _where(self) -> str:
        score = "" if self._progress.score is None else f", score {self._progress.score:.2f}"
        epoch = f"epoch {self._progress.epoch} of {self._epochs}"
        return f"{epoch}, {self._experience.steps:,} real steps{score}"

    def _end_phase(self) -> None:
        self._progress = self._progress.after_phase()
        self._save_checkpoint()

    def _play_on(self, steps: int) -> None:
        finished = self._experience.collect(
            self._agent.player, steps, epsilon=self._config.epsilon, should_stop=self._stop
        )
        if self._stop():
            # What was collected of the phase is collected again.
            raise Stopped(self._how_to_go_on())
        self._report.log_games(self._training_steps, self._experience.steps, finished)

    def _leave_if_asked(self) -> None:
        if self._stop():
            self._save_checkpoint()
            raise Stopped(self._how_to_go_on())

    def _how_to_go_on(self) -> str:
        return f"stopped in epoch {self._progress.epoch}: {self._to_go_on}"

    def _begin_to_learn(self) -> Learning:
        return LedLearning(
            self._lead,
            self._config,
            self._world_model,
            self._agent,
            self._replay,
            self._device,
            self._epochs,
        )

    def _save_checkpoint(self) -> None:
        check_converges(self._last_loss, self._training_steps)
        state: dict[str, Any] = {
            "progress": self._progress.to_dict(),
            "experience": self._experience.state_dict(),
            "agent": None,
            "learning": None,
        }
        if self._learning is None:
            state["agent"] = self._agent.state_dict()
        else:
            state["learning"] = self._learning.state_dict()
        save_checkpoint(self._run.checkpoint, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self._progress = Progress.from_dict(state["progress"], str(self._run.checkpoint))
        self._experience.load_state_dict(state["experience"])
        if state["learning"] is None:
            self._agent.load_state_dict(state["agent"])
            return
        self._learning = self._begin_to_learn()
        self._learning.load_state_dict(state["learning"])

    def _save_world(self, folder: Path) -> None:
        """Saves the world model with its card, where its dreams begin, and the agent."""
        model = self._learn.world_model.fitted
        model.origin = Origin(
            environment=self._environment,
            fit=self._how_it_was_fit(),
            agent=self._agent.architecture,
        )
        contexts = self._learn.draw_contexts(self._progress.epoch)
        opened = _opened_by(folder)
        card = model_card(
            self._config.game, self._command, model, self._replay, None, opened_by=opened
        )

        def write_the_rest(staging: Path) -> None:
            contexts.save(staging)
            self._agent.save(staging)
            (staging / CARD_FILE).write_text(card)

        with naming_disk_errors(folder):
            model.save(folder, also=write_the_rest)

    def _how_it_was_fit(self) -> dict[str, Any]:
        return {
            "dreamenv": version("dreamenv"),
            "command": self._command,
            "settings": self._config.to_dict(),
            "epoch": self._progress.epoch,
            "real_steps": self._experience.steps,
        }


def _rare_rewards(replay: Replay) -> int:
    """Returns how many rewards were of other signs than the most common one."""
    signs = replay.reward_signs
    counts = signs.negative, signs.zero, signs.positive
    return sum(counts) - max(counts)


def _opened_by(folder: Path) -> str:
    return f'dreamenv.DreamEnv(world_model="{folder}")'
