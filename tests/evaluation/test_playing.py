from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dreamenv.dream.contexts import Contexts
from dreamenv.errors import InputError
from dreamenv.evaluation import playing
from dreamenv.evaluation.playing import PlayerRates, compare_play, count_play_steps
from dreamenv.models.reward_end import RewardEndOutput
from dreamenv.real.policy import Actions, Flags, Frames

from .counting import ENVIRONMENT, LENGTH, SHAPE, CountingWorld

HORIZON = 4


class SureWorld(CountingWorld):
    """Leaves nothing of rewards and ends to chance."""

    def reward_and_end(self, *arguments: Any) -> RewardEndOutput:
        outcomes = super().reward_and_end(*arguments)
        return outcomes._replace(
            reward_logits=100 * outcomes.reward_logits, end_logits=100 * outcomes.end_logits
        )


class Constant:
    """Takes one action for ever, and remembers where it was told that episodes start."""

    def __init__(self, action: float) -> None:
        self._action = action
        self.starts: list[Flags] = []

    def act(self, obs: Frames, starts: Flags) -> Actions:
        assert obs.dtype == np.uint8
        assert obs.shape[1:] == SHAPE
        self.starts.append(starts)
        return np.full(len(obs), self._action)


class ScriptedGame:
    """Pays 7 for action 2 and -3 for action 0; every fifth step is the last of an episode."""

    def __init__(self, count: int) -> None:
        self._count, self._steps = count, 0
        self.closed = False

    def reset(self, *, seed: int) -> tuple[Frames, dict[str, Any]]:
        assert seed == 5
        return self._frames(), {}

    def step(self, actions: Actions) -> Any:
        self._steps += 1
        rewards = np.array([-3.0, 0.0, 7.0])[actions]
        ended = np.full(self._count, self._steps % 5 == 0)
        return self._frames(), rewards, ended, np.zeros_like(ended), {}

    def close(self) -> None:
        self.closed = True

    def _frames(self) -> Frames:
        channels, height, width = SHAPE
        return np.zeros((self._count, height, width, channels), np.uint8)


@pytest.fixture
def games(monkeypatch: pytest.MonkeyPatch) -> list[ScriptedGame]:
    """The real games that were made."""
    made: list[ScriptedGame] = []

    def make(environment: object, count: int, *, training: bool) -> ScriptedGame:
        assert environment is ENVIRONMENT
        assert training  # the loss of a life is an end, as in the episodes that were learned from
        made.append(ScriptedGame(count))
        return made[-1]

    monkeypatch.setattr(playing, "make_vector", make)
    return made


def compare(world: CountingWorld, action: float, first_level: int = 0) -> PlayerRates:
    """Compares the play of one action, in dreams that begin at a level."""
    frames = torch.full((3, LENGTH, *SHAPE), first_level, dtype=torch.uint8)
    contexts = Contexts(frames, torch.zeros(3, LENGTH, dtype=torch.int64))
    players: list[Constant] = []

    def make_policy(_: object) -> Constant:
        players.append(Constant(action))
        return players[-1]

    steps: list[None] = []
    rates = compare_play(
        world.eval(),
        contexts,
        ENVIRONMENT,
        "Constant",
        make_policy,
        horizon=HORIZON,
        seed=5,
        on_step=lambda: steps.append(None),
    )
    assert len(steps) == count_play_steps(HORIZON)
    assert len(players) == 2  # what one remembers of its dreams is not of the game
    for player in players:
        assert player.starts[0].all()
    assert rates.steps == sum(map(len, players[0].starts)) == sum(map(len, players[1].starts))
    return rates


@pytest.mark.usefixtures("games")
@pytest.mark.parametrize(("action", "positive", "negative"), [(0, 0, 100), (1, 0, 0), (2, 100, 0)])
def test_rewards_count_by_their_sign(action: int, positive: float, negative: float) -> None:
    rates = compare(SureWorld(), action)
    for each in (rates.dreamt, rates.real):
        assert (each.positive.mean, each.negative.mean) == (positive, negative)


@pytest.mark.usefixtures("games")
def test_a_horizon_is_no_end() -> None:
    assert compare(SureWorld(), 1).dreamt.ends.mean == 0


@pytest.mark.usefixtures("games")
def test_predicted_ends_and_real_ones_are_told() -> None:
    # Two levels a step: the level 4 comes with the second step, and so every other one ends.
    rates = compare(SureWorld(ends=[4]), 1)
    assert rates.dreamt.ends.mean == 50
    # 32 steps, each fifth of which ends.
    assert rates.real.ends.mean == pytest.approx(100 * 6 / 32)


def test_players_are_told_where_dreams_and_games_begin_anew(games: list[ScriptedGame]) -> None:
    players: list[Constant] = []

    def make_policy(_: object) -> Constant:
        players.append(Constant(1))
        return players[-1]

    frames = torch.zeros(1, LENGTH, *SHAPE, dtype=torch.uint8)
    contexts = Contexts(frames, torch.zeros(1, LENGTH, dtype=torch.int64))
    world = SureWorld().eval()
    compare_play(world, contexts, ENVIRONMENT, "", make_policy, horizon=HORIZON, seed=5)
    dreamt, real = ([bool(each.all()) for each in player.starts] for player in players)
    assert [step for step, starts in enumerate(dreamt) if starts] == [0, HORIZON]
    assert [step for step, starts in enumerate(real) if starts] == [0, 5, 10, 15, 20, 25, 30]
    assert games[0].closed


@pytest.mark.usefixtures("games")
def test_the_dream_that_is_compared_is_the_world_models_own() -> None:
    honest, unfair = compare(SureWorld(), 2), compare(CountingWorld(), 2)
    assert honest.real == unfair.real
    assert replace(honest, dreamt=unfair.dreamt) == unfair
    # Rewards drawn from the logits 0, 0, 1: above 0 in e of e + 2 steps.
    assert unfair.dreamt.positive.mean == pytest.approx(100 * np.e / (np.e + 2), abs=10)


@pytest.mark.usefixtures("games")
@pytest.mark.parametrize(
    ("action", "message"),
    [(3, "actions are from 3 to 3"), (1.5, r"float64 \[64\]; it must return 64 integers$")],
)
def test_what_is_no_action_is_refused(action: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(SureWorld(), action)


@pytest.mark.usefixtures("games")
def test_a_dream_elsewhere_is_given_actions_whose_range_it_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Elsewhere:
        device = torch.device("meta")

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def reset(self, *, seed: int) -> torch.Tensor:  # noqa: ARG002
            return torch.zeros(64, *SHAPE, dtype=torch.uint8)

        def step(self, actions: torch.Tensor) -> None:
            raise InputError(f"they are on {actions.device}")

    monkeypatch.setattr(playing, "Dream", Elsewhere)
    with pytest.raises(InputError, match="they are on cpu"):
        compare(SureWorld(), 1)
