import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamenv.data import Episode, Replay
from dreamenv.environment import EnvironmentSpec
from dreamenv.evaluation.detection import Detection
from dreamenv.models.lstm import LSTMState
from dreamenv.models.reward_end import RewardEndOutput
from dreamenv.models.world_model import WorldModel, WorldModelConfig
from dreamenv.training.validation import Validation, side_by_side, validate

TinyModel = Callable[..., WorldModel]

CPU = torch.device("cpu")
HELD_OUT = 100  # the level from which on frames are those of held-out episodes
CONTEXT = 2


class Scripted(WorldModel):
    """Knows what comes next in a replay made by `counting`, and says what it is told to of rewards.

    Attributes:
        error: What is added to the frame that comes next.
        rewards: The reward sign that is said to come after each level.
        ends: The levels after which the end is said to come.
        seen: The level of each frame whose reward and end were asked for.
        predicted: The level of each frame that was predicted.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__(config)
        self.error = 0
        self.rewards: dict[int, int] = {}
        self.ends: frozenset[int] = frozenset()
        self.seen: list[int] = []
        self.predicted: list[int] = []
        self.eval()

    def next_obs(self, context: Tensor, actions: Tensor, **_: Any) -> Tensor:
        assert actions.shape == context.shape[:2]
        frame = context[:, -1] + 1
        self.predicted += frame[:, 0, 0, 0].tolist()
        return frame + self.error

    def reward_and_end(
        self, obs: Tensor, actions: Tensor, next_obs: Tensor, state: LSTMState | None = None
    ) -> RewardEndOutput:
        assert actions.shape == obs.shape[:2] == next_obs.shape[:2]
        if state is not None:  # in a dream, of which the figures say nothing
            rows_and_steps = tuple(actions.shape)
            return RewardEndOutput(
                torch.zeros(*rows_and_steps, 3), torch.zeros(*rows_and_steps, 2), state
            )
        levels, next_levels = (frames[:, :, 0, 0, 0] for frames in (obs, next_obs))
        # Before an episode's first frame is padding; after its last frame too.
        inside = (levels >= HELD_OUT) & (levels != 128) & (next_levels != 128)
        assert (next_levels == levels + 1)[inside].all()
        self.seen += levels[inside].tolist()
        signs = levels.clone().long()
        ends = levels.clone().long()
        for level in levels.unique().tolist():
            signs[levels == level] = self.rewards.get(level, 0) + 1
            ends[levels == level] = level in self.ends
        logits = [
            torch.nn.functional.one_hot(classes, n).float()
            for classes, n in ((signs, 3), (ends, 2))
        ]
        return RewardEndOutput(logits[0], logits[1], self.reward_end.initial_state(len(obs)))


def counting(first: int, rewards: dict[int, float], length: int, terminated: bool) -> Episode:
    """An episode whose frames are `first`, `first` + 1, ... all over."""
    levels = np.arange(first, first + length + 1)
    return Episode(
        obs=np.broadcast_to(levels[:, None, None, None], (length + 1, 3, 16, 16)).astype(np.uint8),
        actions=np.zeros(length, np.int64),
        rewards=np.array([rewards.get(int(level), 0.0) for level in levels[:-1]], np.float32),
        terminated=terminated,
        truncated=not terminated,
    )


@pytest.fixture
def replay(tmp_path: Path, catch: EnvironmentSpec) -> Replay:
    """Two of four episodes are held out: levels 130 to 180 (50 steps) and 190 to 193 (3 steps)."""
    replay = Replay.create(tmp_path / "replay", catch, held_out_every=2)
    replay.append(counting(10, {12: 1.0}, 20, terminated=True))
    replay.append(counting(130, {140: 2.5, 141: -0.5, 160: 1.0}, 50, terminated=True))
    replay.append(counting(190, {192: -1.0}, 3, terminated=False))
    replay.append(counting(40, {42: 1.0}, 20, terminated=True))
    return replay


@pytest.fixture
def model(tiny_model: TinyModel) -> Scripted:
    return Scripted(tiny_model().config)


def judge(model: WorldModel, replay: Replay, **settings: int) -> Validation:
    return validate(model, replay, CPU, **settings)


def test_a_model_that_is_always_right_is_exact(model: Scripted, replay: Replay) -> None:
    model.rewards = {140: 1, 141: -1, 160: 1, 192: -1}
    model.ends = frozenset({179})
    validation = judge(model, replay)
    assert validation.psnr is None
    negative, zero, positive = validation.rewards
    assert (negative, positive) == (Detection(2, 2, 2), Detection(2, 2, 2))
    assert zero == Detection(49, 49, 49)
    assert validation.end == Detection(1, 1, 1)


@pytest.mark.parametrize(("error", "decibels"), [(1, 48.1308), (5, 34.1514), (51, 13.9794)])
def test_a_known_error_has_its_decibels(
    model: Scripted, replay: Replay, error: int, decibels: float
) -> None:
    model.error = error
    assert judge(model, replay).psnr == pytest.approx(decibels, abs=1e-3)
    assert decibels == pytest.approx(20 * math.log10(255 / error), abs=1e-3)


def test_errors_are_pooled_over_the_frames(model: Scripted, replay: Replay) -> None:
    class Sometimes(Scripted):
        def next_obs(self, context: Tensor, actions: Tensor, **_: Any) -> Tensor:
            frame = super().next_obs(context, actions)
            return torch.where(frame % 2 == 0, frame, frame + 10)

    sometimes = Sometimes(model.config)
    # 132 to 179 and 192: of 49 frames 24 are off by 10.
    expected = 10 * math.log10(255**2 * 49 / (100 * 24))
    assert judge(sometimes, replay).psnr == pytest.approx(expected)


def test_every_frame_with_a_whole_context_is_predicted_once(
    model: Scripted, replay: Replay
) -> None:
    judge(model, replay)
    assert sorted(model.predicted) == [*range(132, 180), 192]


def test_no_more_frames_are_predicted_than_asked_for(model: Scripted, replay: Replay) -> None:
    judge(model, replay, max_frames=32)
    assert 0 < len(model.predicted) <= 32
    assert len(set(model.predicted)) == len(model.predicted)


def test_every_step_is_judged_once_to_the_last(model: Scripted, replay: Replay) -> None:
    validation = judge(model, replay)
    assert sum(sign.actual for sign in validation.rewards) == 50 + 3
    assert sum(sign.predicted for sign in validation.rewards) == 50 + 3
    # The steps that lead up to those that are judged are seen more than once.
    assert set(model.seen) == {*range(130, 180), *range(190, 193)}


def test_episodes_that_are_trained_on_are_never_judged(model: Scripted, replay: Replay) -> None:
    model.rewards = dict.fromkeys(range(0, HELD_OUT), 1)
    model.ends = frozenset(range(0, HELD_OUT))
    validation = judge(model, replay)
    assert min(model.predicted) >= HELD_OUT
    assert validation.rewards[2].predicted == 0
    assert validation.end.predicted == 0


def test_precision_and_recall_are_those_counted_by_hand(model: Scripted, replay: Replay) -> None:
    # Right at 140, early at 159, missed at 160; -1 said once, of two.
    model.rewards = {140: 1, 159: 1, 150: 1, 192: -1}
    model.ends = frozenset({179, 192, 145})  # the second held-out episode was only truncated
    validation = judge(model, replay)
    negative, zero, positive = validation.rewards
    assert positive == Detection(hits=1, predicted=3, actual=2)
    assert positive.precision == pytest.approx(1 / 3)
    assert positive.recall == pytest.approx(1 / 2)
    assert negative == Detection(hits=1, predicted=1, actual=2)
    assert zero == Detection(hits=47, predicted=49, actual=49)
    assert validation.end == Detection(hits=1, predicted=3, actual=1)


def test_shares_of_nothing_are_none() -> None:
    nothing = Detection(hits=0, predicted=0, actual=0)
    assert nothing.precision is None
    assert nothing.recall is None
    assert Detection(hits=0, predicted=0, actual=3).recall == 0.0


@pytest.mark.parametrize("target", ["frame", "change"])
def test_an_unfitted_model_is_judged_the_same_twice(
    played: Replay, tiny_model: TinyModel, target: str
) -> None:
    model = tiny_model(target).eval()
    first = judge(model, played)
    assert first == judge(model, played)
    assert first.psnr is not None
    assert math.isfinite(first.psnr)
    levels = [level for level, _ in first.losses]
    assert levels == sorted(levels)
    assert len(levels) == 5
    assert all(loss is not None and loss > 0 for _, loss in first.losses)
    assert Validation.from_dict(first.to_dict(), "validation.json") == first


def test_the_loss_is_that_of_the_denoiser_at_the_level(
    played: Replay, tiny_model: TinyModel
) -> None:
    model = tiny_model().eval()
    # The network's last layer begins as zeros: what it has left to say is known.
    torch.nn.init.zeros_(model.denoiser.get_parameter("network.conv_out.bias"))
    data, offset = model.config.denoiser.sigma_data, model.config.denoiser.sigma_offset
    *_, (level, loss) = judge(model, played).losses
    # What F is to be: (target - c_skip * noisy) / c_out.
    frames = np.concatenate([episode.obs for episode in played.episodes()]) / 127.5 - 1
    total = level**2 + offset**2
    skip = data**2 / (total + data**2)
    scale = total * skip
    expected = ((1 - skip) ** 2 * (frames**2).mean() + skip**2 * total) / scale
    assert loss == pytest.approx(expected, rel=0.1)


def test_what_is_told_of_denoising_says_nothing_of_how_likely_choices_were(
    played: Replay, tiny_model: TinyModel
) -> None:
    plain = tiny_model("change")
    denoiser = replace(plain.config.denoiser, choices=2, choice_cost=1.0)
    model = WorldModel(replace(plain.config, denoiser=denoiser))
    head = model.denoiser.network.choice_head
    assert head is not None
    before = judge(model, played).losses
    torch.nn.init.constant_(head.odds.bias[1:], 5.0)  # and the first is the best
    assert judge(model, played).losses == before


def test_dreams_stand_below_what_was_real(model: Scripted, replay: Replay) -> None:
    model.error = 0
    picture = side_by_side(model, replay, CPU, length=6)
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 32, 6 * 16)
    columns = picture[0, :, ::16]
    assert columns[0].tolist() == [132, 133, 134, 135, 136, 137]
    assert torch.equal(picture[:, :16], picture[:, 16:])


def test_a_dream_goes_on_from_its_own_frames(model: Scripted, replay: Replay) -> None:
    model.error = 1
    picture = side_by_side(model, replay, CPU, length=4)
    assert picture[0, 0, ::16].tolist() == [132, 133, 134, 135]
    assert picture[0, 16, ::16].tolist() == [133, 135, 137, 139]


def test_losses_are_told_at_the_levels_that_are_trained(
    played: Replay, tiny_model: TinyModel
) -> None:
    config = tiny_model("change").config

    def levels(start_share: float) -> list[float]:
        denoiser = replace(config.denoiser, start_share=start_share, sigma_max=30.0)
        model = WorldModel(replace(config, denoiser=denoiser)).eval()
        return [level for level, _ in judge(model, played).losses]

    drawn = levels(0.0)
    assert len(drawn) == 5
    assert levels(0.5) == [*drawn, 30.0]
    assert levels(1.0) == [30.0]


def test_a_loss_that_is_no_number_is_none_in_json(played: Replay, tiny_model: TinyModel) -> None:
    model = tiny_model().eval()
    for weights in model.denoiser.parameters():
        weights.data.fill_(math.nan)
    validation = judge(model, played)
    assert [loss for _, loss in validation.losses] == [None] * 5
    written = json.dumps(validation.to_dict(), allow_nan=False)
    assert Validation.from_dict(json.loads(written), "validation") == validation


def test_the_loss_at_the_start_is_of_noise_alone(played: Replay, tiny_model: TinyModel) -> None:
    config = tiny_model("change").config
    losses = {}
    for start_share, sigma_max in ((0.0, 0.02), (1.0, 0.02)):
        torch.manual_seed(0)
        denoiser = replace(
            config.denoiser, start_share=start_share, sigma_max=sigma_max, sigma_min=0.02
        )
        model = WorldModel(replace(config, denoiser=denoiser)).eval()
        losses[start_share] = judge(model, played).losses[-1][1] or math.nan
    # At so low a level F is to give back the noise; without the target in it, the target too.
    assert losses[1.0] > 100 * losses[0.0]
