"""Training an agent in a dream, and telling how well it plays the real game."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor

from dreamenv.config import Config
from dreamenv.data.disk import naming_disk_errors
from dreamenv.devices import AUTO
from dreamenv.dream.opening import DreamOptions
from dreamenv.dream.sb3 import DreamVecEnv
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, FormatError
from dreamenv.evaluation.real_scores import PlayConfig, RealScores, play_games, scores_table
from dreamenv.evaluation.world_folder import world_name
from dreamenv.files import atomic_file
from dreamenv.progress import ProgressBar, format_seconds, say
from dreamenv.real import make_vector
from dreamenv.real.policy import Policy, RandomPolicy
from dreamenv.registration import NAMESPACE
from dreamenv.training.agent_film import film_agent
from dreamenv.training.agent_folder import AgentFolder
from dreamenv.training.agents import ALGORITHMS, AlgorithmConfig, AlgorithmName, make_agent
from dreamenv.training.compiled_dreams import compile_where_it_pays
from dreamenv.training.policies import RANDOM, AgentPolicy, agent_policy
from dreamenv.training.stopping import Stopped, StopRequest, stop_on_signal


@dataclass(frozen=True)
class TrainAgentConfig(Config):
    """Which agent is trained, and in which dream.

    Attributes:
        env: The id of the dream, such as DreamEnv/Breakout-v0, or the name of its world model.
            With a world model it may be left out.
        world_model: Folder of the world model, instead of the one that the id finds.
        algo: What the agent learns by.
        steps: Steps of single dreams to train for, rounded up to the algorithm's rollouts.
        num_envs: Dreams at once.
        horizon: Steps after which a dream is truncated: in Breakout the ball takes 31 to 41 from
            its launch to the paddle and up to the first brick, and dreams are best at their
            beginning.
        denoising_steps: Noise levels a frame is drawn with; by default the world model's own.
        frame_stack: How many frames the agent sees at once, in the dream and in the game.
        episodes: Real games that are played before the training, after it, and at random.
        seed: Of the agent, the dreams and the games.
        device: Where to dream and to learn: auto (CUDA, then MPS, then the CPU) or one that torch
            knows.
        compile: Whether to compile the world model; by default where it pays: on a CPU, for 60,000
            steps or more, if compiling works there.
        out: Folder for the agent; by default runs/NAME-ALGO.
    """

    env: str | None = None
    world_model: str | None = None
    algo: AlgorithmName = "ppo"
    steps: int = 30_000
    num_envs: int = 16
    horizon: int = 100
    denoising_steps: int | None = None
    frame_stack: int = 2
    episodes: int = 60
    seed: int = 0
    device: str = AUTO
    compile: bool | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        if self.env is None and self.world_model is None:
            raise ConfigError("there is no dream to train in; give --env or --world-model")
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; it must be at least 1")
        _ = self.play  # It checks its own settings.

    @property
    def play(self) -> PlayConfig:
        """How the real game is played."""
        return PlayConfig(episodes=self.episodes, seed=self.seed)

    @property
    def world_name(self) -> str:
        """The name of the world model, as of its id or its folder."""
        if self.env is not None:
            return self.env.removeprefix(f"{NAMESPACE}/").removesuffix("-v0")
        return world_name(Path(self.world_model or ""))

    @property
    def folder(self) -> AgentFolder:
        """Where the agent goes."""
        return AgentFolder(Path(self.out or Path("runs") / f"{self.world_name}-{self.algo}"))


@dataclass(frozen=True)
class TrainAgentResults(Config):
    """What came of training an agent.

    Attributes:
        dreamenv: The version.
        settings: Which agent, in which dream.
        algorithm: What it learnt by.
        environment: The real game.
        steps: How many it was trained for.
        seconds: How long that took.
        random: The scores of random play in the real game.
        before: Those of the agent before it was trained.
        after: Those of the trained agent.
    """

    dreamenv: str
    settings: TrainAgentConfig
    algorithm: AlgorithmConfig
    environment: EnvironmentSpec
    steps: int
    seconds: float
    random: RealScores
    before: RealScores
    after: RealScores


def train_agent(
    config: TrainAgentConfig, console: Console, *, overwrite: bool = False
) -> TrainAgentResults:
    """Trains an agent in a dream, has it play the real game, and saves it with its results.

    The agent plays as it was trained to, drawing its actions: see `AgentPolicy`.

    Args:
        config: Which agent, in which dream.
        console: Where progress is shown.
        overwrite: Replace an agent in the folder.

    Raises:
        Stopped: SIGINT or SIGTERM came; the agent so far was saved if its training had begun.
        DreamenvError: It cannot be done.
    """
    config.folder.check(overwrite=overwrite)
    with stop_on_signal() as stop:
        training = _Training(config, console, stop)
        before = training.play_before()
        with naming_disk_errors(config.folder.path):
            results = training.learn(*before)
            training.leave(results)
    return results


class _Training:
    """The training of one agent: its dreams, its games, and what it reports."""

    def __init__(self, config: TrainAgentConfig, console: Console, stop: StopRequest) -> None:
        self._config, self._folder = config, config.folder
        self._console = console
        self._stop = stop
        plain = self._open_dreams(config.num_envs)
        self._environment = _real_environment(plain, config)
        dreams = compile_where_it_pays(
            plain,
            lambda: self._open_dreams(config.num_envs, compile=True),
            config.steps,
            console,
            compile=config.compile,
        )
        self._algorithm = ALGORITHMS[config.algo]
        self._agent = make_agent(
            self._algorithm, VecMonitor(dreams), device=dreams.dream.device, seed=config.seed
        )

    def play_before(self) -> tuple[RealScores, RealScores]:
        """Returns the scores of random play, and of the agent, which has learned nothing."""
        chance = RandomPolicy(self._environment.num_actions, self._config.seed)
        nothing_kept = "stopped before the training; there is nothing to keep"
        return (
            self._play(RANDOM, chance, nothing_kept),
            self._play("untrained agent", self._policy(), nothing_kept),
        )

    def learn(self, random: RealScores, before: RealScores) -> TrainAgentResults:
        """Trains and saves the agent, and has it play."""
        self._folder.begin()
        self._agent.set_logger(configure(str(self._folder.path), ["tensorboard"]))
        self._log_score(before)
        started = time.perf_counter()
        with ProgressBar(self._console, "train", self._config.steps) as bar:
            callback = _Callback(bar, self._config.steps, self._stop)
            interval = self._algorithm.log_interval
            self._agent.learn(self._config.steps, callback, log_interval=interval)
        seconds, steps = time.perf_counter() - started, self._agent.num_timesteps
        with atomic_file(self._folder.agent) as beside:
            self._agent.save(beside)
        if self._stop():
            raise Stopped(
                f"stopped after {steps} of {self._config.steps} steps; the agent so far is "
                f"{self._folder.agent}"
            )
        kept = f"stopped before the agent was measured; it is {self._folder.agent}"
        after = self._play("trained agent", self._policy(), kept)
        self._log_score(after)
        self._agent.logger.close()
        return TrainAgentResults(
            dreamenv=version("dreamenv"),
            settings=self._config,
            algorithm=self._algorithm,
            environment=self._environment,
            steps=steps,
            seconds=seconds,
            random=random,
            before=before,
            after=after,
        )

    def leave(self, results: TrainAgentResults) -> None:
        """Writes the results and the film beside the agent, and prints the table."""
        with atomic_file(self._folder.results) as beside:
            beside.write_text(json.dumps(results.to_dict(), indent=2) + "\n")
        self._film()
        players = (results.random, results.before, results.after)
        self._console.print(scores_table(f"{self._environment.id}, raw scores", players))
        say(self._console, f"training took {format_seconds(results.seconds)}")
        say(self._console, f"agent: {self._folder.agent}")
        say(self._console, f"film: {self._folder.film} (left the dream, right the real game)")
        say(self._console, f"next: tensorboard --logdir {self._folder.path}")

    def _film(self) -> None:
        seed = self._config.seed
        game = make_vector(self._environment, 1, training=False)
        try:
            film_agent(
                self._folder.film,
                self._open_dreams(1, render_mode="rgb_array"),
                AgentPolicy(self._agent, sample=True, seed=seed),
                game,
                self._policy(),
                seed=seed,
            )
        finally:
            game.close()

    def _open_dreams(
        self, num_envs: int, render_mode: str | None = None, *, compile: bool = False
    ) -> DreamVecEnv:
        config = self._config
        options = DreamOptions(
            horizon=config.horizon,
            denoising_steps=config.denoising_steps,
            device=config.device,
            frame_stack=config.frame_stack,
            compile=compile,
        )
        if config.world_model is not None:
            options["world_model"] = config.world_model
        return DreamVecEnv(config.env, num_envs, render_mode=render_mode, **options)

    def _policy(self) -> Policy:
        """Lets the agent, as it is, play the real game."""
        return agent_policy(self._agent, self._environment, sample=True, seed=self._config.seed)

    def _play(self, player: str, policy: Policy, if_stopped: str) -> RealScores:
        return play_with_progress(
            self._environment,
            policy,
            self._config.play,
            self._console,
            player=player,
            stop=self._stop,
            if_stopped=if_stopped,
        )

    def _log_score(self, scores: RealScores) -> None:
        self._agent.logger.record("real/mean_score", scores.score.mean)
        self._agent.logger.dump(self._agent.num_timesteps)


def play_with_progress(
    environment: EnvironmentSpec,
    policy: Policy,
    config: PlayConfig,
    console: Console,
    *,
    player: str,
    stop: Callable[[], bool] = lambda: False,
    if_stopped: str = "stopped",
) -> RealScores:
    """Plays the real game, and shows how many games are finished.

    Args:
        environment: What is played.
        policy: Who plays.
        config: How many games, and how.
        console: Where progress is shown.
        player: The player's name.
        stop: Asked at every step.
        if_stopped: What to say where it was asked to stop.

    Raises:
        Stopped: It was asked to stop.
        DreamenvError: It cannot be played.
    """
    with ProgressBar(console, f"real games, {player}", config.episodes) as bar:

        def on_step(finished: int) -> None:
            if stop():
                raise Stopped(if_stopped)
            bar.update(finished)

        return play_games(environment, policy, config, player=player, on_step=on_step)


class _Callback(BaseCallback):
    """Shows how far the training has come, and stops it where that is asked for."""

    def __init__(self, bar: ProgressBar, total: int, stop: StopRequest) -> None:
        super().__init__()
        self._bar, self._total, self._stop = bar, total, stop

    def _on_step(self) -> bool:
        self._bar.update(min(self.num_timesteps, self._total), _recent_reward(self.model))
        return not self._stop()


def _recent_reward(agent: BaseAlgorithm) -> str:
    """Returns the mean of the last hundred dreams, in words; nothing where none has ended."""
    rewards = [episode["r"] for episode in agent.ep_info_buffer or ()]
    return f"{sum(rewards) / len(rewards):.2f} reward a dream" if rewards else ""


def _real_environment(dreams: DreamVecEnv, config: TrainAgentConfig) -> EnvironmentSpec:
    if dreams.environment is None:
        raise FormatError(
            f"the world model {config.world_model or config.world_name} does not say what it "
            f"dreams of, so no agent can be tried in the real game; train in it by a script "
            f"(examples/ppo_in_dream.py)"
        )
    return dreams.environment
