"""Leading and following: the first rank runs the loop, and the others learn with it.

The first one plays, tests, prints and writes. Whenever it is to learn, it tells the others what to
do, and all do it together; in between they wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from dreamenv.data import Replay
from dreamenv.errors import ConfigError, DreamenvError, FormatError, RankError
from dreamenv.models.world_model import WorldModel
from dreamenv.training.checkpoint import load_checkpoint
from dreamenv.training.learning import Learning
from dreamenv.training.loop_agent import Figures, LoopAgent
from dreamenv.training.loop_agents import make_loop_agent
from dreamenv.training.loop_config import TrainConfig, architecture
from dreamenv.training.ranks import Ranks
from dreamenv.training.stopping import stop_on_signal


@dataclass(frozen=True)
class _Begin:
    """Make what learns.

    Attributes:
        epochs: How many there are.
    """

    epochs: int


@dataclass(frozen=True)
class _Do:
    """Do what a method of `_Follower` does.

    Attributes:
        name: Of the method.
        arguments: Of the method.
        steps: The steps that the replay has by now.
    """

    name: str
    arguments: tuple[int, ...]
    steps: int


@dataclass(frozen=True)
class _Leave:
    """Leave.

    Attributes:
        outcome: What came of the run: its results, or the error that ended it.
    """

    outcome: object


class Lead:
    """What the first rank leads the others by; alone, it leads nobody.

    Args:
        ranks: Of which this is the first.

    Attributes:
        ranks: Those.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._is_heard = True

    @contextmanager
    def all_doing(self, order: object) -> Iterator[None]:
        """Has the others do what this one does in the context.

        Raises:
            RankError: Another rank has ended.
        """
        # Where this fails in the middle, the others wait for their part of it, and hear nothing.
        self._is_heard = False
        self.ranks.tell(order)
        yield
        self._is_heard = True

    def leave(self, outcome: object) -> None:
        """Has the others leave with what came of the run, and leaves."""
        if not self._is_heard:
            return
        self.ranks.tell(_Leave(outcome))
        self.ranks.leave()


@contextmanager
def leading(ranks: Ranks) -> Iterator[Lead]:
    """Leads the other ranks, who leave with the error that ends it."""
    lead = Lead(ranks)
    try:
        yield lead
    except DreamenvError as error:
        # If the others are lost as well, this error is still the one to tell.
        with suppress(RankError):
            lead.leave(error)
        raise


def follow(ranks: Ranks, config: TrainConfig) -> object:
    """Learns with the first rank until it leaves.

    Args:
        ranks: Of which this is another.
        config: The run's.

    Returns:
        The results that the first one left with.

    Raises:
        RankError: Another rank has ended.
        DreamenvError: The error that the first one left with, or one of this rank's own.
    """
    follower = _Follower(ranks, config)
    # Asked to stop, it goes on until the first rank, which was asked as well, has kept everything.
    with stop_on_signal():
        while not isinstance(order := ranks.hear(), _Leave):
            follower.obey(order)
        ranks.leave()
    if isinstance(order.outcome, DreamenvError):
        raise order.outcome
    return order.outcome


def check_shares(config: TrainConfig, ranks: Ranks) -> None:
    """Checks that a run can be shared by the ranks.

    Raises:
        ConfigError: The agent learns alone, or a batch cannot be cut into equal shares.
    """
    if config.real and ranks.count > 1:
        raise ConfigError(
            f"real games are learned from by one rank alone, and there are {ranks.count}; start one"
        )
    if config.agent != "diamond" and ranks.count > 1:
        raise ConfigError(
            f"agent is {config.agent!r}, which learns alone, and there are {ranks.count} ranks; "
            f"start one"
        )
    fit = config.world_model
    sizes = {
        "world_model.batch_size": fit.batch_size,
        "world_model.reward_end_batch_size": fit.reward_end_batch_size,
        "imagination.num_envs": config.imagination.num_envs,
    }
    if fit.single_step_count > 0:
        sizes["world_model.single_batch_size"] = fit.singles
    if fit.unrolled_singles > 0:
        sizes["world_model.unrolled_singles"] = fit.unrolled_singles
    for name, size in sizes.items():
        if size % ranks.count:
            raise ConfigError(
                f"{name} is {size}, and there are {ranks.count} ranks; make it a multiple of "
                f"{ranks.count}, or start another number of ranks"
            )


class LedLearning(Learning):
    """Learning that the other ranks do together with the first.

    Args:
        lead: What it leads them by.
        config: As of `Learning`, like all that follow.
        world_model: Likewise.
        agent: Likewise.
        replay: Likewise.
        device: Likewise.
        epochs: Likewise.
    """

    def __init__(
        self,
        lead: Lead,
        config: TrainConfig,
        world_model: WorldModel,
        agent: LoopAgent,
        replay: Replay,
        device: torch.device,
        epochs: int,
    ) -> None:
        self._lead = lead
        with lead.all_doing(_Begin(epochs)):
            lead.ranks.copy_first(world_model)
            super().__init__(config, world_model, agent, replay, device, epochs, lead.ranks)

    def fit_step(self) -> Figures:
        """See `Learning`."""
        with self._lead.all_doing(self._order("fit_step")):
            return super().fit_step()

    def agent_step(self) -> Figures:
        """See `Learning`."""
        with self._lead.all_doing(self._order("agent_step")):
            return super().agent_step()

    def begin_dreams(self, epoch: int) -> None:
        """See `Learning`."""
        with self._lead.all_doing(self._order("begin_dreams", epoch)):
            super().begin_dreams(epoch)

    def end_dreams(self) -> None:
        """See `Learning`."""
        with self._lead.all_doing(self._order("end_dreams")):
            super().end_dreams()

    def state_dict(self) -> dict[str, Any]:
        """See `Learning`."""
        with self._lead.all_doing(self._order("state_dict")):
            return super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Learning`. The others read the state in the checkpoint of the run."""
        with self._lead.all_doing(self._order("load_checkpoint")):
            super().load_state_dict(state)

    def _order(self, name: str, *arguments: int) -> _Do:
        return _Do(name, arguments, self._replay.num_steps)


class _Follower:
    """A rank that does as the first one says."""

    def __init__(self, ranks: Ranks, config: TrainConfig) -> None:
        self._ranks, self._config = ranks, config
        self._device = ranks.device(config.device)
        self._replay: Replay | None = None
        self._learning: Learning | None = None

    def obey(self, order: _Begin | _Do) -> None:
        """Does what the first rank does now."""
        if isinstance(order, _Begin):
            self._replay = Replay.open(self._config.run_folder.replay)
            self._learning = self._begin_to_learn(self._replay, order.epochs)
            return
        assert self._replay is not None
        assert self._learning is not None
        self._catch_up(self._replay, order.steps)
        if order.name == "load_checkpoint":
            self._load_checkpoint(self._learning)
        else:
            getattr(self._learning, order.name)(*order.arguments)

    def _begin_to_learn(self, replay: Replay, epochs: int) -> Learning:
        config, environment = self._config, replay.environment
        world_model = WorldModel(architecture(config, environment)).to(self._device)
        agent = make_loop_agent(config, environment, self._device)
        self._ranks.copy_first(world_model)
        return Learning(config, world_model, agent, replay, self._device, epochs, self._ranks)

    def _catch_up(self, replay: Replay, steps: int) -> None:
        if replay.num_steps == steps:
            return
        replay.catch_up()
        if replay.num_steps != steps:
            raise FormatError(
                f"{replay.folder} has {replay.num_steps} steps for rank {self._ranks.rank}, and "
                f"{steps} for the first; put the run on a disk that all ranks share"
            )

    def _load_checkpoint(self, learning: Learning) -> None:
        path = self._config.run_folder.checkpoint
        state = load_checkpoint(path)
        if state is None:
            raise FormatError(
                f"{path} is not there for rank {self._ranks.rank}; put the run on a disk that all "
                f"ranks share"
            )
        learning.load_state_dict(state["learning"])
