from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamenv.data import Episode, Replay, change_std
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError
from dreamenv.models.world_model import WorldModel
from dreamenv.training.batches import Batches
from dreamenv.training.checkpoint import load_checkpoint, save_checkpoint
from dreamenv.training.optimisation import OptimiserConfig
from dreamenv.training.training_config import TrainingConfig
from dreamenv.training.world_model import Losses, WorldModelTrainer, measure_change

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
    state = load_checkpoint(path)
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
