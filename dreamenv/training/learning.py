"""What learns in DIAMOND's loop: the world model, and the actor-critic in its dreams."""

from dataclasses import replace
from typing import Any

import torch

from dreamenv.data import Replay
from dreamenv.dream.contexts import Contexts
from dreamenv.dream.core import Dream
from dreamenv.models.actor_critic import ActorCritic
from dreamenv.models.world_model import WorldModel
from dreamenv.training.actor_critic import ActorCriticStatistics, ActorCriticTrainer
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.ranks import ALONE, Ranks
from dreamenv.training.world_model import Batches, Losses, WorldModelTrainer, measure_change

_MOST_EPOCHS = 1_000_003  # more than any run has, so that runs of other seeds draw other contexts


class Learning:
    """The trainers of both networks, and the dreams of the one in which the other acts.

    Args:
        config: Of the run.
        world_model: On the device.
        network: The actor-critic, on the device.
        replay: What the world model learns from. It has the steps of the first epoch, and grows.
        device: Where.
        epochs: How many there are, over which the schedules of the learning rates span.
        ranks: Who learns together.

    Attributes:
        world_model: Trains the world model.
        agent: Trains the actor-critic.
        fit_steps: Training steps of the world model in all epochs.
        agent_steps: Training steps of the actor-critic in all epochs.
    """

    def __init__(
        self,
        config: TrainConfig,
        world_model: WorldModel,
        network: ActorCritic,
        replay: Replay,
        device: torch.device,
        epochs: int,
        ranks: Ranks = ALONE,
    ) -> None:
        schedule, later = config.schedule, epochs - 1
        self.fit_steps = config.world_model.steps + later * schedule.world_model_steps
        self.agent_steps = config.agent.steps + later * schedule.agent_steps
        self._config, self._replay, self._device = config, replay, device
        measure_change(world_model, replay, device)
        fit = replace(config.world_model, steps=self.fit_steps)
        self._batches = Batches(replay, world_model, fit, device, config.seed)
        self.world_model = WorldModelTrainer(world_model, fit, device, config.seed, ranks)
        act = replace(config.agent, steps=self.agent_steps)
        self._dream = Dream(
            self.world_model.fitted.eval(),
            self.draw_contexts(epoch=1),
            act.num_envs // ranks.count,
            horizon=act.rollout_length,
            share=ranks.share,
        )
        self.agent = ActorCriticTrainer(network, self._dream, act, config.seed, ranks)

    @property
    def steps_done(self) -> int:
        """Training steps of both networks so far."""
        return self.world_model.step_count + self.agent.step_count

    def fit_step(self) -> Losses:
        """Fits the world model for one step."""
        return self.world_model.step(*self._batches.draw())

    def agent_step(self) -> ActorCriticStatistics:
        """Trains the actor-critic for one step."""
        return self.agent.step()

    def begin_dreams(self, epoch: int) -> None:
        """Lets dreams begin in the episodes that there are by now, in the world as it is by now.

        Args:
            epoch: Its number; the first is 1.
        """
        self.world_model.fitted.eval()
        self._dream.redraw(self.draw_contexts(epoch))

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
