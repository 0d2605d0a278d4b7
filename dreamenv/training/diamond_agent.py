"""DIAMOND's own agent in the loop: the actor-critic."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dreamenv.dream.contexts import Contexts
from dreamenv.dream.core import Dream
from dreamenv.environment import EnvironmentSpec
from dreamenv.models.actor_critic import ActorCritic, ActorCriticConfig
from dreamenv.models.actor_critic_file import write_actor_critic
from dreamenv.models.world_model import WorldModel
from dreamenv.training.actor_critic import ActorCriticTrainer, ActorCriticTrainingConfig
from dreamenv.training.actor_critic_policy import ActorCriticPolicy
from dreamenv.training.loop_agent import Figures
from dreamenv.training.ranks import Ranks
from dreamenv.training.real_games import RealGames
from dreamenv.training.real_rollout import RealRolloutCollector
from dreamenv.training.rollout import RolloutCollector


class DiamondAgent:
    """The actor-critic; see `LoopAgent`.

    Args:
        architecture: Of the network.
        training: How it is trained; its `steps` are those that `enter` is given.
        environment: The real game.
        device: Where it learns.
        seed: Of actions and dreams. The weights come from torch's own generator.

    Raises:
        ConfigError: The architecture does not fit the frames.
    """

    def __init__(
        self,
        architecture: ActorCriticConfig,
        training: ActorCriticTrainingConfig,
        environment: EnvironmentSpec,
        device: torch.device,
        seed: int,
    ) -> None:
        self.architecture: ActorCriticConfig | None = architecture
        self._training, self._seed = training, seed
        self._network = ActorCritic(
            architecture, environment.obs_shape, environment.num_actions
        ).to(device)
        self._player = ActorCriticPolicy(self._network, seed=seed)
        self._dream: Dream | None = None
        self._trainer: ActorCriticTrainer | None = None

    @property
    def step_count(self) -> int:
        """See `LoopAgent`."""
        return 0 if self._trainer is None else self._trainer.step_count

    @property
    def player(self) -> ActorCriticPolicy:
        """See `LoopAgent`."""
        return self._player

    def new_player(self, seed: int) -> ActorCriticPolicy:
        """See `LoopAgent`."""
        return ActorCriticPolicy(self._network, seed=seed)

    def enter(self, world_model: WorldModel, contexts: Contexts, steps: int, ranks: Ranks) -> None:
        """See `LoopAgent`."""
        training = replace(self._training, steps=steps)
        ranks.copy_first(self._network)
        self._dream = Dream(
            world_model,
            contexts,
            training.num_envs // ranks.count,
            horizon=training.rollout_length,
            share=ranks.share,
        )
        collector = RolloutCollector(self._network, self._dream, self._seed, ranks)
        self._trainer = ActorCriticTrainer(self._network, collector, training, ranks)

    def enter_games(self, games: RealGames, steps: int) -> None:
        """See `LoopAgent`."""
        collector = RealRolloutCollector(self._network, games, self._seed)
        training = replace(self._training, steps=steps)
        self._trainer = ActorCriticTrainer(self._network, collector, training)

    def begin_dreams(self, contexts: Contexts) -> None:
        """See `LoopAgent`."""
        assert self._dream is not None
        self._dream.redraw(contexts)

    def step(self) -> Figures:
        """See `LoopAgent`."""
        return self._entered.step()._asdict()

    def end_dreams(self) -> None:
        """See `LoopAgent`. The dreams that have begun go on in the next epoch, as published."""

    def save(self, folder: Path) -> None:
        """See `LoopAgent`."""
        write_actor_critic(self._network, folder)

    def saved_in(self, folder: Path) -> Path:
        """See `LoopAgent`."""
        return folder

    def state_dict(self) -> dict[str, Any]:
        """See `LoopAgent`."""
        return {"player": self._player.state_dict(), "trainer": self._trainer_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `LoopAgent`."""
        self._player.load_state_dict(state["player"])
        if state["trainer"] is not None:
            self._entered.load_state_dict(state["trainer"])

    @property
    def _entered(self) -> ActorCriticTrainer:
        assert self._trainer is not None
        return self._trainer

    def _trainer_state(self) -> dict[str, Any] | None:
        return None if self._trainer is None else self._trainer.state_dict()
