from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamenv.data import Segments
from dreamenv.models.world_model import WorldModel, WorldModelConfig
from dreamenv.training.dreamt_past import DreamtPast

TinyModel = Callable[..., WorldModel]

CPU = torch.device("cpu")
CONTEXT = 2
STEP = 10  # what every frame of the episode is brighter than the one before


class Adding(WorldModel):
    """Dreams frames that are brighter than the last by what it is told, row by row.

    Attributes:
        adds: So many levels.
        asked: The context's last level and the actions of each row of each frame it dreamt.
    """

    def __init__(self, config: WorldModelConfig, adds: list[int]) -> None:
        super().__init__(config)
        self.adds = torch.tensor(adds, dtype=torch.uint8)
        self.asked: list[tuple[list[int], list[list[int]]]] = []
        self.told: list[list[int]] = []

    def next_obs(  # type: ignore[override]
        self, context: Tensor, actions: Tensor, *, since_reward: Tensor, **_: Any
    ) -> Tensor:
        self.told.append(since_reward.tolist())
        self.asked.append((context[:, -1, 0, 0, 0].tolist(), actions.tolist()))
        return context[:, -1] + self.adds[: len(context), None, None, None]


def episodes(rows: int, length: int) -> Segments:
    """Windows whose frames have the levels 0, 10, 20, ... all over, and the actions 0, 1, 2, ..."""
    steps = torch.arange(length).repeat(rows, 1)
    return Segments(
        obs=(STEP * steps)[:, :, None, None, None].expand(-1, -1, 3, 16, 16).to(torch.uint8),
        actions=steps,
        rewards=steps.float(),
        ends=steps == length - 1,
        mask=torch.ones(rows, length, dtype=torch.bool),
        since_reward=steps + 1,
        corner=torch.arange(2 * rows).view(rows, 2),
    )


def levels(segments: Segments) -> list[list[int]]:
    frames: list[list[int]] = segments.obs[:, :, 0, 0, 0].tolist()
    return frames


@pytest.fixture
def dreaming(tiny_model: TinyModel) -> Callable[..., DreamtPast]:
    """Makes the past of a world model that adds so many levels in each row."""

    def make(*adds: int) -> DreamtPast:
        model = Adding(tiny_model().config, list(adds))
        return DreamtPast(model, usual_change=0.0, device=CPU, seed=0)

    return make


def test_every_window_has_a_dreamt_past_and_what_really_followed(
    dreaming: Callable[..., DreamtPast],
) -> None:
    windows = dreaming(12, 11).windows(episodes(2, 5))
    # The first of each segment has nothing of a dream, the next one frame, the last its whole past.
    assert levels(windows) == [
        [0, 10, 20],
        [10, 22, 30],
        [22, 34, 40],
        [0, 10, 20],
        [10, 21, 30],
        [21, 32, 40],
    ]
    one = [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert windows.actions.tolist() == one * 2
    assert windows.rewards.tolist() == one * 2
    assert windows.ends.tolist() == [[False] * 3, [False] * 3, [False, False, True]] * 2
    assert windows.mask.all()
    assert windows.corner.tolist() == [[0, 1]] * 3 + [[2, 3]] * 3


def test_frames_are_dreamt_along_the_actions_of_the_episode(tiny_model: TinyModel) -> None:
    model = Adding(tiny_model().config, [11])
    DreamtPast(model, 0.0, CPU, seed=0).windows(episodes(1, 5))
    assert model.asked == [([10], [[0, 1]]), ([21], [[1, 2]])]


def test_frames_are_dreamt_after_the_rewards_of_the_episode(tiny_model: TinyModel) -> None:
    model = Adding(tiny_model().config, [11, 12])
    windows = DreamtPast(model, 0.0, CPU, seed=0).windows(episodes(2, 5))
    assert model.told == [[2, 2], [3, 3]]
    assert windows.since_reward.tolist() == [[1, 2, 3], [2, 3, 4], [3, 4, 5]] * 2


def test_what_follows_a_past_that_has_strayed_is_not_learned(
    dreaming: Callable[..., DreamtPast],
) -> None:
    # The squared error may be 0.3 of the squared change of 10 levels a pixel: 5 levels of error.
    windows = dreaming(14, 18).windows(episodes(2, 6))
    strayed = [True, True, False, False], [True, False, False, False]
    assert windows.mask[:, -1].tolist() == [*strayed[0], *strayed[1]]
    assert windows.mask[:, :-1].all()


def test_a_past_that_came_back_has_strayed_all_the_same(tiny_model: TinyModel) -> None:
    class Wavering(WorldModel):
        """Is wrong once, and right again in the next frame."""

        levels = iter((28, 30, 40))

        def next_obs(self, context: Tensor, *_: Any, **__: Any) -> Tensor:
            return torch.full_like(context[:, -1], next(self.levels))

    wavering = Wavering(tiny_model().config)
    frames = DreamtPast(wavering, 0.0, CPU, seed=0).frames(episodes(1, 5), 1)
    assert levels(frames) == [[0, 10, 28, 30, 40]]
    # What the heads remember of it is not what happened.
    assert frames.mask.tolist() == [[True, True, False, False, False]]


def test_where_nothing_moves_a_little_error_is_allowed(tiny_model: TinyModel) -> None:
    still = episodes(1, 5)
    still = Segments(torch.zeros_like(still.obs), *list(vars(still).values())[1:])
    model = Adding(tiny_model().config, [3])
    masks = {
        usual: DreamtPast(model, usual, CPU, seed=0).windows(still).mask[:, -1].tolist()
        for usual in (0.0, 9 / 0.05 + 1)
    }
    assert list(masks.values()) == [[True, False, False], [True, True, False]]


def test_the_first_segments_of_the_heads_are_dreamt_and_the_others_real(
    dreaming: Callable[..., DreamtPast],
) -> None:
    real = episodes(3, 5)
    frames = dreaming(11, 18).frames(real, 2)
    assert levels(frames) == [[0, 10, 21, 32, 43], [0, 10, 28, 46, 64], [0, 10, 20, 30, 40]]
    # The step to the first wrong frame is the episode's still, those from there on are not.
    assert frames.mask.tolist() == [[True] * 5, [True, True, False, False, False], [True] * 5]
    assert torch.equal(frames.rewards, real.rewards)
    assert torch.equal(frames.ends, real.ends)


def test_what_follows_padding_stays_as_it_is(dreaming: Callable[..., DreamtPast]) -> None:
    real = episodes(1, 5)
    real.mask[:] = torch.tensor([False, False, True, True, False])
    # A dream goes from the episode's first frame to its final one, where no step is taken.
    assert levels(dreaming(11).frames(real, 1)) == [[0, 10, 20, 31, 42]]


def test_compiled_it_computes_in_the_type_that_the_model_was_told_to_since(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    types: list[bool] = []

    def compiled(self: WorldModel) -> WorldModel:
        types.append(self.bf16)
        return self

    monkeypatch.setattr(WorldModel, "compiled", compiled)
    dreamt = DreamtPast(model, 0.0, CPU, seed=0, compile=True)
    model.bf16 = True
    real = episodes(2, 4)
    real.actions.remainder_(model.config.num_actions)
    dreamt.windows(real)
    dreamt.windows(real)
    assert types == [True]


def test_the_noise_goes_on_where_its_state_was_taken(tiny_model: TinyModel) -> None:
    model, real = tiny_model(), episodes(2, 5)
    real.actions.remainder_(model.config.num_actions)
    one, other = (DreamtPast(model, 0.0, CPU, seed) for seed in (0, 1))
    first = one.frames(real, 2).obs
    other.load_state_dict(one.state_dict())
    then = one.frames(real, 2).obs
    assert torch.equal(then, other.frames(real, 2).obs)
    assert not torch.equal(first, then)
