import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, replace
from typing import Any, NamedTuple

import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from dreamenv import Contexts, Dream, WorldModel
from dreamenv.dream.state import DreamState
from dreamenv.dream.step import DreamStep
from dreamenv.errors import ConfigError, InputError, StateError
from dreamenv.models.lstm import LSTMState
from dreamenv.models.reward_end import RewardEndOutput

SAME_STEP, NEXT_STEP = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP
DISABLED = AutoresetMode.DISABLED
MODES = pytest.mark.parametrize("mode", list(AutoresetMode))
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

Guard = Callable[[], AbstractContextManager[object]]


class Call(NamedTuple):
    """What the networks were asked in one step."""

    context: Tensor
    actions: Tensor
    options: dict[str, Any]
    obs: Tensor
    action: Tensor
    next_obs: Tensor
    memory: LSTMState
    outcome: RewardEndOutput


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Callable[[WorldModel], list[Call]]:
    """Makes a world model write down what it is asked in the steps of a dream."""

    def begin(world_model: WorldModel) -> list[Call]:
        calls: list[Call] = []
        asked: list[tuple[Tensor, Tensor, dict[str, Any]]] = []
        next_obs, reward_and_end = world_model.next_obs, world_model.reward_and_end

        def draw(context: Tensor, actions: Tensor, **options: Any) -> Tensor:
            asked.append((context.clone(), actions.clone(), options))
            return next_obs(context, actions, **options)

        def predict(
            obs: Tensor, actions: Tensor, after: Tensor, state: LSTMState
        ) -> RewardEndOutput:
            outcome = reward_and_end(obs, actions, after, state)
            calls.append(Call(*asked[-1], obs.clone(), actions, after.clone(), state, outcome))
            return outcome

        monkeypatch.setattr(world_model, "next_obs", draw)
        monkeypatch.setattr(world_model, "reward_and_end", predict)
        return calls

    return begin


def integers(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def booleans(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def draw_actions(steps: int, num_envs: int, seed: int = 0) -> Tensor:
    return torch.randint(3, (steps, num_envs), generator=torch.Generator().manual_seed(seed))


def levels(obs: Tensor) -> list[Any]:
    """The level of each frame of one level, [N] or, where frames are stacked, [N, k]."""
    frames = obs.unflatten(1, (-1, 3))
    assert (frames == frames[:, :, :1, :1, :1]).all()
    numbers: list[Any] = frames[:, :, 0, 0, 0].squeeze(1).tolist()
    return numbers


def tensors(state: DreamState) -> list[Tensor]:
    return [getattr(state, field.name) for field in fields(state)]


def assert_equal(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def play(dream: Dream, actions: Tensor) -> list[Tensor]:
    """All that comes out of the steps, and the state after them."""
    results = [tensor for row in actions for tensor in dream.step(row)]
    return [*results, *tensors(dream.snapshot())]


@contextmanager
def unchanged(dream: Dream, error: type[Exception], message: str) -> Iterator[None]:
    """Expects an error of one line, and the dream and its chance as they were before it."""
    state, chance = tensors(dream.snapshot()), dream.generator.get_state()
    bank = tensors(dream.bank.begin(torch.arange(dream.bank.size)))
    with pytest.raises(error, match=message) as raised:
        yield
    assert "\n" not in str(raised.value)
    assert_equal(tensors(dream.snapshot()), state)
    assert torch.equal(dream.generator.get_state(), chance)
    assert_equal(tensors(dream.bank.begin(torch.arange(dream.bank.size))), bank)


# What comes out.


@MODES
@pytest.mark.parametrize("frame_stack", [1, 3])
def test_what_comes_out_has_the_documented_shapes_and_types(
    world_model: WorldModel, contexts: Contexts, mode: AutoresetMode, frame_stack: int
) -> None:
    dream = Dream(world_model, contexts, 4, autoreset=mode, frame_stack=frame_stack, horizon=2)
    assert dream.obs_shape == (3 * frame_stack, 40, 40)
    obs = dream.reset(seed=0)
    for _ in range(3):
        step = dream.step(integers(0, 1, 2, 0))
        for frames in (obs, step.obs, step.final_obs, dream.obs):
            assert (frames.dtype, frames.shape) == (torch.uint8, (4, *dream.obs_shape))
        assert (step.reward.dtype, step.reward.shape) == (torch.float32, (4,))
        assert (step.terminated.dtype, step.terminated.shape) == (torch.bool, (4,))
        assert (step.truncated.dtype, step.truncated.shape) == (torch.bool, (4,))
        assert torch.equal(dream.obs, step.obs)


def test_no_gradient_is_kept(world_model: WorldModel, contexts: Contexts) -> None:
    dream = Dream(world_model, contexts, 2)
    dream.reset(seed=0)
    step = dream.step(integers(0, 1))
    assert not any(tensor.requires_grad for tensor in (*step, *tensors(dream.state)))


def test_the_arguments_can_be_read(scripted_world: WorldModel, scripted_contexts: Contexts) -> None:
    dream = Dream(scripted_world, scripted_contexts, 4, horizon=7)
    assert dream.world_model is scripted_world
    assert (dream.num_envs, dream.horizon, dream.bank.size) == (4, 7, 5)
    assert dream.device == torch.device("cpu")
    assert dream.sampler == scripted_world.config.sampler


def test_a_step_goes_where_the_world_model_says(
    scripted_world: WorldModel, scripted_contexts: Contexts
) -> None:
    dream = Dream(scripted_world, scripted_contexts, 3)
    assert levels(dream.reset(contexts=integers(0, 2, 4))) == [2, 42, 82]
    step = dream.step(integers(0, 1, 2))
    assert levels(step.obs) == levels(step.final_obs) == [3, 44, 85]
    assert step.reward.tolist() == [-1, 0, 1]
    assert not step.terminated.any()
    assert not step.truncated.any()
    step = dream.step(integers(2, 1, 0))
    assert levels(step.obs) == [6, 46, 86]
    assert step.reward.tolist() == [1, 0, -1]
    assert torch.equal(dream.state.steps, integers(2, 2, 2))


# What the networks are asked.


def long_contexts() -> Contexts:
    """Two windows of 5 frames: levels 1 to 5 and 61 to 65, actions 0, 1, 2, 0, 1 and others."""
    start = torch.tensor([1, 61])[:, None] + torch.arange(5)
    obs = start.to(torch.uint8)[..., None, None, None].expand(2, 5, 3, 40, 40)
    return Contexts(obs, torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 1, 0]]))


def test_a_frame_is_drawn_from_the_last_frames_and_the_actions_taken_at_them(
    scripted_world: WorldModel, record: Callable[[WorldModel], list[Call]]
) -> None:
    dream = Dream(scripted_world, long_contexts(), 2)
    dream.reset(seed=0, contexts=integers(0, 1))
    calls = record(scripted_world)
    for actions in (integers(0, 2), integers(1, 0), integers(0, 1)):
        dream.step(actions)
    assert [levels(call.context.flatten(1, 2)) for call in calls] == [
        [[3, 4, 5], [63, 64, 65]],
        [[4, 5, 6], [64, 65, 68]],
        [[5, 6, 8], [65, 68, 69]],
    ]
    assert [call.actions.tolist() for call in calls] == [
        [[2, 0, 0], [1, 1, 2]],
        [[0, 0, 1], [1, 2, 0]],
        [[0, 1, 0], [2, 0, 1]],
    ]


def test_after_a_restart_the_frames_and_actions_are_those_of_the_context(
    scripted_world: WorldModel, record: Callable[[WorldModel], list[Call]]
) -> None:
    only = Contexts(long_contexts().obs[:1], long_contexts().actions[:1])
    dream = Dream(scripted_world, only, 1, horizon=2)
    dream.reset(seed=0)
    calls = record(scripted_world)
    for action in (1, 2, 0, 1):
        dream.step(integers(action))
    asked = [levels(call.context.flatten(1, 2))[0] for call in calls]
    assert asked == [[3, 4, 5], [4, 5, 7], [3, 4, 5], [4, 5, 6]]
    taken = [call.actions[0].tolist() for call in calls]
    assert taken == [[2, 0, 1], [0, 1, 2], [2, 0, 0], [0, 0, 1]]


def test_the_heads_see_each_transition_and_remember_the_ones_before(
    small_world: WorldModel,
    small_contexts: Contexts,
    record: Callable[[WorldModel], list[Call]],
) -> None:
    dream = Dream(small_world, small_contexts, 3, autoreset=DISABLED)
    obs = dream.reset(seed=0, contexts=integers(5, 0, 9))
    calls = record(small_world)
    memory = LSTMState(dream.state.h, dream.state.c)
    for actions in draw_actions(4, 3):
        step = dream.step(actions)
        asked = calls[-1]
        assert torch.equal(asked.obs[:, 0], obs)
        assert torch.equal(asked.action[:, 0], actions)
        assert torch.equal(asked.obs[:, 0], asked.context[:, -1])
        going_on = ~dream.state.ended | step.terminated | step.truncated
        assert torch.equal(asked.next_obs[going_on, 0], step.obs[going_on])
        assert_equal(asked.memory, memory)
        assert_equal(
            [dream.state.h[going_on], dream.state.c[going_on]],
            [asked.outcome.state.h[going_on], asked.outcome.state.c[going_on]],
        )
        obs, memory = step.obs, LSTMState(dream.state.h, dream.state.c)


def test_frames_are_drawn_after_the_last_reward_of_the_same_dream(
    dice_world: Callable[..., WorldModel],
    dice_contexts: Contexts,
    record: Callable[[WorldModel], list[Call]],
) -> None:
    world = dice_world(rewards=(0.1, 0.8, 0.1), end=0.1)
    contexts = replace(dice_contexts, since_reward=torch.full((12,), -40))
    dream = Dream(world, contexts, 8, horizon=12)
    dream.reset(seed=1)
    calls, counted, seen = record(world), [-40] * 8, set()
    for actions in draw_actions(40, 8):
        step = dream.step(actions)
        assert calls[-1].options["since_reward"].tolist() == counted
        ended = (step.terminated | step.truncated).tolist()
        for row, reward in enumerate(step.reward.tolist()):
            sign = (counted[row] > 0) - (counted[row] < 0)
            counted[row] = -40 if ended[row] else int(reward) or counted[row] + sign
        seen.update(counted)
    assert {-40, -41, -1, -2, 1, 2} < seen


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, DISABLED])
def test_no_reward_is_remembered_from_before_a_dream_began(
    dice_world: Callable[..., WorldModel], dice_contexts: Contexts, mode: AutoresetMode
) -> None:
    world = dice_world(rewards=(0.0, 0.0, 1.0), end=0.5)
    dream = Dream(world, dice_contexts, 16, autoreset=mode)
    dream.reset(seed=0)
    ended = dream.step(draw_actions(1, 16)[0]).terminated
    assert 0 < ended.sum() < 16
    assert (dream.state.since_reward == 1).all()
    if mode is DISABLED:
        dream.reset(mask=ended)
    else:
        dream.step(draw_actions(1, 16)[0])
    assert not dream.state.since_reward[ended].any()
    assert dream.state.since_reward[~ended].all()


def test_no_more_frames_are_stacked_than_asked_for(scripted_world: WorldModel) -> None:
    for count in (1, 2, 3, 5):
        dream = Dream(scripted_world, long_contexts(), 1, frame_stack=count, autoreset=DISABLED)
        dream.reset(contexts=integers(0))
        first, after = [1, 2, 3, 4, 5], [2, 3, 4, 5, 7]
        stack = levels(dream.obs)[0]
        assert stack == (first[-count:] if count > 1 else 5)
        stack = levels(dream.step(integers(1)).obs)[0]
        assert stack == (after[-count:] if count > 1 else 7)


# Chance.


@MODES
def test_the_same_seed_and_actions_give_the_same_dream(
    world_model: WorldModel, contexts: Contexts, mode: AutoresetMode
) -> None:
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        dream = Dream(world_model, contexts, 3, horizon=4, autoreset=mode)
        results.append([dream.reset(seed=5), *play(dream, draw_actions(7, 3))])
    # Nor does what was before the seed matter.
    dream.reset(mask=booleans(0, 1, 1))
    results.append([dream.reset(seed=5), *play(dream, draw_actions(7, 3))])
    assert_equal(results[0], results[1])
    assert_equal(results[0], results[2])


def test_chance_elsewhere_is_left_alone(small_world: WorldModel, small_contexts: Contexts) -> None:
    before = torch.get_rng_state()
    dream = Dream(small_world, small_contexts, 3)
    dream.reset()
    dream.step(integers(0, 1, 2))
    dream.reset(seed=3)
    dream.step(integers(0, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_another_dream(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    one, other = (Dream(small_world, small_contexts, 8) for _ in range(2))
    assert not torch.equal(one.reset(seed=0), other.reset(seed=1))
    assert not torch.equal(one.reset(seed=0), other.reset(seed=2**32))
    # Also where both begin alike.
    start = torch.arange(8)
    assert torch.equal(one.reset(seed=0, contexts=start), other.reset(seed=1, contexts=start))
    actions = torch.zeros(8, dtype=torch.int64)
    assert not torch.equal(one.step(actions).obs, other.step(actions).obs)


def test_without_a_seed_no_two_dreams_are_alike(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    one, other = (Dream(small_world, small_contexts, 8) for _ in range(2))
    for dream in (one, other):
        dream.reset(contexts=torch.arange(8))
    actions = torch.zeros(8, dtype=torch.int64)
    assert not torch.equal(one.step(actions).obs, other.step(actions).obs)


def test_dreams_that_are_only_restored_are_not_alike_either(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    source = Dream(small_world, small_contexts, 8)
    source.reset(seed=0)
    one, other = (Dream(small_world, small_contexts, 8) for _ in range(2))
    for dream in (one, other):
        dream.restore(source.snapshot())
    actions = torch.zeros(8, dtype=torch.int64)
    assert not torch.equal(one.step(actions).obs, other.step(actions).obs)


def test_a_reset_without_a_seed_goes_on_with_the_chance_there_is(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    results = []
    for _ in range(2):
        dream = Dream(small_world, small_contexts, 3)
        dream.reset(seed=5)
        play(dream, draw_actions(3, 3))
        results.append([dream.reset(), *play(dream, draw_actions(3, 3))])
    assert_equal(*results)


def test_dreams_begin_at_all_contexts_about_equally_often(
    scripted_world: WorldModel, scripted_contexts: Contexts
) -> None:
    dream = Dream(scripted_world, scripted_contexts, 500, horizon=1)
    for obs in (
        dream.reset(seed=0),
        dream.reset(seed=1),
        dream.step(torch.zeros(500, dtype=torch.int64)).obs,
    ):
        start = torch.tensor(levels(obs)) // 20
        per_context = torch.bincount(start, minlength=5)
        # Each 100 times expected, with a standard deviation of 9.
        assert ((per_context > 55) & (per_context < 145)).all()


def test_what_is_restarted_together_does_not_begin_alike(
    dice_world: Callable[..., WorldModel], dice_contexts: Contexts
) -> None:
    """Where a dream begins tells nothing of where its neighbour, or its next one, does."""
    dream = Dream(dice_world(), dice_contexts, 64, horizon=1)
    dream.reset(seed=0)
    starts = torch.stack(
        [context_of(dream.step(actions).obs, dice_contexts) for actions in draw_actions(60, 64)]
    )
    for shift in (starts[:, 1:] - starts[:, :-1], starts[1:] - starts[:-1]):
        share = torch.bincount((shift % 12).flatten(), minlength=12) / shift.numel()
        # 1/12 expected, with a standard deviation of 0.0045.
        assert (share - 1 / 12).abs().max() < 0.025


def context_of(obs: Tensor, contexts: Contexts) -> Tensor:
    """The number of the context that each observation is the last frame of."""
    equal = (obs[:, None] == contexts.obs[None, :, -1]).flatten(2).all(dim=2)
    assert (equal.sum(dim=1) == 1).all()
    return equal.long().argmax(dim=1)


# Rewards and ends.


def outcomes(dream: Dream, steps: int) -> tuple[Tensor, Tensor]:
    dream.reset(seed=0)
    results = [dream.step(actions) for actions in draw_actions(steps, dream.num_envs)]
    reward = torch.stack([step.reward for step in results])
    return reward, torch.stack([step.terminated for step in results])


def test_rewards_and_ends_are_drawn_from_their_distributions(
    dice_world: Callable[..., WorldModel], dice_contexts: Contexts
) -> None:
    dream = Dream(dice_world(rewards=(0.2, 0.5, 0.3), end=0.25), dice_contexts, 64)
    reward, ended = outcomes(dream, 150)
    # Of 9600 draws; the largest standard deviation is 0.005.
    for value, probability in ((-1, 0.2), (0, 0.5), (1, 0.3)):
        share = (reward == value).float().mean()
        assert abs(share - probability) < 0.025
        # One tells nothing of the other.
        both = ((reward == value) & ended).float().mean()
        assert abs(both - 0.25 * probability) < 0.025
    assert abs(ended.float().mean() - 0.25) < 0.025
    # Nor do neighbours, nor the step before.
    for one, other in ((ended[:, 1:], ended[:, :-1]), (ended[1:], ended[:-1])):
        assert abs((one & other).float().mean() - 0.0625) < 0.015


@pytest.mark.parametrize(
    ("rewards", "end", "expected"),
    [
        ((0.2, 0.5, 0.3), 0.49, (0, False)),
        ((0.4, 0.3, 0.3), 0.51, (-1, True)),
        ((0.3, 0.3, 0.4), 0.01, (1, False)),
    ],
)
def test_the_likeliest_outcomes_are_taken_if_asked_for(
    dice_world: Callable[..., WorldModel],
    dice_contexts: Contexts,
    rewards: tuple[float, ...],
    end: float,
    expected: tuple[int, bool],
) -> None:
    world_model = dice_world(rewards=rewards, end=end)
    dream = Dream(world_model, dice_contexts, 16, sample_outcomes=False, autoreset=SAME_STEP)
    reward, ended = outcomes(dream, 20)
    assert set(zip(reward.flatten().tolist(), ended.flatten().tolist(), strict=True)) == {expected}


# Ends and restarts.


def test_a_predicted_end_terminates_and_the_dream_begins_anew_within_the_step(
    scripted_world: WorldModel, scripted_contexts: Contexts
) -> None:
    dream = Dream(scripted_world, scripted_contexts, 2, frame_stack=3)
    dream.reset(seed=0, contexts=integers(0, 1))
    for _ in range(2):
        step = dream.step(integers(2, 0))
        assert not step.terminated.any()
    step = dream.step(integers(2, 0))  # 2, 5, 8, 11; and 22 to 25
    assert step.terminated.tolist() == [True, False]
    assert not step.truncated.any()
    assert step.reward.tolist() == [1, -1]
    assert levels(step.final_obs) == [[5, 8, 11], [23, 24, 25]]
    start = levels(step.obs)[0]
    assert start in [[20 * k, 20 * k + 1, 20 * k + 2] for k in range(5)]
    assert levels(step.obs)[1] == [23, 24, 25]
    assert dream.state.steps.tolist() == [0, 3]
    # Its memory is that of the context: no action was taken in it.
    assert dream.state.h[:, 0].tolist() == [0, 0]
    after = dream.step(integers(1, 0))
    assert levels(after.obs)[0] == [*start[1:], start[-1] + 2]
    assert dream.state.h[0, 0] == 1


def test_the_horizon_truncates(scripted_world: WorldModel, scripted_contexts: Contexts) -> None:
    dream = Dream(scripted_world, scripted_contexts, 1, horizon=3)
    dream.reset(seed=0, contexts=integers(0))
    steps = [dream.step(integers(0)) for _ in range(6)]
    assert [bool(step.truncated) for step in steps] == 2 * [False, False, True]
    assert not any(step.terminated for step in steps)
    assert levels(steps[2].final_obs) == [5]
    assert levels(steps[2].obs)[0] % 20 == 2
    assert levels(steps[3].obs)[0] == levels(steps[2].obs)[0] + 1


def test_a_dream_can_be_terminated_in_the_very_step_that_truncates_it(
    scripted_world: WorldModel, scripted_contexts: Contexts
) -> None:
    dream = Dream(scripted_world, scripted_contexts, 2, horizon=4)
    dream.reset(seed=0, contexts=integers(0, 0))
    for _ in range(4):
        step = dream.step(integers(1, 0))
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [True, True]


@pytest.mark.parametrize("horizon", [None, 50])
def test_without_a_horizon_nothing_is_truncated(
    dice_world: Callable[..., WorldModel], dice_contexts: Contexts, horizon: int | None
) -> None:
    world_model = dice_world(end=0.0)
    dream = (
        Dream(world_model, dice_contexts, 2, horizon=None)
        if horizon is None
        else Dream(world_model, dice_contexts, 2)
    )
    dream.reset(seed=0)
    truncated = [step.truncated.any().item() for step in map(dream.step, draw_actions(150, 2))]
    assert [t + 1 for t, is_truncated in enumerate(truncated) if is_truncated] == (
        [] if horizon is None else [50, 100, 150]
    )


def test_in_the_next_step_an_ended_dream_begins_anew_whatever_its_action(
    scripted_world: WorldModel, scripted_contexts: Contexts
) -> None:
    dream = Dream(scripted_world, scripted_contexts, 2, horizon=2, autoreset=NEXT_STEP)
    dream.reset(seed=0, contexts=integers(0, 3))
    dream.step(integers(0, 0))
    dream.restore(replace(dream.snapshot(), steps=integers(1, 0)))
    last = dream.step(integers(2, 1))
    assert last.truncated.tolist() == [True, False]
    assert levels(last.obs) == levels(last.final_obs) == [6, 65]
    assert dream.state.ended.tolist() == [True, False]
    futures = []
    for action in (0, 2):
        before = dream.snapshot(), dream.generator.get_state()
        step = dream.step(integers(action, 1))
        assert step.reward.tolist() == [0, 0]
        assert step.terminated.tolist() == [False, False]
        assert step.truncated.tolist() == [False, True]
        assert levels(step.obs)[0] % 20 == 2
        assert levels(step.obs)[1] == 67
        assert dream.state.steps.tolist() == [0, 2]
        assert dream.state.ended.tolist() == [False, True]
        futures.append([*step, *tensors(dream.snapshot())])
        dream.restore(before[0])
        dream.generator.set_state(before[1])
    assert_equal(*futures)


def test_without_autoreset_an_ended_dream_stands_still_until_it_is_reset(
    scripted_world: WorldModel, scripted_contexts: Contexts
) -> None:
    dream = Dream(scripted_world, scripted_contexts, 2, horizon=4, autoreset=DISABLED)
    dream.reset(seed=0, contexts=integers(0, 3))
    for _ in range(3):
        step = dream.step(integers(2, 0))
    assert step.terminated.tolist() == [True, False]
    assert levels(step.obs) == levels(step.final_obs) == [11, 65]
    still = tensors(dream.snapshot([0]))
    for level, truncated in ((67, True), (67, False), (67, False)):
        step = dream.step(integers(1, 1))
        assert levels(step.obs) == levels(step.final_obs) == [11, level]
        assert step.reward.tolist() == [0, 0]
        assert not step.terminated.any()
        assert step.truncated.tolist() == [False, truncated]
        assert_equal(tensors(dream.snapshot([0])), still)
    obs = dream.reset(mask=booleans(1, 0))
    assert levels(obs)[0] % 20 == 2
    assert levels(obs)[1] == 67
    assert dream.state.ended.tolist() == [False, True]
    assert levels(dream.step(integers(0, 0)).obs) == [levels(obs)[0] + 1, 67]
    dream.reset()
    assert not dream.state.ended.any()


def test_a_reset_by_mask_gives_the_dream_that_same_step_gives(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    """Chance does not depend on the mode."""
    same_step = Dream(small_world, small_contexts, 6, horizon=9)
    by_mask = Dream(small_world, small_contexts, 6, horizon=9, autoreset=DISABLED)
    assert torch.equal(same_step.reset(seed=3), by_mask.reset(seed=3))
    ends: list[Tensor] = []
    for actions in draw_actions(80, 6):
        step, other = same_step.step(actions), by_mask.step(actions)
        assert_equal(step[1:], other[1:])
        ended = other.terminated | other.truncated
        assert torch.equal(step.obs, by_mask.reset(mask=ended))
        assert_equal(tensors(same_step.state), tensors(by_mask.state))
        ends += [other.terminated, other.truncated]
    assert torch.stack(ends[::2]).sum() > 5
    assert torch.stack(ends[1::2]).sum() > 5


def test_a_reset_by_mask_a_step_late_gives_the_dream_that_next_step_gives(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    next_step = Dream(small_world, small_contexts, 6, horizon=9, autoreset=NEXT_STEP)
    by_mask = Dream(small_world, small_contexts, 6, horizon=9, autoreset=DISABLED)
    assert torch.equal(next_step.reset(seed=3), by_mask.reset(seed=3))
    ended, ends = torch.zeros(6, dtype=torch.bool), 0
    for actions in draw_actions(80, 6):
        step, other = next_step.step(actions), by_mask.step(actions)
        assert_equal(step[1:4], other[1:4])
        assert torch.equal(step.obs, step.final_obs)
        assert torch.equal(step.obs, by_mask.reset(mask=ended))
        assert_equal(tensors(next_step.state), tensors(by_mask.state))
        ended = other.terminated | other.truncated
        ends += int(ended.sum())
    assert ends > 10


@MODES
def test_a_restart_begins_with_real_history(
    world_model: WorldModel, contexts: Contexts, mode: AutoresetMode
) -> None:
    dream = Dream(world_model, contexts, 4, horizon=1, autoreset=mode, frame_stack=3)
    obs = dream.reset(seed=0)
    windows = contexts.obs.flatten(1, 2)
    for _ in range(3):
        assert all((windows == row).flatten(1).all(dim=1).any() for row in obs)
        obs = dream.step(integers(0, 1, 2, 0)).obs
        if mode is NEXT_STEP:
            obs = dream.step(integers(0, 1, 2, 0)).obs
        if mode is DISABLED:
            obs = dream.reset(mask=booleans(1, 1, 1, 1))


# Resets.


def test_only_the_dreams_of_the_mask_begin_anew(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    dream = Dream(small_world, small_contexts, 4, autoreset=DISABLED)
    dream.reset(seed=0)
    play(dream, draw_actions(3, 4))
    before = dream.snapshot()
    obs = dream.reset(mask=booleans(0, 1, 0, 1), contexts=integers(7, 7, 8, 8))
    assert_equal(tensors(dream.snapshot([0, 2])), tensors(before.rows(integers(0, 2))))
    begun = dream.bank.begin(integers(7, 8))
    assert_equal(tensors(dream.snapshot([1, 3])), tensors(begun))
    assert torch.equal(obs[:, 0], dream.state.frames[:, -1, 0])
    assert torch.equal(obs[1], small_contexts.obs[7, -1])


def test_a_mask_of_none_resets_none(small_world: WorldModel, small_contexts: Contexts) -> None:
    dream = Dream(small_world, small_contexts, 2)
    dream.reset(seed=0)
    dream.step(integers(0, 1))
    before = dream.snapshot()
    assert torch.equal(dream.reset(mask=booleans(0, 0)), before.frames[:, -1])
    assert_equal(tensors(dream.snapshot()), tensors(before))


def test_dreams_begin_from_the_contexts_asked_for(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    dream = Dream(small_world, small_contexts, 3)
    obs = dream.reset(contexts=integers(4, 0, 4))
    assert torch.equal(obs, small_contexts.obs[[4, 0, 4], -1])
    dream.step(integers(0, 1, 2))
    assert torch.equal(
        dream.reset(seed=1, contexts=integers(15, 1, 2)), small_contexts.obs[[15, 1, 2], -1]
    )


def test_a_reset_right_after_a_reset_begins_elsewhere(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    dream = Dream(small_world, small_contexts, 1)
    starts = [dream.reset(seed=0), *(dream.reset() for _ in range(15))]
    found = {bytes(obs.numpy().tobytes()) for obs in starts}
    assert len(found) > 5
    windows = {bytes(frame.numpy().tobytes()) for frame in small_contexts.obs[:, -1]}
    assert found <= windows
    assert dream.state.steps.tolist() == [0]


def test_a_single_context_is_enough(
    scripted_world: WorldModel, scripted_contexts: Contexts
) -> None:
    only = Contexts(scripted_contexts.obs[:1], scripted_contexts.actions[:1])
    dream = Dream(scripted_world, only, 2, horizon=1)
    assert levels(dream.reset()) == levels(dream.reset()) == [2, 2]
    assert levels(dream.step(integers(0, 1)).obs) == [2, 2]


# Denoising.


def test_frames_are_drawn_with_the_noise_levels_of_the_world_model(
    small_world: WorldModel,
    small_contexts: Contexts,
    record: Callable[[WorldModel], list[Call]],
) -> None:
    dream = Dream(small_world, small_contexts, 2)
    dream.reset(seed=0)
    calls = record(small_world)
    dream.step(integers(0, 1))
    sampler = calls[0].options["sampler"] or small_world.config.sampler
    assert sampler == small_world.config.sampler
    assert calls[0].options["generator"] is dream.generator


@pytest.mark.parametrize(
    ("denoising_steps", "expected"), [(1, 1), (3, 3), ([4.0, 0.5], [4.0, 0.5]), ((2, 1), [2, 1])]
)
def test_the_noise_levels_can_be_chosen(
    small_world: WorldModel,
    small_contexts: Contexts,
    record: Callable[[WorldModel], list[Call]],
    denoising_steps: int | Sequence[float],
    expected: int | list[float],
) -> None:
    dream = Dream(small_world, small_contexts, 2, denoising_steps=denoising_steps)
    dream.reset(seed=0)
    calls = record(small_world)
    dream.step(integers(0, 1))
    sampler = calls[0].options["sampler"]
    assert sampler == dream.sampler
    *noisy, last = sampler.levels
    assert last == 0
    assert (len(noisy) if isinstance(expected, int) else noisy) == expected
    # The rest stays as the world model has it.
    own = small_world.config.sampler
    assert replace(sampler, num_steps=own.num_steps, sigmas=own.sigmas) == own


def test_other_noise_levels_give_other_frames(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    frames = []
    for steps in (None, 3, [4.0, 0.5]):
        dream = Dream(small_world, small_contexts, 2, denoising_steps=steps)
        dream.reset(seed=0)
        frames.append(dream.step(integers(0, 1)).final_obs)
    assert not torch.equal(frames[0], frames[1])
    assert not torch.equal(frames[0], frames[2])
    assert not torch.equal(frames[1], frames[2])


def trained_at_its_start(world: WorldModel, share: float) -> WorldModel:
    denoiser = replace(world.config.denoiser, start_share=share, sigma_max=20.0)
    return WorldModel(replace(world.config, denoiser=denoiser))


def test_noise_levels_that_were_never_trained_are_warned_of(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    world = trained_at_its_start(small_world, 1.0)
    with pytest.warns(UserWarning, match=r"levels 20, 0\.5, but .* trained at 20 alone"):
        Dream(world, small_contexts, 2, denoising_steps=[20.0, 0.5])


@pytest.mark.filterwarnings("error")
def test_noise_levels_that_were_trained_are_not_warned_of(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    world = trained_at_its_start(small_world, 1.0)
    Dream(world, small_contexts, 2)
    Dream(world, small_contexts, 2, denoising_steps=[20.0])
    Dream(trained_at_its_start(small_world, 0.9), small_contexts, 2, denoising_steps=[20.0, 0.5])


# Snapshots.


def begun(dream: Dream) -> Dream:
    dream.reset(seed=0)
    play(dream, draw_actions(3, dream.num_envs, seed=7))
    return dream


@MODES
def test_a_restored_dream_has_the_future_it_had(
    small_world: WorldModel, small_contexts: Contexts, mode: AutoresetMode
) -> None:
    dream = begun(Dream(small_world, small_contexts, 4, horizon=5, autoreset=mode))
    state, chance = dream.snapshot(), dream.generator.get_state()
    obs, future = dream.obs, play(dream, draw_actions(8, 4))
    assert torch.equal(dream.restore(state), obs)
    dream.generator.set_state(chance)
    assert_equal(play(dream, draw_actions(8, 4)), future)
    # So does another dream of the same contexts.
    other = Dream(small_world, small_contexts, 4, horizon=5, autoreset=mode)
    assert torch.equal(other.restore(state), obs)
    other.generator.set_state(chance)
    assert_equal(play(other, draw_actions(8, 4)), future)


def test_a_restored_dream_goes_on_with_other_chance(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    dream = begun(Dream(small_world, small_contexts, 4))
    state = dream.snapshot()
    obs = dream.step(integers(0, 1, 2, 0)).final_obs
    dream.restore(state)
    assert not torch.equal(dream.step(integers(0, 1, 2, 0)).final_obs, obs)


@pytest.mark.parametrize("indices", [[2, 0], [1], [3, 3, 0], torch.tensor([0, 3]), range(2)])
def test_a_snapshot_is_of_the_dreams_asked_for(
    small_world: WorldModel, small_contexts: Contexts, indices: Sequence[int] | Tensor
) -> None:
    dream = begun(Dream(small_world, small_contexts, 4, autoreset=DISABLED))
    rows = torch.tensor(list(indices))
    assert_equal(tensors(dream.snapshot(indices)), [t[rows] for t in tensors(dream.state)])
    assert_equal(tensors(dream.snapshot()), tensors(dream.state))


def test_states_are_put_where_the_indices_say(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    dream = begun(Dream(small_world, small_contexts, 4))
    before = dream.snapshot()
    obs = dream.restore(dream.snapshot([1, 2]), indices=[3, 0])
    assert_equal(tensors(dream.snapshot()), tensors(before.rows(integers(2, 1, 2, 1))))
    assert torch.equal(obs, dream.obs)
    assert torch.equal(obs, before.frames[[2, 1, 2, 1], -1])


def test_one_state_branches_into_many(small_world: WorldModel, small_contexts: Contexts) -> None:
    dream = begun(Dream(small_world, small_contexts, 5, autoreset=DISABLED))
    before = dream.snapshot()
    dream.restore(dream.snapshot([2]))
    assert_equal(tensors(dream.snapshot()), tensors(before.rows(integers(2, 2, 2, 2, 2))))
    # Each has its own chance, and so its own future.
    frames = dream.step(torch.zeros(5, dtype=torch.int64)).final_obs
    assert len(frames.unique(dim=0)) == 5
    dream.restore(before)
    dream.restore(dream.snapshot([4]), indices=[0, 1])
    assert_equal(tensors(dream.snapshot()), tensors(before.rows(integers(4, 4, 2, 3, 4))))


def test_one_state_branches_into_a_dream_of_any_number(
    scripted_world: WorldModel, scripted_contexts: Contexts
) -> None:
    one = Dream(scripted_world, scripted_contexts, 1)
    one.reset(contexts=integers(3))
    one.step(integers(2))
    many = Dream(scripted_world, scripted_contexts, 3)
    assert levels(many.restore(one.snapshot())) == [65, 65, 65]
    step = many.step(integers(0, 1, 2))
    assert levels(step.obs) == [66, 67, 68]
    assert many.state.h[:, 0].tolist() == [2, 3, 4]
    assert levels(one.obs) == [65]


def test_an_ended_dream_is_restored_as_one(
    scripted_world: WorldModel, scripted_contexts: Contexts
) -> None:
    dream = Dream(scripted_world, scripted_contexts, 1, horizon=1, autoreset=DISABLED)
    dream.reset(contexts=integers(0))
    dream.step(integers(0))
    state = dream.snapshot()
    dream.reset()
    dream.restore(state)
    assert levels(dream.step(integers(0)).obs) == [3]


@MODES
def test_nothing_that_came_out_is_written_to_later(
    small_world: WorldModel, small_contexts: Contexts, mode: AutoresetMode
) -> None:
    dream = Dream(small_world, small_contexts, 3, horizon=3, autoreset=mode)
    kept: list[Tensor] = []
    kept += [dream.reset(seed=0), dream.obs, *tensors(dream.snapshot())]
    for actions in draw_actions(3, 3):
        kept += dream.step(actions)
    kept += [*tensors(dream.snapshot()), *tensors(dream.snapshot([1]))]
    kept += [dream.restore(dream.snapshot([1]), indices=[0]), dream.reset(mask=booleans(1, 0, 0))]
    copies = [tensor.clone() for tensor in kept]
    play(dream, draw_actions(4, 3))
    dream.redraw(Contexts(small_contexts.obs.flip(0), small_contexts.actions.flip(0)))
    dream.reset()
    assert_equal(kept, copies)


@MODES
@pytest.mark.parametrize("frame_stack", [1, 3])
def test_nothing_that_came_out_or_went_in_is_the_dream_s_own(
    small_world: WorldModel, small_contexts: Contexts, mode: AutoresetMode, frame_stack: int
) -> None:
    """One of two dreams is written into by all doors: they go on alike."""

    def dreamt(spoil: Callable[[Tensor], Any]) -> list[Tensor]:
        contexts = Contexts(small_contexts.obs.clone(), small_contexts.actions.clone())
        dream = Dream(small_world, contexts, 3, horizon=3, autoreset=mode, frame_stack=frame_stack)
        for tensor in (contexts.obs, contexts.actions):
            spoil(tensor)
        chosen = integers(3, 4, 5)
        results: list[Tensor] = []

        def note(*tensors_out: Tensor) -> None:
            for tensor in tensors_out:
                results.append(tensor.clone())
                spoil(tensor)

        note(dream.reset(seed=0, contexts=chosen))
        spoil(chosen)
        for _ in range(4):
            actions = integers(0, 1, 2)
            note(*dream.step(actions), dream.obs)
            spoil(actions)
        note(*tensors(dream.snapshot()), *tensors(dream.snapshot([0, 1])))
        for indices in (None, [0, 1, 2], [2]):
            state = dream.snapshot(indices)
            note(dream.restore(state, indices))
            for tensor in tensors(state):
                spoil(tensor)
            note(*dream.step(integers(0, 0, 1)))
        mask = booleans(1, 0, 1)
        note(dream.reset(mask=mask))
        spoil(mask)
        new = Contexts(small_contexts.obs.flip(0), small_contexts.actions.flip(0))
        dream.redraw(new)
        for tensor in (new.obs, new.actions):
            spoil(tensor)
        note(dream.reset(), *dream.step(integers(0, 0, 1)), *tensors(dream.snapshot()))
        return results

    assert_equal(dreamt(torch.clone), dreamt(lambda tensor: tensor.fill_(1)))


# Redrawing.


def test_after_a_redraw_dreams_go_on_and_new_ones_begin_in_the_new_contexts(
    scripted_world: WorldModel, scripted_contexts: Contexts
) -> None:
    dream = Dream(scripted_world, scripted_contexts, 2, horizon=2)
    dream.reset(seed=0, contexts=integers(0, 3))
    dream.step(integers(0, 0))
    before = dream.snapshot()
    dream.redraw(Contexts(scripted_contexts.obs + 100, scripted_contexts.actions + 1))
    assert_equal(tensors(dream.snapshot()), tensors(before))
    step = dream.step(integers(0, 0))
    assert levels(step.final_obs) == [4, 64]
    starts = levels(step.obs)
    assert all(start in (102, 122, 142, 162, 182) for start in starts)
    # Two actions of the new contexts are remembered, each of them 1.
    assert dream.state.h[:, 0].tolist() == [2, 2]
    assert dream.state.actions[:, :2].tolist() == [[1, 1], [1, 1]]
    assert levels(dream.reset(contexts=integers(1, 4))) == [122, 182]


def test_after_the_world_model_has_learned_new_dreams_begin_with_its_new_memory(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    dream = Dream(small_world, small_contexts, 4)
    start = torch.arange(4)
    dream.reset(contexts=start)
    old = dream.snapshot()
    with torch.no_grad():
        for parameter in small_world.parameters():
            parameter.add_(0.1)
    dream.redraw(small_contexts)
    assert_equal(tensors(dream.snapshot()), tensors(old))
    dream.reset(contexts=start)
    obs, actions = small_contexts.obs[:4], small_contexts.actions[:4]
    memory = small_world.reward_end.initial_state(4)
    for t in range(2):
        window = obs[:, t : t + 1], actions[:, t : t + 1], obs[:, t + 1 : t + 2]
        memory = small_world.reward_and_end(*window, memory).state
    torch.testing.assert_close(dream.state.h, memory.h)
    torch.testing.assert_close(dream.state.c, memory.c)
    assert (dream.state.h - old.h).abs().max() > 0.01


# Compiling.


def test_a_compiled_dream_dreams_the_same(
    small_world: WorldModel, small_contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []

    def compile_(network: Any, **_: Any) -> Any:
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    plain = Dream(small_world, small_contexts, 3)
    assert not compiled
    dream = Dream(small_world, small_contexts, 3, compile=True)
    denoiser = small_world.denoiser
    assert compiled == [denoiser, denoiser.modulate, small_world.reward_end]
    assert dream.world_model is small_world
    plain.reset(seed=0)
    dream.reset(seed=0)
    for actions in draw_actions(4, 3):
        assert_equal([*dream.step(actions)], [*plain.step(actions)])


# Waiting.


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: bool(x.any()),
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.multinomial(x, 1),
        lambda x: x.index_put_((x > 0,), torch.ones(())),
        lambda x: torch.equal(x, x),
    ],
)
def test_waiting_is_noticed(no_waiting: Guard, waiting: Callable[[Tensor], object]) -> None:
    with pytest.raises(AssertionError, match="waits for the device"), no_waiting():
        waiting(torch.ones(3))


@MODES
def test_no_step_waits_for_the_device(
    no_waiting: Guard, small_world: WorldModel, small_contexts: Contexts, mode: AutoresetMode
) -> None:
    dream = Dream(small_world, small_contexts, 4, horizon=2, autoreset=mode, frame_stack=2)
    dream.reset(seed=0)
    for actions in draw_actions(3, 4):
        with no_waiting():
            dream.step(actions)
            # Nor does what a caller begins anew, from where it says.
            dream.reset(mask=actions == 0, contexts=actions)


@NEEDS_CUDA
@MODES
def test_no_step_waits_for_a_gpu(
    small_world: WorldModel, small_contexts: Contexts, mode: AutoresetMode
) -> None:
    dream = Dream(small_world.cuda(), small_contexts, 4, horizon=2, autoreset=mode, frame_stack=2)
    dream.reset(seed=0)
    # Libraries set themselves up in the first steps.
    actions = draw_actions(8, 4).cuda()
    for row in actions[:4]:
        dream.step(row)
    try:
        torch.cuda.set_sync_debug_mode("error")
        for row in actions[4:]:
            dream.step(row)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Bad input.


@pytest.fixture
def dream(small_world: WorldModel, small_contexts: Contexts) -> Dream:
    """Four dreams that have begun, one of them ended."""
    dream = Dream(small_world, small_contexts, 4, autoreset=DISABLED)
    dream.reset(seed=0)
    dream.step(integers(0, 1, 2, 0))
    dream.restore(replace(dream.snapshot(), ended=booleans(0, 1, 0, 0)))
    return dream


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        (integers(0, 1, 2, 3), "actions are from 0 to 3; they must be from 0 to 2"),
        (integers(0, -1, 2, 2), "actions are from -1 to 2; they must be from 0 to 2"),
        (integers(0, 1, 2), "actions is torch.int64 [3]; it must be torch.int64 [4]"),
        (integers(0, 1, 2, 0, 1), "actions is torch.int64 [5]; it must be torch.int64 [4]"),
        (integers(0, 1, 2, 0)[:, None], "actions is torch.int64 [4, 1]; it must be"),
        (torch.tensor(0), "actions is torch.int64 []; it must be torch.int64 [4]"),
        (torch.zeros(4), "actions is torch.float32 [4]; it must be torch.int64 [4]"),
        (torch.zeros(4, dtype=torch.int32), "actions is torch.int32 [4]; it must be"),
        (booleans(0, 1, 1, 0), "actions is torch.bool [4]; it must be torch.int64 [4]"),
    ],
)
def test_actions_of_another_type_shape_or_range_are_refused(
    dream: Dream, actions: Tensor, problem: str
) -> None:
    with unchanged(dream, InputError, f"^{re.escape(problem)}"):
        dream.step(actions)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"mask": booleans(0, 1, 1)}, "mask is torch.bool [3]; it must be torch.bool [4]"),
        ({"mask": integers(0, 1, 1, 0)}, "mask is torch.int64 [4]; it must be torch.bool [4]"),
        ({"mask": booleans(0, 1, 1, 0)[None]}, "mask is torch.bool [1, 4]; it must be"),
        ({"mask": booleans(0, 1, 1, 0), "seed": 0}, "a seed and a mask are given; one generator"),
        ({"contexts": integers(0, 1, 2)}, "contexts is torch.int64 [3]; it must be torch.int64"),
        ({"contexts": torch.zeros(4)}, "contexts is torch.float32 [4]; it must be torch.int64 [4]"),
        ({"contexts": integers(0, 1, 2, 16)}, "contexts are from 0 to 16; they must be from 0"),
        ({"contexts": integers(-1, 1, 2, 0)}, "contexts are from -1 to 2; they must be from 0 to"),
        ({"contexts": integers(0, 16, 0, 0), "seed": 1}, "contexts are from 0 to 16; they must"),
        (
            {"contexts": integers(0, 16, 0, 0), "mask": booleans(0, 1, 0, 0)},
            "contexts are from 0 to 16; they must be from 0 to 15",
        ),
    ],
)
def test_a_reset_that_cannot_be_is_refused(
    dream: Dream, arguments: dict[str, Any], problem: str
) -> None:
    with unchanged(dream, InputError, f"^{re.escape(problem)}"):
        dream.reset(**arguments)


@pytest.mark.parametrize(
    ("indices", "problem"),
    [
        ([0, 4], "indices are from 0 to 4; they must be from 0 to 3"),
        ([-1, 0], "indices are from -1 to 0; they must be from 0 to 3"),
        ([0.5], "indices is torch.float32 [1]; it must be torch.int64 [1]"),
        (booleans(0, 1, 1, 0), "indices is torch.bool [4]; it must be torch.int64 [4]"),
        (integers(0, 1)[None], "indices is torch.int64 [1, 2]; it must be torch.int64 [2]"),
        (torch.tensor(2), "indices is torch.int64 []; it must be torch.int64 [1]"),
    ],
)
def test_dreams_that_are_not_there_are_refused(dream: Dream, indices: Any, problem: str) -> None:
    with unchanged(dream, InputError, f"^{re.escape(problem)}"):
        dream.snapshot(indices)
    state = dream.snapshot([0])
    with unchanged(dream, InputError, f"^{re.escape(problem)}"):
        dream.restore(state, indices)


def test_a_state_of_another_number_of_dreams_is_refused(dream: Dream) -> None:
    state = dream.snapshot([0, 1, 2])
    with unchanged(dream, InputError, "^the state is of 3 dreams; it must be of 1 or 4$"):
        dream.restore(state)
    with unchanged(dream, InputError, "^the state is of 3 dreams; it must be of 1 or 2$"):
        dream.restore(state, [0, 1])


def test_a_state_of_other_frames_is_refused(
    dream: Dream, dice_world: Callable[..., WorldModel], dice_contexts: Contexts
) -> None:
    other = Dream(dice_world(), dice_contexts, 4)
    other.reset()
    with unchanged(
        dream,
        InputError,
        r"^the state has .* \[3, 1, 2, 2\] and a memory .* \[8\], this",
    ):
        dream.restore(other.snapshot())


def test_a_state_of_another_memory_is_refused(
    dream: Dream, small_world: WorldModel, small_contexts: Contexts
) -> None:
    config = small_world.config
    large = replace(config, reward_end=replace(config.reward_end, lstm_dim=9))
    other = Dream(WorldModel(large), small_contexts, 4)
    other.reset()
    with unchanged(dream, InputError, r"^the state has frames .* and a memory .* \[9\], this"):
        dream.restore(other.snapshot(), [1, 2, 3, 0])


def test_a_state_of_longer_contexts_is_refused(
    dream: Dream, small_world: WorldModel, small_contexts: Contexts
) -> None:
    longer = Contexts(small_contexts.obs.repeat(1, 2, 1, 1, 1), small_contexts.actions.repeat(1, 2))
    other = Dream(small_world, longer, 1)
    other.reset()
    with unchanged(dream, InputError, r"^the state has .* \[6, 1, 8, 8\] .*, this dream .* \[3, "):
        dream.restore(other.snapshot())


def test_a_state_of_more_contexts_begins_anew_from_one_that_is_there(
    dream: Dream, small_world: WorldModel, small_contexts: Contexts
) -> None:
    more = Contexts(small_contexts.obs.repeat(9, 1, 1, 1, 1), small_contexts.actions.repeat(9, 1))
    other = Dream(small_world, more, 4)
    other.reset(contexts=integers(140, 100, 50, 17))
    dream.restore(other.snapshot())
    assert len(dream.reset()) == 4
    assert (dream.state.next_context < 16).all()


@pytest.mark.parametrize(
    "act",
    [
        lambda dream: dream.step(integers(0, 1)),
        lambda dream: dream.snapshot(),
        lambda dream: dream.state,
        lambda dream: dream.obs,
        lambda dream: dream.reset(mask=booleans(0, 1)),
        lambda dream: dream.restore(begun_state(dream), [0]),
    ],
)
def test_what_has_not_begun_cannot_go_on(
    small_world: WorldModel, small_contexts: Contexts, act: Callable[[Dream], object]
) -> None:
    dream = Dream(small_world, small_contexts, 2)
    with pytest.raises(StateError, match=r"^the dream has not begun; call reset first$"):
        act(dream)
    # Nor has it begun by that.
    with pytest.raises(StateError):
        _ = dream.state


def begun_state(dream: Dream) -> DreamState:
    return dream.bank.begin(integers(0))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"num_envs": 0}, "num_envs is 0; it must be at least 1"),
        ({"num_envs": -1}, "num_envs is -1; it must be at least 1"),
        ({"horizon": 0}, "horizon is 0; it must be at least 1, or None for no end"),
        ({"frame_stack": 0}, "frame_stack is 0; it must be at least 1"),
        ({"frame_stack": 4}, "frame_stack is 4; it must be from 1 to 3, the frames of a context"),
        ({"denoising_steps": 0}, "num_steps is 0; it must be at least 1"),
        ({"denoising_steps": []}, r"sigmas is (); give at least one level, falling, above 0"),
        ({"denoising_steps": [1, 2]}, "sigmas is (1.0, 2.0); give at least one level, falling"),
        ({"denoising_steps": [1, 0]}, "sigmas is (1.0, 0.0); give at least one level, falling"),
    ],
)
def test_numbers_out_of_range_are_refused(
    small_world: WorldModel, small_contexts: Contexts, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(problem)}") as error:
        Dream(small_world, small_contexts, **{"num_envs": 2, **arguments})
    assert "\n" not in str(error.value)


def test_contexts_that_do_not_fit_are_refused(
    small_world: WorldModel, small_contexts: Contexts, contexts: Contexts, dream: Dream
) -> None:
    with pytest.raises(InputError, match=r"^contexts have frames \[3, 40, 40\], the world model"):
        Dream(small_world, contexts, 2)
    fewer = Contexts(small_contexts.obs[1:], small_contexts.actions[1:])
    with unchanged(dream, InputError, r"^contexts are \[15, 3\]; they must be as many"):
        dream.redraw(fewer)


def test_a_step_is_a_tuple(dream: Dream) -> None:
    assert DreamStep._fields == ("obs", "reward", "terminated", "truncated", "final_obs")
    assert isinstance(dream.step(integers(0, 0, 0, 0)), DreamStep)


# What is given in other words.


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5])
def test_a_wrong_seed_is_refused_and_changes_nothing(
    small_world: WorldModel, small_contexts: Contexts, seed: Any
) -> None:
    dream = Dream(small_world, small_contexts, 2)
    dream.reset(seed=0)
    before = dream.generator.get_state(), dream.snapshot()
    with pytest.raises(InputError, match=r"^seed is .*; it must be one integer from 0 to \d+$"):
        dream.reset(seed=seed)
    assert torch.equal(dream.generator.get_state(), before[0])
    assert_equal(tensors(dream.snapshot()), tensors(before[1]))


def test_autoreset_goes_by_its_name_as_well(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    assert Dream(small_world, small_contexts, 2, autoreset="NextStep").autoreset is NEXT_STEP
    with pytest.raises(InputError, match=r"^autoreset_mode is 'sometimes'; it must be one of"):
        Dream(small_world, small_contexts, 2, autoreset="sometimes")


def test_what_is_no_tensor_is_refused(small_world: WorldModel, small_contexts: Contexts) -> None:
    dream = Dream(small_world, small_contexts, 2)
    dream.reset(seed=0)
    with pytest.raises(InputError, match=r"^actions is a list; it must be a tensor torch.int64"):
        dream.step([0, 1])  # type: ignore[arg-type]
