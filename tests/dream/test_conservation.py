"""Nothing is lost, found or exchanged, whatever the dreams go through."""

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dreamenv import Contexts, Dream, WorldModel
from dreamenv.dream.state import DreamState
from dreamenv.dream.step import DreamStep

SAME_STEP, NEXT_STEP = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP
DISABLED = AutoresetMode.DISABLED
MODES = pytest.mark.parametrize("mode", list(AutoresetMode))
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def draw_actions(steps: int, num_envs: int, seed: int = 0) -> Tensor:
    return torch.randint(3, (steps, num_envs), generator=torch.Generator().manual_seed(seed))


def memory_of(world_model: WorldModel, contexts: Contexts) -> tuple[Tensor, Tensor]:
    """What the heads remember of each window, one transition after the other."""
    memory = world_model.reward_end.initial_state(len(contexts.obs))
    for t in range(contexts.obs.shape[1] - 1):
        before, after = contexts.obs[:, t : t + 1], contexts.obs[:, t + 1 : t + 2]
        actions = contexts.actions[:, t : t + 1]
        memory = world_model.reward_and_end(before, actions, after, memory).state
    return memory


class Ledger:
    """Keeps account of all dreams, from nothing but what comes out of them and their state.

    Args:
        dream: What is kept account of; it has begun.
        contexts: Its bank.
        mode: Its autoreset mode; without autoreset, every dream that ends is reset by mask.
    """

    def __init__(self, dream: Dream, contexts: Contexts, mode: AutoresetMode) -> None:
        self.starts = dream.num_envs
        self.terminations = self.truncations = self.ends = self.longest = 0
        self.used = torch.zeros(len(contexts.obs), dtype=torch.int64)
        self._dream, self._mode, self._horizon = dream, mode, dream.horizon or -1
        self._windows, self._actions = contexts.obs.flatten(1), contexts.actions
        self._memory = torch.cat(memory_of(dream.world_model, contexts), dim=1)
        self._lengths = torch.zeros(dream.num_envs, dtype=torch.int64)
        self._check(torch.ones(dream.num_envs, dtype=torch.bool))

    @property
    def running(self) -> int:
        """How many dreams have begun and not ended."""
        return self._dream.num_envs - int(self._dream.state.ended.sum())

    def step(self, actions: Tensor) -> None:
        state = self._dream.state
        step = self._dream.step(actions)
        ended = step.terminated | step.truncated
        idle = state.ended if self._mode is NEXT_STEP else torch.zeros_like(ended)
        self._lengths = torch.where(idle, 0, self._lengths + 1)
        assert torch.equal(step.truncated, self._lengths == self._horizon)
        assert not (step.terminated & idle).any()
        assert (step.reward.abs() == (step.reward != 0)).all()
        self.longest = max(self.longest, int(self._lengths.max()))
        self.terminations += int(step.terminated.sum())
        self.truncations += int(step.truncated.sum())
        self.ends += int(ended.sum())
        if self._mode is DISABLED:
            assert torch.equal(self._dream.state.ended, ended)
            self._dream.reset(mask=ended)
        begun = idle if self._mode is NEXT_STEP else ended
        self._lengths = torch.where(begun, 0, self._lengths)
        self.starts += int(begun.sum())
        self._check(begun)

    def _check(self, begun: Tensor) -> None:
        """The dreams that have just begun, and no others, stand exactly where a context does."""
        state = self._dream.state
        memory = torch.cat([state.h, state.c], dim=1)
        alike = (state.frames.flatten(1)[:, None] == self._windows).all(dim=2)
        assert torch.equal(alike.any(dim=1), begun)
        assert torch.equal(state.steps, self._lengths)
        assert torch.isfinite(memory).all()
        rows, context = alike.nonzero().unbind(dim=1)
        assert torch.equal(state.actions[rows], self._actions[context])
        assert torch.allclose(memory[rows], self._memory[context], atol=1e-6)
        self.used += torch.bincount(context, minlength=len(self.used))


def check(ledger: Ledger, steps: int, num_envs: int, horizon: int) -> None:
    for actions in draw_actions(steps, num_envs):
        ledger.step(actions)
    assert ledger.starts - ledger.ends == ledger.running
    assert ledger.longest == horizon
    assert ledger.terminations > steps
    assert ledger.truncations > steps / 10
    assert (ledger.used > 0).all()


def test_ten_thousand_steps_of_64_dreams_are_accounted_for(
    dice_world: Callable[..., WorldModel], dice_contexts: Contexts
) -> None:
    dream = Dream(dice_world(end=0.04), dice_contexts, 64, horizon=40)
    dream.reset(seed=0)
    check(Ledger(dream, dice_contexts, SAME_STEP), 10_000, 64, 40)


@pytest.mark.parametrize("mode", [NEXT_STEP, DISABLED])
def test_so_are_the_steps_of_the_other_modes(
    dice_world: Callable[..., WorldModel], dice_contexts: Contexts, mode: AutoresetMode
) -> None:
    dream = Dream(dice_world(end=0.04), dice_contexts, 64, horizon=40, autoreset=mode)
    dream.reset(seed=0)
    check(Ledger(dream, dice_contexts, mode), 1000, 64, 40)


@MODES
def test_so_are_the_steps_of_a_network(
    small_world: WorldModel, small_contexts: Contexts, mode: AutoresetMode
) -> None:
    dream = Dream(small_world, small_contexts, 16, horizon=6, autoreset=mode)
    dream.reset(seed=0)
    check(Ledger(dream, small_contexts, mode), 100, 16, 6)


# Neighbours.


def row(dream: Dream, step: DreamStep, index: int) -> list[Tensor]:
    state = dream.snapshot([index])
    tensors = [tensor[index] for tensor in step]
    return [*tensors, *(getattr(state, field.name) for field in fields(state))]


def future(dream: Dream, actions: Tensor, index: int) -> list[Tensor]:
    return [tensor for chosen in actions for tensor in row(dream, dream.step(chosen), index)]


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@MODES
@pytest.mark.parametrize("index", [0, 2, 4])
def test_what_its_neighbours_do_does_not_change_a_dream(
    small_world: WorldModel, small_contexts: Contexts, mode: AutoresetMode, index: int
) -> None:
    futures, others = [], []
    for seed in (1, 2):
        dream = Dream(small_world, small_contexts, 5, horizon=8, autoreset=mode)
        dream.reset(seed=3)
        actions = draw_actions(24, 5, seed)
        actions[:, index] = draw_actions(24, 1)[:, 0]
        futures.append(future(dream, actions, index))
        others.append(dream.obs)
    assert_equal(*futures)
    assert (others[0] != others[1]).flatten(1).any(dim=1).sum() >= 2


@MODES
def test_when_its_neighbours_end_does_not_change_a_dream(
    small_world: WorldModel, small_contexts: Contexts, mode: AutoresetMode
) -> None:
    futures, ends = [], []
    for steps in (0, 2, 5):
        dream = Dream(small_world, small_contexts, 5, horizon=8, autoreset=mode)
        dream.reset(seed=3)
        state = dream.snapshot()
        older = torch.where(torch.arange(5) == 2, 0, steps)
        dream.restore(DreamState(**{**vars(state), "steps": older}))
        results = []
        ended = torch.zeros(5, dtype=torch.int64)
        for actions in draw_actions(20, 5):
            step = dream.step(actions)
            results += row(dream, step, 2)
            ended = 2 * ended + (step.truncated & ~step.terminated)
        futures.append(results)
        ends.append(ended[[0, 1, 3, 4]])
    assert_equal(futures[0], futures[1])
    assert_equal(futures[0], futures[2])
    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_where_its_neighbours_begin_does_not_change_a_dream(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    futures = []
    for contexts in ([3, 4, 5, 6], [9, 4, 1, 4]):
        dream = Dream(small_world, small_contexts, 4, horizon=8)
        dream.reset(seed=3, contexts=torch.tensor(contexts))
        results = future(dream, draw_actions(6, 4), 1)
        # Nor does a neighbour that is begun anew, or put elsewhere, in between.
        if contexts[0] == 9:
            dream.reset(mask=torch.tensor([True, False, False, True]))
            dream.restore(dream.snapshot([0]), [2])
        futures.append([*results, *future(dream, draw_actions(12, 4, 1), 1)])
    assert_equal(*futures)


def test_dreams_that_begin_alike_do_not_go_on_alike(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    dream = Dream(small_world, small_contexts, 8, autoreset=DISABLED)
    dream.reset(seed=0, contexts=torch.zeros(8, dtype=torch.int64))
    assert len(dream.step(torch.zeros(8, dtype=torch.int64)).final_obs.unique(dim=0)) == 8


# Memory.


def bytes_kept(dream: Dream, steps: int, results: list[DreamStep] | None = None) -> int:
    """The bytes that so many steps took and did not give back."""
    actions = draw_actions(steps, dream.num_envs)
    # Held: the profiler does not know the memory that was taken before it began, when it is freed.
    before = dream.state
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for chosen in actions:
            step = dream.step(chosen)
            if results is not None:
                results.append(step)
        del step, chosen
    del before
    assert profiler.profiler is not None
    # Its own sums take seconds.
    events = profiler.profiler.kineto_results.events()
    return sum(event.nbytes() for event in events if event.name() == "[memory]")


def bytes_of_state(dream: Dream) -> int:
    state = dream.snapshot()
    return sum(getattr(state, field.name).nbytes for field in fields(state))


def test_after_the_first_steps_no_more_memory_is_taken(
    small_world: WorldModel, small_contexts: Contexts
) -> None:
    dream = Dream(small_world, small_contexts, 64, horizon=5)
    dream.reset(seed=0)
    for actions in draw_actions(10, 64):
        dream.step(actions)
    assert bytes_kept(dream, 20) == bytes_of_state(dream)


@MODES
def test_nor_is_it_in_any_mode(
    dice_world: Callable[..., WorldModel], dice_contexts: Contexts, mode: AutoresetMode
) -> None:
    dream = Dream(dice_world(), dice_contexts, 64, horizon=5, autoreset=mode)
    dream.reset(seed=0)
    for actions in draw_actions(10, 64):
        dream.step(actions)
    assert bytes_kept(dream, 20) == bytes_of_state(dream)


def test_memory_that_is_kept_is_noticed(
    dice_world: Callable[..., WorldModel], dice_contexts: Contexts
) -> None:
    dream = Dream(dice_world(), dice_contexts, 64)
    dream.reset(seed=0)
    dream.step(draw_actions(1, 64)[0])
    results: list[DreamStep] = []
    kept = bytes_kept(dream, 5, results)
    assert kept == bytes_of_state(dream) + sum(out.nbytes for step in results for out in step)


@NEEDS_CUDA
@MODES
def test_after_the_first_steps_no_more_memory_of_a_gpu_is_taken(
    small_world: WorldModel, small_contexts: Contexts, mode: AutoresetMode
) -> None:
    dream = Dream(small_world.cuda(), small_contexts, 64, horizon=5, autoreset=mode)
    dream.reset(seed=0)
    actions = draw_actions(60, 64).cuda()
    for chosen in actions[:10]:
        dream.step(chosen)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for chosen in actions[10:]:
        dream.step(chosen)
    torch.cuda.synchronize()
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
