"""Agents of stable-baselines3 and sb3-contrib in the loop: DIAMOND's loop around any of them."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from dreamenv.dream.contexts import Contexts
from dreamenv.dream.sb3 import DreamVecEnv
from dreamenv.dream.state import DreamState
from dreamenv.environment import EnvironmentSpec
from dreamenv.models.actor_critic import ActorCriticConfig
from dreamenv.models.world_model import WorldModel
from dreamenv.real.policy import RandomPolicy, StatefulPolicy
from dreamenv.training.agents import AlgorithmConfig, make_agent
from dreamenv.training.loop_agent import Figures
from dreamenv.training.policies import agent_policy
from dreamenv.training.ranks import Ranks
from dreamenv.training.real_games import RealGames
from dreamenv.training.real_sb3 import RealVecEnv
from dreamenv.training.shared_chance import SharedChance

AGENT_FILE = "agent.zip"

# What SB3 counts beside its weights, each where the algorithm has it.
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate")
_NEVER = 2**62  # rollouts or ended dreams between SB3's own summaries, which have no writer here
_BUFFERED = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


@dataclass(frozen=True)
class Imagination:
    """How long, and in how many dreams, an agent learns at a time.

    Attributes:
        num_envs: Dreams side by side, or real games.
        length: Steps of each in a training step, rounded up to the algorithm's own rollouts; and
            the horizon of the dreams.
        frame_stack: How many frames the agent sees at once.
    """

    num_envs: int
    length: int
    frame_stack: int


class Sb3Agent:
    """An agent of SB3; see `LoopAgent`. Until it has entered dreams or games, it plays at random.

    A replay buffer holds dreams of one epoch only: those of the next are of another world model.
    Of real games it holds as many steps as it has room for.

    Args:
        algorithm: What it learns by. One that cuts its rollouts takes those of `imagination`.
        imagination: How much it dreams.
        environment: The real game.
        device: Where it learns.
        seed: Of all its chance, and of its dreams.

    Raises:
        ConfigError: It cannot learn from rollouts as short as that.
    """

    architecture: ActorCriticConfig | None = None

    def __init__(
        self,
        algorithm: AlgorithmConfig,
        imagination: Imagination,
        environment: EnvironmentSpec,
        device: torch.device,
        seed: int,
    ) -> None:
        self.step_count = 0
        self._algorithm = _with_rollouts(algorithm, imagination.length)
        self._algorithm.arguments(imagination.num_envs)  # refused now, or after hours of play
        self._imagination, self._environment = imagination, environment
        self._device, self._seed = device, seed
        self._chance = SharedChance(device, seed)
        self._untrained = RandomPolicy(environment.num_actions, seed)
        self._player: StatefulPolicy = self._untrained
        self._dreams: DreamVecEnv | None = None
        self._games: RealVecEnv | None = None
        self._agent: BaseAlgorithm | None = None
        self._most_steps = 0

    @property
    def player(self) -> StatefulPolicy:
        """See `LoopAgent`."""
        return self._player

    def new_player(self, seed: int) -> StatefulPolicy:
        """See `LoopAgent`."""
        if self._agent is None:
            return RandomPolicy(self._environment.num_actions, seed)
        return agent_policy(self._agent, self._environment, sample=True, seed=seed)

    def enter(self, world_model: WorldModel, contexts: Contexts, steps: int, ranks: Ranks) -> None:
        """See `LoopAgent`. SB3 learns alone: `check_shares` refuses several ranks."""
        assert ranks.count == 1
        imagination = self._imagination
        self._dreams = DreamVecEnv(
            None,
            imagination.num_envs,
            world_model=world_model,
            contexts=contexts,
            horizon=imagination.length,
            frame_stack=imagination.frame_stack,
        )
        self._begin(self._dreams, steps)
        self._dreams.reset()  # with the seed that SB3 left there, so that no later one takes it

    def enter_games(self, games: RealGames, steps: int) -> None:
        """See `LoopAgent`."""
        self._games = RealVecEnv(games, self._imagination.frame_stack)
        self._begin(self._games, steps)

    def begin_dreams(self, contexts: Contexts) -> None:
        """See `LoopAgent`."""
        assert self._dreams is not None
        self._dreams.dream.redraw(contexts)

    def step(self) -> Figures:
        """See `LoopAgent`."""
        agent = self._entered
        self.step_count += 1
        callback = _UntilEnough(self.step_count * self._single_steps)
        # SB3 adds the steps done to those to do: its schedules span the whole run, as they should.
        left = max(0, self._most_steps - agent.num_timesteps)
        with self._chance.drawn_from(), suppress(_Enough):
            agent.learn(left, callback, log_interval=_NEVER, reset_num_timesteps=False)
        return {"reward": torch.tensor(callback.mean_reward), **_logged(agent)}

    def end_dreams(self) -> None:
        """See `LoopAgent`. New dreams begin in the next epoch, and a replay buffer is emptied."""
        agent = self._entered
        environment = agent.get_env()
        assert environment is not None
        agent.set_env(environment, force_reset=True)
        if (buffer := _buffer(agent)) is not None:
            buffer.reset()

    def save(self, folder: Path) -> None:
        """See `LoopAgent`."""
        self._entered.save(folder / AGENT_FILE)

    def saved_in(self, folder: Path) -> Path:
        """See `LoopAgent`."""
        return folder / AGENT_FILE

    def state_dict(self) -> dict[str, Any]:
        """See `LoopAgent`."""
        state: dict[str, Any] = {
            "step_count": self.step_count,
            "player": self._player.state_dict(),
            "chance": self._chance.state_dict(),
            "agent": None if self._agent is None else _agent_state(self._agent),
        }
        if self._games is not None:
            state["stacks"] = torch.tensor(self._games.stacks)
        if self._dreams is None:
            return state
        dream = self._dreams.dream
        return state | {
            "dream": dict(vars(dream.snapshot())),
            "dream_generator": dream.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `LoopAgent`."""
        self.step_count = state["step_count"]
        self._chance.load_state_dict(state["chance"])
        self._player.load_state_dict(state["player"])
        if state["agent"] is None:
            return
        _load_agent_state(self._entered, state["agent"])
        if self._games is not None:
            self._games.stacks = state["stacks"].cpu().numpy()
        if self._dreams is None:
            return
        dream = self._dreams.dream
        dream.restore(DreamState(**state["dream"]))
        dream.generator.set_state(state["dream_generator"].cpu())

    @property
    def _entered(self) -> BaseAlgorithm:
        assert self._agent is not None
        return self._agent

    @property
    def _single_steps(self) -> int:
        """Steps of single dreams or games in one training step."""
        return self._imagination.num_envs * self._imagination.length

    def _begin(self, env: VecEnv, steps: int) -> None:
        self._most_steps = steps * self._single_steps
        with self._chance.drawn_from():
            self._agent = make_agent(self._algorithm, env, device=self._device, seed=self._seed)
        self._agent.set_logger(Logger(folder=None, output_formats=[]))
        self._player = self.new_player(self._seed)


class _Enough(Exception):  # noqa: N818
    """A training step is done. No error: SB3 has no other way to stop between two rollouts."""


class _UntilEnough(BaseCallback):
    """Stops before the first rollout that begins after enough steps, and sums rewards up."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self._enough = enough
        self._rewards: list[float] = []

    @property
    def mean_reward(self) -> float:
        """Of a step of a single dream or game; NaN where there was none."""
        return float(np.mean(self._rewards)) if self._rewards else float("nan")

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self._enough:
            raise _Enough

    def _on_step(self) -> bool:
        self._rewards.append(float(self.locals["rewards"].mean()))
        return True


def _with_rollouts(algorithm: AlgorithmConfig, length: int) -> AlgorithmConfig:
    if algorithm.minibatches is None:
        return algorithm
    return replace(algorithm, settings={**algorithm.settings, "n_steps": length})


def _logged(agent: BaseAlgorithm) -> dict[str, Tensor]:
    """Returns what the algorithm said of its last update, and forgets it."""
    said = {
        name.removeprefix("train/"): torch.tensor(float(value))
        for name, value in agent.logger.name_to_value.items()
        if name.startswith("train/")
    }
    agent.logger.dump(agent.num_timesteps)
    return said


def _buffer(agent: BaseAlgorithm) -> ReplayBuffer | None:
    return getattr(agent, "replay_buffer", None)


def _agent_state(agent: BaseAlgorithm) -> dict[str, Any]:
    memory = getattr(agent, "_last_lstm_states", None)
    begun = agent._last_obs is not None
    return {
        "parameters": agent.get_parameters(),
        "counters": {name: getattr(agent, name) for name in _COUNTERS if hasattr(agent, name)},
        "actions": agent.action_space.np_random.bit_generator.state,
        "obs": torch.tensor(agent._last_obs) if begun else None,
        "starts": torch.tensor(agent._last_episode_starts) if begun else None,
        "memory": None if memory is None else [list(pair) for pair in memory],
        "buffer": _buffer_state(_buffer(agent)),
    }


def _load_agent_state(agent: BaseAlgorithm, state: dict[str, Any]) -> None:
    agent.set_parameters(state["parameters"], exact_match=True, device=agent.device)
    for name, value in state["counters"].items():
        setattr(agent, name, value)
    agent.action_space.np_random.bit_generator.state = state["actions"]
    if state["obs"] is not None:
        agent._last_obs = state["obs"].cpu().numpy()
        agent._last_episode_starts = state["starts"].cpu().numpy()
    if state["memory"] is not None:
        kind = type(agent._last_lstm_states)  # type: ignore[attr-defined]
        memory = kind(*(tuple(x.to(agent.device) for x in pair) for pair in state["memory"]))
        agent._last_lstm_states = memory  # type: ignore[attr-defined]
    if (buffer := _buffer(agent)) is not None:
        _load_buffer_state(buffer, state["buffer"])


def _buffer_state(buffer: ReplayBuffer | None) -> dict[str, Any] | None:
    if buffer is None:
        return None
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: torch.tensor(getattr(buffer, name)[:filled]) for name in _BUFFERED}
    return {"pos": buffer.pos, "full": buffer.full, **arrays}


def _load_buffer_state(buffer: ReplayBuffer, state: dict[str, Any]) -> None:
    buffer.pos, buffer.full = state["pos"], state["full"]
    for name in _BUFFERED:
        array = state[name].cpu().numpy()
        getattr(buffer, name)[: len(array)] = array
