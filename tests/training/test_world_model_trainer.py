import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamenv.data import Episode, Replay, change_std
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, InputError
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModel
from dreamenv.training.checkpoint import load_checkpoint, save_checkpoint
from dreamenv.training.optimisation import OptimiserConfig
from dreamenv.training.world_model import (
    Batches,
    Losses,
    TrainingConfig,
    WorldModelTrainer,
    measure_change,
)

TinyModel = Callable[..., WorldModel]

CPU = torch.device("cpu")
FAST = OptimiserConfig(learning_rate=3e-3, warmup_steps=2)
CONFIG = TrainingConfig(
    steps=40,
    batch_size=8,
    reward_end_batch_size=8,
    predictions=2,
    reward_end_length=6,
    quarters=(0.25, 0.25, 0.25, 0.25),
    denoiser_optimiser=FAST,
    reward_end_optimiser=replace(FAST, max_grad_norm=100.0),
)
AVERAGED = replace(CONFIG, ema_decay=0.9)


def fit(
    trainer: WorldModelTrainer, batches: Batches, steps: int
) -> list[tuple[float, float, float]]:
    losses = [trainer.step(*batches.draw()) for _ in range(steps)]
    return [(each.denoiser.item(), each.reward.item(), each.end.item()) for each in losses]


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def moved(before: dict[str, Tensor], after: dict[str, Tensor], part: str) -> float:
    """Returns how far the weights of a network moved."""
    squares = [(after[name] - before[name]).square().sum() for name in before if part in name]
    return torch.stack(squares).sum().sqrt().item()


@pytest.mark.parametrize("target", ["frame", "change"])
def test_every_loss_falls(played: Replay, tiny_model: TinyModel, target: str) -> None:
    model = tiny_model(target)
    measure_change(model, played, CPU)
    trainer = WorldModelTrainer(model, CONFIG, CPU)
    losses = np.array(fit(trainer, Batches(played, model, CONFIG, CPU, seed=0), 40))
    first, last = losses[:5].mean(axis=0), losses[-5:].mean(axis=0)
    assert (last < 0.9 * first).all(), (first, last)
    assert trainer.step_count == 40


@pytest.mark.parametrize(
    "config", [CONFIG, AVERAGED, replace(CONFIG, bf16=False), replace(CONFIG, single_steps=7)]
)
def test_gone_on_with_from_a_checkpoint_the_weights_are_the_same_to_the_bit(
    played: Replay, tiny_model: TinyModel, tmp_path: Path, config: TrainingConfig
) -> None:
    model = tiny_model("change")
    measure_change(model, played, CPU)
    trainer = WorldModelTrainer(model, config, CPU, seed=4)
    batches = Batches(played, model, config, CPU, seed=4)
    fit(trainer, batches, 5)
    path = tmp_path / "trainer.pt"
    save_checkpoint(path, {"trainer": trainer.state_dict(), "batches": batches.state_dict()})
    expected = fit(trainer, batches, 5)

    other = tiny_model("change", seed=1)
    again = WorldModelTrainer(other, config, CPU, seed=9)
    batches_again = Batches(played, other, config, CPU, seed=9)
    state = load_checkpoint(path, CPU)
    assert state is not None
    again.load_state_dict(state["trainer"])
    batches_again.load_state_dict(state["batches"])
    assert again.step_count == 5
    assert fit(again, batches_again, 5) == expected
    assert again.step_count == 10
    assert_same(weights(again.fitted), weights(trainer.fitted))
    assert_same(weights(other), weights(model))


def test_where_only_choices_learn_the_rest_stays_as_it_is(
    played: Replay, tiny_model: TinyModel
) -> None:
    known = tiny_model("change")
    denoiser = replace(known.config.denoiser, choices=3, place_maps=2)
    model = WorldModel(replace(known.config, denoiser=denoiser))
    before = weights(model)
    trainer = WorldModelTrainer(model, CONFIG, CPU, only_choices=True)
    batches = Batches(played, model, CONFIG, CPU, seed=0)
    losses = trainer.step(*batches.draw())
    assert losses.denoiser.isfinite()
    assert losses.reward.isnan()
    assert losses.end.isnan()
    trainer.step(*batches.draw())
    learned = {name for name, now in weights(model).items() if not torch.equal(now, before[name])}
    of_choices = {name for name in before if name.startswith("denoiser.network.choice_head.")}
    assert learned == of_choices


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
    losses = fit(WorldModelTrainer(model, config, CPU), again, 3)
    assert np.isfinite(losses).all()


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


def test_the_heads_learn_in_every_so_many_th_step(played: Replay, tiny_model: TinyModel) -> None:
    model = tiny_model()
    config = replace(CONFIG, steps=8, reward_end_every=3)
    batches, trainer = (
        Batches(played, model, config, CPU, seed=0),
        WorldModelTrainer(model, config, CPU),
    )
    learned = []
    for _ in range(5):
        before = weights(model)
        losses = trainer.step(*batches.draw())
        learned.append(moved(before, weights(model), "reward_end.") > 0)
        assert losses.reward.isfinite() == losses.end.isfinite() == learned[-1]
        assert losses.denoiser.isfinite()
        assert moved(before, weights(model), "denoiser.") > 0
    assert learned == [True, False, False, True, False]


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


def test_what_is_favoured_is_said_in_one_way() -> None:
    replace(CONFIG, favourites="module:function")
    with pytest.raises(ConfigError, match=r"^favour_at is \(2,\) and favourites 'module:function'"):
        replace(CONFIG, favoured_share=0.5, favour_at=(2,), favourites="module:function")


def test_a_seed_gives_one_course_and_another_seed_another(
    played: Replay, tiny_model: TinyModel
) -> None:
    def course(seed: int) -> list[tuple[float, float, float]]:
        model = tiny_model()
        trainer = WorldModelTrainer(model, CONFIG, CPU, seed)
        return fit(trainer, Batches(played, model, CONFIG, CPU, seed), 3)

    assert course(1) == course(1)
    assert course(1) != course(2)


def test_without_an_average_the_fitted_model_is_the_model(tiny_model: TinyModel) -> None:
    model = tiny_model()
    assert WorldModelTrainer(model, CONFIG, CPU).fitted is model


def test_with_an_average_the_fitted_model_is_the_average(
    played: Replay, tiny_model: TinyModel
) -> None:
    model = tiny_model("change")
    measure_change(model, played, CPU)
    trainer = WorldModelTrainer(model, AVERAGED, CPU)
    batches = Batches(played, model, AVERAGED, CPU, seed=0)
    mean = weights(model)
    for step in range(1, 5):
        fit(trainer, batches, 1)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, tensor in weights(model).items():
            mean[name].lerp_(tensor, 1 - decay)
    fitted = weights(trainer.fitted)
    for name, tensor in mean.items():
        torch.testing.assert_close(fitted[name], tensor)
    assert moved(weights(model), fitted, "") > 1e-3
    # The unit of the change is no weight, and is the measured one.
    assert trainer.fitted.denoiser.change_std.item() == pytest.approx(change_std(played, CPU))


@pytest.mark.parametrize("clipped", ["denoiser", "reward_end"])
def test_the_gradients_of_each_network_are_clipped_by_their_own_norm(
    played: Replay, tiny_model: TinyModel, clipped: str
) -> None:
    # Beside an ε of 1, AdamW moves by the learning rate times the gradient: clipped to 1e-6, it
    # moves nothing to speak of.
    open_wide = OptimiserConfig(
        learning_rate=1.0, epsilon=1.0, weight_decay=0.0, warmup_steps=0, max_grad_norm=1e6
    )
    config = replace(CONFIG, denoiser_optimiser=open_wide, reward_end_optimiser=open_wide)
    closed = replace(open_wide, max_grad_norm=1e-6)
    config = (
        replace(config, denoiser_optimiser=closed)
        if clipped == "denoiser"
        else replace(config, reward_end_optimiser=closed)
    )
    model = tiny_model()
    before = weights(model)
    fit(WorldModelTrainer(model, config, CPU), Batches(played, model, config, CPU, seed=0), 1)
    after = weights(model)
    parts = {"denoiser": "denoiser.", "reward_end": "reward_end."}
    assert moved(before, after, parts.pop(clipped)) < 1.1e-6
    assert moved(before, after, parts.popitem()[1]) > 1e-3


def test_a_step_teaches_both_networks_once_each(played: Replay, tiny_model: TinyModel) -> None:
    model = tiny_model()
    model.eval()
    trainer = WorldModelTrainer(model, CONFIG, CPU)
    before = weights(model)
    losses = trainer.step(*Batches(played, model, CONFIG, CPU, seed=0).draw())
    assert isinstance(losses, Losses)
    for loss in losses:
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert not loss.requires_grad
    assert moved(before, weights(model), "denoiser.") > 0
    assert moved(before, weights(model), "reward_end.") > 0


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


def test_the_unit_of_the_change_is_measured(played: Replay, tiny_model: TinyModel) -> None:
    model = tiny_model("change")
    measure_change(model, played, CPU)
    assert model.denoiser.change_std.item() == pytest.approx(change_std(played, CPU))
    assert model.denoiser.change_std.item() > 0


def test_heads_that_see_changes_have_the_same_unit(played: Replay, tiny_model: TinyModel) -> None:
    config = tiny_model("change").config
    heads = replace(config.reward_end, next_obs="change")
    for denoiser in (config.denoiser, tiny_model("frame").config.denoiser):
        model = WorldModel(replace(config, denoiser=denoiser, reward_end=heads))
        measure_change(model, played, CPU)
        assert model.reward_end.change_std.item() == pytest.approx(change_std(played, CPU))


def test_a_denoiser_of_frames_has_no_unit_to_measure(played: Replay, tiny_model: TinyModel) -> None:
    model = tiny_model("frame")
    before = weights(model)
    measure_change(model, played, CPU)
    assert_same(weights(model), before)


def test_a_game_in_which_nothing_moves_is_refused(
    tmp_path: Path, catch: EnvironmentSpec, tiny_model: TinyModel
) -> None:
    replay = Replay.create(tmp_path / "still", catch)
    still = np.full((5, *catch.obs_shape), 7, np.uint8)
    actions, rewards = np.zeros(4, np.int64), np.zeros(4, np.float32)
    replay.append(Episode(still, actions, rewards, terminated=True, truncated=False))
    with pytest.raises(InputError, match=r"still: no pixel ever changes .* nothing to dream of"):
        measure_change(tiny_model("change"), replay, CPU)
    measure_change(tiny_model("frame"), replay, CPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("reward_end_batch_size", 0),
        ("predictions", 0),
        ("single_steps", -1),
        ("reward_end_favoured", 1.1),
        ("reward_end_dreamt", -0.1),
        ("reward_end_dreamt", 0.01),  # of no segment
        ("favoured_share", 1.5),
        ("favoured_share", 0.5),  # at no step
        ("favour_at", (5,)),  # of no share
        ("crop", 8),  # without single_steps
        ("single_batch_size", 8),  # likewise
        ("unrolled_crop", 0),
        ("unrolled_singles", -1),
        ("unrolled_singles", 4),  # without unrolled_crop
        ("dreamt_levels", (80.0,)),  # of nothing that is dreamt
        ("reward_end_every", 0),
        ("reward_end_length", 1),
        ("ema_decay", 1.0),
        ("ema_decay", -0.1),
    ],
)
def test_settings_that_cannot_work_are_refused_when_they_are_made(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("levels", [(), (20.0, 80.0), (80.0, 0.0)])
def test_levels_that_cannot_be_walked_down_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^dreamt_levels is"):
        TrainingConfig(unrolled_crop=8, dreamt_levels=levels)


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


def test_the_heads_learn_without_the_denoiser(played: Replay, tiny_model: TinyModel) -> None:
    model = tiny_model()
    trainer = WorldModelTrainer(model, CONFIG, CPU)
    before = weights(model)
    _, for_heads = Batches(played, model, CONFIG, CPU, seed=0).draw()
    losses = trainer.step(None, for_heads)
    assert losses.denoiser.isnan()
    assert losses.reward.isfinite()
    assert moved(before, weights(model), "denoiser") == 0
    assert moved(before, weights(model), "reward_end") > 0


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_weights_lie_as_asked(
    tiny_model: TinyModel, memory_format: torch.memory_format
) -> None:
    trainer = WorldModelTrainer(tiny_model(), CONFIG, CPU, memory_format=memory_format)
    kernels = [weight for weight in trainer.fitted.parameters() if weight.ndim == 4]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=memory_format) for kernel in kernels)
