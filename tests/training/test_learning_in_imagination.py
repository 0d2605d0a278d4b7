"""The loop as a whole: what is learned in imagination alone is good in the real game."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from rich.console import Console

from dreamenv.evaluation.real_scores import PlayConfig
from dreamenv.models.presets import small
from dreamenv.real import describe
from dreamenv.training.actor_critic import ActorCriticTrainingConfig
from dreamenv.training.evaluate_agent import AgentScores, evaluate_agent
from dreamenv.training.loop import train
from dreamenv.training.loop_config import ScheduleConfig, TrainConfig
from dreamenv.training.optimisation import OptimiserConfig
from dreamenv.training.training_config import TrainingConfig

pytestmark = pytest.mark.slow

Frame = npt.NDArray[np.uint8]

CELLS, BAT, PIXELS = 6, 2, 2
BEST = 1.0
CAUGHT_AT_RANDOM = 0.37
REAL_GAME, SHUFFLED = "Test/CatchInFive-v0", "Test/CatchInFiveShuffled-v0"


class CatchInFive(gymnasium.Env[Frame, np.int64]):
    """A ball falls for five steps on a board of 6 x 6 cells, above a bat two cells wide.

    The bat can be under any ball in time: +1 caught, -1 missed.

    Args:
        shuffled: Whether chance says instead what is paid when a ball lands, about as often for
            the better as random play has it.
    """

    observation_space = Box(0, 255, (CELLS * PIXELS, CELLS * PIXELS, 3), np.uint8)
    action_space = Discrete(3)

    def __init__(self, *, shuffled: bool = False, **_: Any) -> None:
        super().__init__()
        self._shuffled = shuffled

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._row = 0
        self._column = int(self.np_random.integers(0, CELLS))
        self._bat = int(self.np_random.integers(0, CELLS - BAT + 1))
        return self._frame(), {}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        self._row += 1
        self._bat = int(np.clip(self._bat + int(action) - 1, 0, CELLS - BAT))
        landed = self._row == CELLS - 1
        paid = self._bat <= self._column < self._bat + BAT
        if self._shuffled:
            paid = self.np_random.random() < CAUGHT_AT_RANDOM
        return self._frame(), (BEST if paid else -BEST) * landed, landed, False, {}

    def _frame(self) -> Frame:
        cells = np.zeros((CELLS, CELLS, 3), np.uint8)
        cells[-1, self._bat : self._bat + BAT, 1] = 255
        cells[self._row, self._column, 0] = 255
        return cells.repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)


@pytest.fixture(scope="module", autouse=True)
def _games() -> Iterator[None]:
    gymnasium.register(REAL_GAME, CatchInFive)
    gymnasium.register(SHUFFLED, CatchInFive, kwargs={"shuffled": True})
    yield
    del gymnasium.registry[REAL_GAME], gymnasium.registry[SHUFFLED]


def learning(env: str, out: Path) -> TrainConfig:
    """Two epochs of PPO in dreams that random play of 5,000 steps is enough for."""
    start = small(num_actions=3)
    fast = OptimiserConfig(learning_rate=1e-3)
    levels: dict[str, Any] = {
        "fold": PIXELS,
        "channels": (32, 32),
        "depths": (1, 1),
        "attention": (False, False),
    }
    return TrainConfig(
        env,
        out=str(out),
        size=(CELLS * PIXELS,),
        device="cpu",
        agent="ppo",
        frame_stack=1,
        schedule=ScheduleConfig(
            first_steps=5_000,
            first_steps_limit=5_000,
            epoch_steps=500,
            steps=5_500,
            epochs_after=0,
            world_model_steps=50,
            agent_steps=20,
            test_every=2,
            test_episodes=20,
            final_episodes=2,  # what it leaves is played at the end, and judged by that
        ),
        world_model=TrainingConfig(
            steps=500,
            batch_size=16,
            predictions=1,
            reward_end_batch_size=16,
            reward_end_length=CELLS,
            quarters=None,
            denoiser_optimiser=fast,
            reward_end_optimiser=fast,
            ema_decay=0.99,
        ),
        imagination=ActorCriticTrainingConfig(steps=40, num_envs=64, rollout_length=CELLS),
        denoiser=replace(
            start.denoiser,
            context_length=1,
            cond_channels=64,
            middle_attention=False,
            norm="none",
            **levels,
        ),
        reward_end=replace(start.reward_end, cond_channels=32, **{**levels, "channels": (16, 16)}),
        sampler=start.sampler,
    )


def scores_in_the_real_game(learned_in: str, out: Path) -> AgentScores:
    """Learns in dreams of one game, and plays the real one."""
    config = learning(learned_in, out)
    console = Console(file=io.StringIO())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one schedule of sums, however many cores there are
    try:
        train(config, console)
        agent = config.run_folder.world_model / "agent.zip"
        return evaluate_agent(
            str(agent), describe(REAL_GAME, CELLS * PIXELS), PlayConfig(episodes=200), console
        )
    finally:
        torch.set_num_threads(threads)


def test_an_agent_learns_a_game_in_imagination_only(tmp_path: Path) -> None:
    agent, random = scores_in_the_real_game(REAL_GAME, tmp_path / "run").players
    assert random.score.high < 0.1 * BEST
    assert agent.score.mean >= 0.8 * BEST


def test_it_does_not_where_rewards_are_shuffled(tmp_path: Path) -> None:
    agent, _ = scores_in_the_real_game(SHUFFLED, tmp_path / "run").players
    assert agent.score.high < 0.5 * BEST
