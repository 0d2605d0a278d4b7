"""What a run asks of the agent that learns in dreams or real games, whatever it learns by."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from dreamenv.dream.contexts import Contexts
from dreamenv.models.actor_critic import ActorCriticConfig
from dreamenv.models.world_model import WorldModel
from dreamenv.real.policy import StatefulPolicy
from dreamenv.training.ranks import Ranks
from dreamenv.training.real_games import RealGames

Figures = Mapping[str, Tensor]
"""What one training step was like, each float32 [] on the device: reading one waits for it."""


class LoopAgent(Protocol):
    """Learns in dreams a little at a time, and plays the real game in between.

    Or it learns in real games alone: it enters the one or the other, once.
    """

    @property
    def step_count(self) -> int:
        """Training steps done so far."""

    @property
    def architecture(self) -> ActorCriticConfig | None:
        """Of an actor-critic that `save` writes; None for agents that are kept another way."""

    @property
    def player(self) -> StatefulPolicy:
        """Who collects: the agent as it is at any time. Its memory goes on from call to call."""

    def new_player(self, seed: int) -> StatefulPolicy:
        """Returns the agent as it is as one who remembers nothing, for tests.

        Args:
            seed: Of its chance.
        """

    def enter(self, world_model: WorldModel, contexts: Contexts, steps: int, ranks: Ranks) -> None:
        """Gets ready to learn in the dreams of a world model.

        Args:
            world_model: It may learn on between the steps of the agent.
            contexts: Where dreams begin at first.
            steps: Training steps that are to come in all.
            ranks: Who learns together, all of them entering together.
        """

    def enter_games(self, games: RealGames, steps: int) -> None:
        """Gets ready to learn in real games, as many as it would have dreams.

        Args:
            games: They are stepped by nobody else.
            steps: Training steps that are to come in all.
        """

    def begin_dreams(self, contexts: Contexts) -> None:
        """Lets the dreams that begin from now on begin in other contexts.

        Args:
            contexts: As many and as long as before.
        """

    def step(self) -> Figures:
        """Goes on with the dreams or the games for one rollout, and learns from it."""

    def end_dreams(self) -> None:
        """Forgets what is of use in the dreams of this epoch only, so that it need not be kept."""

    def save(self, folder: Path) -> None:
        """Writes the agent into a folder that is being saved, such as that of a world model."""

    def saved_in(self, folder: Path) -> Path:
        """Returns by what name `load_policy` opens the agent that was saved in a folder."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, in the same dreams or games.

        What is in it can be loaded without running code. Having entered, all ranks have to ask for
        it together.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken, having entered the same dreams or games."""
