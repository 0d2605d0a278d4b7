import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamenv.data import Replay
from dreamenv.errors import ConfigError
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModel
from dreamenv.training.batches import Batches
from dreamenv.training.training_config import TrainingConfig
from dreamenv.training.world_model import WorldModelTrainer

TinyModel = Callable[..., WorldModel]

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    steps=40,
    batch_size=8,
    reward_end_batch_size=8,
    predictions=2,
    reward_end_length=6,
    quarters=(0.25, 0.25, 0.25, 0.25),
)


def test_the_first_steps_predict_single_frames_of_more_segments(
    played: Replay, tiny_model: TinyModel
) -> None:
    model = tiny_model()
    config = replace(CONFIG, batch_size=3, predictions=2, single_steps=2)
    batches = Batches(played, model, config, CPU, seed=0)
    length = model.config.denoiser.context_length
    shapes = [batches.draw()[0].actions.shape for _ in range(4)]
    assert shapes == [(6, length + 1)] * 2 + [(3, length + 2)] * 2


def test_the_first_steps_may_learn_from_parts_of_frames(
    played: Replay, tiny_model: TinyModel
) -> None:
    model = tiny_model()
    config = replace(CONFIG, batch_size=3, predictions=2, single_steps=2, crop=8)
    batches = Batches(played, model, config, CPU, seed=0)
    shapes = [batches.draw()[0].obs.shape[-2:] for _ in range(3)]
    whole = model.config.obs_shape[1:]
    assert shapes == [(8, 8), (8, 8), whole]
    again = Batches(played, model, config, CPU, seed=0)
    trainer = WorldModelTrainer(model, config, CPU)
    assert all(trainer.step(*again.draw()).denoiser.isfinite() for _ in range(3))


def test_each_kind_of_step_may_have_its_own_batch_and_squares(
    played: Replay, tiny_model: TinyModel
) -> None:
    model = tiny_model()
    config = replace(
        CONFIG,
        batch_size=3,
        predictions=2,
        single_steps=1,
        crop=4,
        single_batch_size=5,
        unrolled_crop=8,
    )
    batches = Batches(played, model, config, CPU, seed=0)
    shapes = [batches.draw()[0].obs.shape for _ in range(2)]
    length, channels = model.config.denoiser.context_length, model.config.obs_shape[0]
    # A window for each of the 2 predictions, of which the second has a frame of a dream.
    assert shapes == [(5, length + 1, channels, 4, 4), (6, length + 1, channels, 8, 8)]


def test_pasts_are_dreamt_with_what_the_model_has_learned_so_far(
    played: Replay, tiny_model: TinyModel
) -> None:
    model = tiny_model()
    config = replace(CONFIG, batch_size=3, predictions=2, unrolled_crop=16)
    batches = Batches(played, model, config, CPU, seed=0)
    state = copy.deepcopy(batches.state_dict())
    before = batches.draw()[0]
    with torch.no_grad():
        model.denoiser.network.conv_out.weight.normal_()
    batches.load_state_dict(state)
    after = batches.draw()[0]
    same = (before.obs == after.obs).flatten(2).all(dim=2)
    # Of each segment: the window that is all real, then the one whose last past frame is dreamt.
    assert same.tolist() == [[True, True, True], [True, False, True]] * 3


def test_real_pasts_may_be_learned_from_beside_the_dreamt(
    played: Replay, tiny_model: TinyModel
) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.denoiser.network.conv_out.weight.normal_()
    config = replace(CONFIG, batch_size=3, predictions=2, unrolled_crop=8, unrolled_singles=5)
    batches = Batches(played, model, config, CPU, seed=0)
    segments = batches.draw()[0]
    assert len(segments.obs) == 3 * 2 + 5
    assert segments.mask[-5:, -1].all()
    rows = played.tensors(CPU).rows
    known = {frame.numpy().tobytes() for frame in rows.frames}
    whole = Batches(played, model, replace(config, unrolled_crop=16), CPU, seed=0).draw()[0]
    pasts = whole.obs[-5:, :-1].flatten(0, 1)
    assert all(frame.numpy().tobytes() in known for frame in pasts)


def test_the_steps_that_are_favoured_are_those_of_the_real_pasts_too(
    played: Replay, tiny_model: TinyModel
) -> None:
    model = tiny_model()
    config = replace(CONFIG, batch_size=1, predictions=2, unrolled_crop=16, unrolled_singles=20)
    batches = Batches(played, model, config, CPU, seed=0)
    rows = played.tensors(CPU).rows
    probabilities = torch.zeros(len(rows.is_step), dtype=torch.float64)
    favourite = int(rows.first_rows[rows.episodes("train")[0]]) + 1
    probabilities[favourite] = 1.0
    batches.favour(probabilities)
    last = batches.draw()[0].obs[-20:, -1]
    assert (last == rows.frames[favourite]).all()


def test_after_the_single_steps_the_heads_learn_from_dreams_too(
    played: Replay, tiny_model: TinyModel
) -> None:
    config = replace(CONFIG, single_steps=1, reward_end_batch_size=8, reward_end_dreamt=0.25)
    dreamt, real = (
        Batches(played, tiny_model(), each, CPU, seed=0)
        for each in (config, replace(config, reward_end_dreamt=0.0))
    )
    differs = []
    for _ in range(2):
        mine, yours = dreamt.draw()[1], real.draw()[1]
        assert mine is not None
        assert yours is not None
        differs.append((mine.obs != yours.obs).flatten(1).any(dim=1).tolist())
    assert differs == [[False] * 8, [True] * 2 + [False] * 6]


def test_the_heads_may_learn_mostly_of_what_pays(played: Replay, tiny_model: TinyModel) -> None:
    def rewards(share: float) -> float:
        config = replace(CONFIG, reward_end_batch_size=64, reward_end_favoured=share)
        segments = Batches(played, tiny_model(), config, CPU, seed=0).draw()[1]
        assert segments is not None
        return (segments.rewards[:, :-1] != 0).any(dim=1).float().mean().item()

    assert rewards(1.0) == 1.0
    assert rewards(0.0) < 0.8


def test_segments_too_short_to_dream_in_are_refused(played: Replay, tiny_model: TinyModel) -> None:
    config = replace(CONFIG, reward_end_length=2, reward_end_dreamt=0.5)
    with pytest.raises(ConfigError, match=r"^reward_end_length is 2, and the context 2 frames"):
        Batches(played, tiny_model(), config, CPU, seed=0)


@pytest.mark.parametrize(
    "parts",
    [
        {"single_steps": 9, "crop": 8},
        {"unrolled_crop": 8},
        {"unrolled_crop": 8, "unrolled_singles": 3},
    ],
)
def test_parts_of_frames_go_on_where_their_state_was_taken(
    played: Replay, tiny_model: TinyModel, parts: dict[str, int]
) -> None:
    config = replace(CONFIG, **parts)  # type: ignore[arg-type]
    one, other = (Batches(played, tiny_model(), config, CPU, seed=seed) for seed in (0, 1))
    one.draw()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert torch.equal(one.draw()[0].obs, other.draw()[0].obs)


def test_at_given_steps_it_is_time_to_favour_what_is_hard(
    played: Replay, tiny_model: TinyModel
) -> None:
    model = tiny_model()
    config = replace(CONFIG, single_steps=3, favoured_share=0.5, favour_at=(2, 4))
    batches = Batches(played, model, config, CPU, seed=0)
    wanted = []
    for _ in range(4):
        wanted.append(batches.wants_favourites)
        batches.draw()
    assert wanted == [False, False, True, True]
    rows = played.tensors(CPU).rows
    chosen = int(rows.first_rows[rows.episodes("train")[0]]) + 5
    batches.favour(torch.eye(len(rows.is_step), dtype=torch.float64)[chosen])
    assert not batches.wants_favourites
    batch = batches.draw()[0]
    length = model.config.denoiser.context_length
    # One frame is in every segment, and always at a place that is predicted.
    same = (batch.obs == rows.frames[chosen]).flatten(2).all(dim=2)
    assert same[:, length:].any(dim=1).all()
    state = batches.state_dict()
    again = Batches(played, model, config, CPU, seed=1)
    again.load_state_dict(state)
    assert not again.wants_favourites
    assert torch.equal(again.draw()[0].obs, batches.draw()[0].obs)


def test_single_frames_are_drawn_around_what_is_hard_too(
    played: Replay, tiny_model: TinyModel
) -> None:
    model = tiny_model()
    config = replace(CONFIG, single_steps=9, favoured_share=0.5, favour_at=(1, 3))
    batches = Batches(played, model, config, CPU, seed=0)
    batches.draw()
    rows = played.tensors(CPU).rows
    chosen = int(rows.first_rows[rows.episodes("train")[0]]) + 5
    batches.favour(torch.eye(len(rows.is_step), dtype=torch.float64)[chosen])
    last = batches.draw()[0].obs[:, -1]
    assert (last == rows.frames[chosen]).all()
    assert not batches.wants_favourites
    batches.draw()
    assert batches.wants_favourites


def test_batches_have_the_lengths_the_networks_learn_from(
    played: Replay, tiny_model: TinyModel
) -> None:
    config = replace(CONFIG, batch_size=3, reward_end_batch_size=5)
    for_denoiser, for_heads = Batches(played, tiny_model(), config, CPU, seed=0).draw()
    assert for_heads is not None
    # A context of 2 and 2 predictions.
    assert for_denoiser.obs.shape[:2] == (3, 4)
    assert for_heads.obs.shape[:2] == (5, 6)
    # The denoiser's windows stop at an episode's last step; those of the heads may run over it.
    assert for_denoiser.mask[:, -1].all()


def test_batches_go_on_where_their_state_was_taken(played: Replay, tiny_model: TinyModel) -> None:
    one, other = (Batches(played, tiny_model(), CONFIG, CPU, seed=seed) for seed in (0, 1))
    one.draw()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for mine, yours in zip(one.draw(), other.draw(), strict=True):
        assert mine is not None
        for name, tensor in vars(mine).items():
            assert torch.equal(tensor, vars(yours)[name])


@pytest.mark.parametrize(
    "learns", [{"unrolled_crop": 8}, {"single_steps": 0, "reward_end_dreamt": 1.0}]
)
@pytest.mark.parametrize("levels", [None, (3.0, 1.0)])
def test_pasts_are_dreamt_with_levels_of_their_own(
    played: Replay,
    tiny_model: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
    learns: dict[str, Any],
    levels: tuple[float, ...] | None,
) -> None:
    model = tiny_model()
    asked: list[tuple[float, ...]] = []
    next_obs = model.next_obs

    def spy(*arguments: Tensor, sampler: SamplerConfig, **options: Any) -> Tensor:
        asked.append(sampler.levels)
        return next_obs(*arguments, sampler=sampler, **options)

    monkeypatch.setattr(model, "next_obs", spy)
    Batches(played, model, replace(CONFIG, **learns, dreamt_levels=levels), CPU, seed=0).draw()
    wanted = model.config.sampler.levels if levels is None else (*levels, 0.0)
    assert set(asked) == {wanted}
