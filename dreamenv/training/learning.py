"""What learns in DIAMOND's loop: the world model, and the agent in its dreams."""

from dataclasses import replace
from typing import Any

import torch

from dreamenv.data import Replay
from dreamenv.dream.contexts import Contexts
from dreamenv.models.world_model import WorldModel
from dreamenv.training.batches import Batches
from dreamenv.training.loop_agent import Figures, LoopAgent
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.ranks import ALONE, Ranks
from dreamenv.training.world_model import WorldModelTrainer, measure_change

_MOST_EPOCHS = 1_000_003  # more than any run has, so that runs of other seeds draw other contexts


class Learning:
    """The trainer of the world model, and the agent that learns in its dreams.

    Args:
        config: Of the run.
        world_model: On the device.
        agent: It enters the dreams.
        replay: What the world model learns from. It has the steps of the first epoch, and grows.
        device: Where.
        epochs: How many there are, over which the schedules of the learning rates span.
        ranks: Who learns together.

    Attributes:
        world_model: Trains the world model.
        agent: Learns in the dreams.
        fit_steps: Training steps of the world model in all epochs.
        agent_steps: Training steps of the agent in all epochs.
    """

    def __init__(
        self,
        config: TrainConfig,
        world_model: WorldModel,
        agent: LoopAgent,
        replay: Replay,
        device: torch.device,
        epochs: int,
        ranks: Ranks = ALONE,
    ) -> None:
        schedule, later = config.schedule, epochs - 1
        self.fit_steps = config.world_model.steps + later * schedule.world_model_steps
        self.agent_steps = config.imagination.steps + later * schedule.agent_steps
        self._config, self._replay, self._device = config, replay, device
        measure_change(world_model, replay, device)
        fit = replace(config.world_model, steps=self.fit_steps)
        self._batches = Batches(replay, world_model, fit, device, config.seed)
        self.world_model = WorldModelTrainer(world_model, fit, device, config.seed, ranks)
        self.agent = agent
        agent.enter(
            self.world_model.fitted.eval(), self.draw_contexts(epoch=1), self.agent_steps, ranks
        )

    @property
    def steps_done(self) -> int:
        """Training steps of both so far."""
        return self.world_model.step_count + self.agent.step_count

    def fit_step(self) -> Figures:
        """Fits the world model for one step."""
        return self.world_model.step(*self._batches.draw())._asdict()

    def agent_step(self) -> Figures:
        """Trains the agent for one step."""
        return self.agent.step()

    def end_dreams(self) -> None:
        """Forgets what the agent has of use in the dreams of this epoch only."""
        self.agent.end_dreams()

    def begin_dreams(self, epoch: int) -> None:
        """Lets dreams begin in the episodes that there are by now, in the world as it is by now.

        Args:
            epoch: Its number; the first is 1.
        """
        self.world_model.fitted.eval()
        self.agent.begin_dreams(self.draw_contexts(epoch))

    def draw_contexts(self, epoch: int) -> Contexts:
        """Draws where the dreams of an epoch begin.

        Args:
            epoch: Its number; the first is 1.
        """
        return Contexts.draw(
            self._replay,
            self._config.denoiser.context_length,
            self._config.contexts,
            device=self._device,
            weights=self._config.world_model.quarters,
            seed=self._config.seed * _MOST_EPOCHS + epoch,
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, with the same replay."""
        return {
            "batches": self._batches.state_dict(),
            "world_model": self.world_model.state_dict(),
            "agent": self.agent.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._batches.load_state_dict(state["batches"])
        self.world_model.load_state_dict(state["world_model"])
        self.agent.load_state_dict(state["agent"])
