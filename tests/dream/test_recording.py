from collections.abc import Callable, Iterator
from dataclasses import fields
from unittest.mock import Mock

import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from dreamenv.dream import recording
from dreamenv.dream.contexts import Contexts
from dreamenv.dream.core import Dream
from dreamenv.dream.recording import Outcome, RecordedTransition
from dreamenv.dream.state import DreamState
from dreamenv.dream.step import DreamStep
from dreamenv.models.world_model import WorldModel

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
MODES = pytest.mark.parametrize("mode", list(AutoresetMode))


def tensors(outcome: Outcome) -> Iterator[Tensor]:
    state, step = outcome
    yield from (getattr(state, field.name) for field in fields(DreamState))
    yield from step


def record_on_a_cpu(
    run: Callable[[], Outcome], _: torch.Generator
) -> tuple[Outcome, Callable[[], None]]:
    """Does what a graph does: each playing computes anew, into the same memory."""
    outcome = run()

    def play() -> None:
        for old, new in zip(tensors(outcome), tensors(run()), strict=True):
            old.copy_(new)

    return outcome, play


def counting(state: DreamState, actions: Tensor) -> Outcome:
    after = DreamState(
        frames=state.frames + 1,
        actions=state.actions + actions[:, None],
        h=state.h + 1,
        c=state.c - 1,
        since_reward=state.since_reward - 2,
        steps=state.steps + 1,
        ended=~state.ended,
        next_context=state.next_context + 1,
    )
    obs = after.frames[:, -1].clone()
    step = DreamStep(obs, actions.float(), after.ended.clone(), state.ended.clone(), obs.clone())
    return after, step


def some_state(value: int) -> DreamState:
    return DreamState(
        frames=torch.full((2, 3, 1, 4, 4), value, dtype=torch.uint8),
        actions=torch.full((2, 3), value),
        h=torch.full((2, 5), float(value)),
        c=torch.full((2, 5), float(value)),
        since_reward=torch.full((2,), value),
        steps=torch.full((2,), value),
        ended=torch.zeros(2, dtype=torch.bool),
        next_context=torch.full((2,), value),
    )


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedTransition:
    monkeypatch.setattr(recording, "record", record_on_a_cpu)
    return RecordedTransition(counting, some_state(0), torch.zeros(2).long(), torch.Generator())


def test_a_recording_does_what_was_recorded_with_whatever_it_is_given(
    recorded: RecordedTransition,
) -> None:
    for value in (5, 9):
        state, actions = some_state(value), torch.tensor([1, value])
        given, expected = recorded(state, actions), counting(state, actions)
        pairs = zip(tensors(given), tensors(expected), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
        # What it was given is as it was.
        assert state.steps.tolist() == [value, value]


def test_what_a_recording_gives_stays_when_it_is_played_again(
    recorded: RecordedTransition,
) -> None:
    actions = torch.tensor([1, 2])
    first = recorded(some_state(1), actions)
    kept = [tensor.clone() for tensor in tensors(first)]
    recorded(some_state(7), actions)
    assert all(map(torch.equal, tensors(first), kept))


def test_it_may_be_recorded_in_inference_mode_and_played_out_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording, "record", record_on_a_cpu)
    actions = torch.tensor([1, 2])
    with torch.inference_mode():
        recorded = RecordedTransition(counting, some_state(0), actions, torch.Generator())
        recorded(some_state(1), actions)
    given, expected = recorded(some_state(5), actions), counting(some_state(5), actions)
    assert all(map(torch.equal, tensors(given), tensors(expected)))


def test_on_a_cpu_nothing_is_recorded(
    small_world: WorldModel, small_contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Mock()
    monkeypatch.setattr(recording, "record", record)
    dream = Dream(small_world, small_contexts, 2)
    dream.reset(seed=0)
    dream.step(torch.zeros(2, dtype=torch.int64))
    record.assert_not_called()


@NEEDS_CUDA
@MODES
def test_a_recorded_dream_is_bit_for_bit_the_same(
    small_world: WorldModel, small_contexts: Contexts, mode: AutoresetMode
) -> None:
    dreams = [Dream(small_world.cuda(), small_contexts, 5, horizon=4, autoreset=mode) for _ in "ab"]
    dreams[1].recorded = False
    chosen = torch.randint(small_world.config.num_actions, (20, 5), device="cuda")
    for dream in dreams:
        dream.reset(seed=3)
    for row, actions in enumerate(chosen):
        if row == 9:
            # In the middle all of it changes that a recording could have missed.
            for dream in dreams:
                dream.reset(mask=actions == 0)
                dream.restore(dream.snapshot([1]), [2])
                dream.redraw(Contexts(small_contexts.obs.flip(0), small_contexts.actions.flip(0)))
            with torch.no_grad():
                small_world.reward_end.head.get_parameter("0.bias").add_(0.5)
        steps = [dream.step(actions) for dream in dreams]
        assert all(map(torch.equal, *steps))
    states = [dream.generator.get_state() for dream in dreams]
    assert torch.equal(*states)


@NEEDS_CUDA
def test_a_recording_made_within_autocast_is_good_outside_it(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    small_world.cuda().bf16 = True
    dreams = [Dream(small_world, small_contexts, 3) for _ in "ab"]
    dreams[1].recorded = False
    actions = torch.ones(3, dtype=torch.int64, device="cuda")
    for dream in dreams:
        dream.reset(seed=0)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        for dream in dreams:
            dream.step(actions)
    torch.cuda.empty_cache()
    for _ in range(3):
        assert all(map(torch.equal, *(dream.step(actions) for dream in dreams)))


@NEEDS_CUDA
def test_a_recording_is_made_once(
    small_world: WorldModel, small_contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Mock(side_effect=recording.record)
    monkeypatch.setattr(recording, "record", record)
    dream = Dream(small_world.cuda(), small_contexts, 3)
    dream.reset(seed=0)
    for _ in range(4):
        dream.step(torch.zeros(3, dtype=torch.int64, device="cuda"))
    assert record.call_count == 1
