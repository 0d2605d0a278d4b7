import re
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from dreamenv import Contexts, WorldModel
from dreamenv.dream.bank import ContextBank
from dreamenv.dream.state import DreamState
from dreamenv.errors import InputError
from dreamenv.models.lstm import LSTMState
from dreamenv.models.reward_end import RewardEndOutput


def random_contexts(count: int, length: int, seed: int = 0) -> Contexts:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randint(0, 256, (count, length, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Contexts(obs, torch.randint(0, 3, (count, length), generator=generator))


def remembered(world_model: WorldModel, contexts: Contexts) -> LSTMState:
    """What the heads remember of each window, one window and one transition after the other."""
    states = []
    for obs, actions in zip(contexts.obs, contexts.actions, strict=True):
        state = world_model.reward_end.initial_state(1)
        for t in range(len(actions) - 1):
            before, after = obs[None, t : t + 1], obs[None, t + 1 : t + 2]
            state = world_model.reward_and_end(before, actions[None, t : t + 1], after, state).state
        states.append(state)
    return LSTMState(torch.cat([s.h for s in states]), torch.cat([s.c for s in states]))


def everything(bank: ContextBank) -> DreamState:
    return bank.begin(torch.arange(bank.size))


def assert_equal(state: DreamState, expected: DreamState) -> None:
    for field in fields(state):
        assert torch.equal(getattr(state, field.name), getattr(expected, field.name)), field.name


def assert_remembers(state: DreamState, memory: LSTMState) -> None:
    torch.testing.assert_close(state.h, memory.h)
    torch.testing.assert_close(state.c, memory.c)


def test_a_dream_begins_with_the_frames_and_actions_of_its_context(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    bank = ContextBank(small_world, small_contexts)
    assert (bank.size, bank.length) == small_contexts.actions.shape
    indices = torch.tensor([3, 0, 3, 15])
    state = bank.begin(indices)
    assert len(state) == 4
    assert torch.equal(state.frames, small_contexts.obs[indices])
    assert torch.equal(state.actions, small_contexts.actions[indices])
    assert torch.equal(state.steps, torch.zeros(4, dtype=torch.int64))
    assert torch.equal(state.ended, torch.zeros(4, dtype=torch.bool))


def test_the_types_are_the_documented_ones(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    state = everything(ContextBank(small_world, small_contexts))
    types = {field.name: getattr(state, field.name).dtype for field in fields(state)}
    assert types == {
        "frames": torch.uint8,
        "actions": torch.int64,
        "h": torch.float32,
        "c": torch.float32,
        "since_reward": torch.int64,
        "steps": torch.int64,
        "ended": torch.bool,
        "next_context": torch.int64,
    }


def test_a_dream_would_begin_anew_from_another_context(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    bank = ContextBank(small_world, small_contexts)
    following = everything(bank).next_context
    assert (following != torch.arange(bank.size)).all()
    # None is left out.
    assert torch.equal(following.sort().values, torch.arange(bank.size))


@pytest.mark.parametrize(("count", "length"), [(3, 3), (130, 3), (5, 6)])
def test_the_memory_is_that_of_heads_that_walked_along_the_window(
    small_world: WorldModel, count: int, length: int
) -> None:
    contexts = random_contexts(count, length)
    memory = remembered(small_world, contexts)
    assert len(memory.h.unique(dim=0)) == count
    assert_remembers(everything(ContextBank(small_world, contexts)), memory)


def test_on_a_cpu_what_no_dream_has_begun_at_is_not_burnt_in(
    small_world: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts, burnt_in = random_contexts(200, 3), []
    reward_and_end = small_world.reward_and_end

    def spy(obs: Tensor, actions: Tensor, next_obs: Tensor) -> RewardEndOutput:
        burnt_in.append(len(obs))
        return reward_and_end(obs, actions, next_obs)

    monkeypatch.setattr(small_world, "reward_and_end", spy)
    bank = ContextBank(small_world, contexts)
    assert not burnt_in
    first = bank.begin(torch.tensor([150, 150]))
    assert sum(burnt_in) < 50
    assert_equal(bank.begin(torch.tensor([150, 150])), first)
    assert len(burnt_in) == 1
    in_the_end = everything(bank)
    everything(bank)
    assert sum(burnt_in) == 200
    assert_equal(everything(ContextBank(small_world, contexts)), in_the_end)
    bank.redraw(contexts)
    assert sum(burnt_in) == 400
    everything(bank)
    assert sum(burnt_in) == 600
    bank.redraw(contexts)
    bank.burn_in_all()
    assert sum(burnt_in) == 800
    everything(bank)
    assert sum(burnt_in) == 800


def test_it_may_be_made_in_inference_mode_and_used_out_of_it(
    small_world: WorldModel,
) -> None:
    contexts = random_contexts(100, 3)
    expected = everything(ContextBank(small_world, contexts))
    with torch.inference_mode():
        bank = ContextBank(small_world, contexts)
        bank.begin(torch.tensor([0]))
    assert_equal(everything(bank), expected)
    with torch.inference_mode():
        assert_equal(everything(bank), expected)
    others = random_contexts(100, 3, seed=1)
    bank.redraw(others)
    assert_equal(everything(bank), everything(ContextBank(small_world, others)))


@pytest.mark.parametrize("since", [torch.arange(-8, 8), None])
def test_the_last_reward_is_that_of_the_context(
    small_world: WorldModel, small_contexts: Contexts, since: Tensor | None
) -> None:
    bank = ContextBank(small_world, replace(small_contexts, since_reward=since))
    expected = torch.zeros(16, dtype=torch.int64) if since is None else since
    assert torch.equal(everything(bank).since_reward, expected)
    bank.redraw(replace(small_contexts, since_reward=torch.arange(16)))
    assert torch.equal(everything(bank).since_reward, torch.arange(16))


def test_of_a_single_frame_nothing_is_remembered(small_world: WorldModel) -> None:
    config = small_world.config
    short = replace(config, denoiser=replace(config.denoiser, context_length=1))
    state = everything(ContextBank(WorldModel(short), random_contexts(4, 1)))
    assert state.h.shape == state.c.shape == (4, config.reward_end.lstm_dim)
    assert not state.h.any()
    assert not state.c.any()


def test_no_gradient_is_kept(small_world: WorldModel, small_contexts: Contexts) -> None:
    state = everything(ContextBank(small_world, small_contexts))
    assert not state.h.requires_grad
    assert not state.c.requires_grad


def test_the_bank_is_its_own_copy(small_world: WorldModel, small_contexts: Contexts) -> None:
    bank = ContextBank(small_world, small_contexts)
    before = everything(bank)
    small_contexts.obs.zero_()
    small_contexts.actions.zero_()
    assert_equal(everything(bank), before)


def test_what_it_gives_is_not_the_bank_s(small_world: WorldModel, small_contexts: Contexts) -> None:
    bank = ContextBank(small_world, small_contexts)
    before, given = everything(bank), everything(bank)
    for field in fields(given):
        getattr(given, field.name).fill_(1)
    assert_equal(everything(bank), before)


def test_other_contexts_take_the_place_of_these(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    bank = ContextBank(small_world, small_contexts)
    bank.redraw(random_contexts(16, 3, seed=9))
    new = random_contexts(16, 3, seed=9)
    assert_equal(everything(bank), everything(ContextBank(small_world, new)))
    assert torch.equal(everything(bank).frames, new.obs)
    assert_remembers(everything(bank), remembered(small_world, new))


def test_the_memory_is_burnt_in_anew_once_the_world_model_has_learned(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    bank = ContextBank(small_world, small_contexts)
    before = everything(bank)
    with torch.no_grad():
        for parameter in small_world.reward_end.parameters():
            parameter.add_(0.1)
    assert_equal(everything(bank), before)
    bank.redraw(small_contexts)
    assert_remembers(everything(bank), remembered(small_world, small_contexts))
    assert (everything(bank).h - before.h).abs().max() > 0.01


def test_what_was_begun_before_a_redraw_stays_as_it_was(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    bank = ContextBank(small_world, small_contexts)
    begun, same = everything(bank), everything(bank)
    bank.redraw(random_contexts(16, 3, seed=9))
    assert_equal(begun, same)


def with_action(action: int) -> Contexts:
    contexts = random_contexts(16, 3)
    contexts.actions[7, 1] = action
    return contexts


def of_shape(*shape: int) -> Contexts:
    zeros: Tensor = torch.zeros(shape, dtype=torch.uint8)
    return Contexts(zeros, torch.zeros(shape[:2], dtype=torch.int64))


UNFIT = {
    "contexts have 2 frames; the world model looks at 3: draw longer ones": of_shape(
        16, 2, 1, 8, 8
    ),
    "contexts have frames [3, 8, 8], the world model [1, 8, 8]; draw": of_shape(16, 3, 3, 8, 8),
    "contexts have frames [1, 8, 4], the world model [1, 8, 8]; draw": of_shape(16, 3, 1, 8, 4),
    "contexts have actions from 0 to 3; the world model has 3: draw": with_action(3),
    "contexts have actions from -1 to 2; the world model has 3: draw": with_action(-1),
}


@pytest.mark.parametrize(("problem", "unfit"), UNFIT.items())
def test_contexts_that_do_not_fit_are_refused(
    small_world: WorldModel, problem: str, unfit: Contexts
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(problem)}") as error:
        ContextBank(small_world, unfit)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("problem", "unfit"),
    [
        *UNFIT.items(),
        ("contexts are [15, 3]; they must be as many and as long", random_contexts(15, 3)),
        ("contexts are [17, 3]; they must be as many and as long", random_contexts(17, 3)),
        ("contexts are [16, 4]; they must be as many and as long", random_contexts(16, 4)),
    ],
)
def test_after_a_redraw_that_is_refused_the_bank_is_as_it_was(
    small_world: WorldModel, small_contexts: Contexts, problem: str, unfit: Contexts
) -> None:
    bank = ContextBank(small_world, small_contexts)
    before = everything(bank)
    with pytest.raises(InputError, match=f"^{re.escape(problem)}") as error:
        bank.redraw(unfit)
    assert "\n" not in str(error.value)
    assert_equal(everything(bank), before)
