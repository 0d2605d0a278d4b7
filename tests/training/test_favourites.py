from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from dreamenv.data import Episode, Replay
from dreamenv.data.tensors import Rows
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError
from dreamenv.models.world_model import WorldModel
from dreamenv.training import favourites
from dreamenv.training.favourites import favour_by_weight, favour_outcomes, favour_the_hardest

Frames = npt.NDArray[np.uint8]
TinyModel = Callable[..., WorldModel]


@pytest.fixture
def lazy(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> WorldModel:
    """A world model that dreams that nothing moves: its error is how much did."""

    def next_obs(context: Tensor, actions: Tensor, **_: object) -> Tensor:
        assert actions.shape == context.shape[:2]
        return context[:, -1]

    model = tiny_model()
    monkeypatch.setattr(model, "next_obs", next_obs)
    return model


def training_rows(rows: Rows) -> list[int]:
    """The rows with a step to train on that is not an episode's first."""
    chosen = []
    for episode in rows.episodes("train").tolist():
        first, length = int(rows.first_rows[episode]), int(rows.lengths[episode])
        chosen += list(range(first + 1, first + length))
    return chosen


def changes(rows: Rows) -> Tensor:
    """The mean squared change to each row from the one before it, float64 [N]."""
    frames = rows.frames.double()
    squares = (frames[1:] - frames[:-1]).square().mean(dim=(1, 2, 3))
    return torch.cat([torch.zeros(1, dtype=torch.float64), squares])


def test_steps_are_favoured_in_proportion_to_their_error(played: Replay, lazy: WorldModel) -> None:
    rows = played.tensors("cpu").rows
    chosen = training_rows(rows)
    error = changes(rows)[chosen]
    error = error.clamp(max=error.quantile(0.99).item())
    assert error.min() < 0.7 * error.max(), "the test needs steps of different difficulty"
    probabilities = favour_the_hardest(lazy, played, share=1.0)
    assert probabilities.sum().item() == pytest.approx(1)
    assert torch.allclose(probabilities[chosen], error / error.sum(), atol=1e-9)
    probabilities[chosen] = 0
    assert not probabilities.any()


def test_a_device_needs_no_float64(
    on_mps: type[Tensor], played: Replay, lazy: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, dream = favour_the_hardest(lazy, played, share=1.0), lazy.next_obs

    def next_obs(*args: Tensor, **options: Any) -> Tensor:
        return dream(*args, **options).as_subclass(on_mps)

    monkeypatch.setattr(lazy, "next_obs", next_obs)
    assert torch.equal(favour_the_hardest(lazy, played, share=1.0), expected)


def test_the_rest_is_uniform(played: Replay, lazy: WorldModel) -> None:
    chosen = training_rows(played.tensors("cpu").rows)
    whole = favour_the_hardest(lazy, played, share=1.0)
    part = favour_the_hardest(lazy, played, share=0.25)
    assert torch.allclose(part[chosen], 0.75 / len(chosen) + 0.25 * whole[chosen])
    assert part.sum().item() == pytest.approx(1)


def test_of_many_steps_some_are_measured_and_all_are_drawn(
    played: Replay, lazy: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(favourites, "_MOST_MEASURED", 20)
    chosen = training_rows(played.tensors("cpu").rows)
    probabilities = favour_the_hardest(lazy, played, share=0.5)[chosen]
    least = probabilities.min()
    assert least.item() == pytest.approx(0.5 / len(chosen))
    assert int((probabilities > 1.01 * least).sum()) == 20
    again = favour_the_hardest(lazy, played, share=0.5)[chosen]
    assert torch.equal(again, probabilities)


def test_measuring_can_be_left(played: Replay, lazy: WorldModel) -> None:
    def leave() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        favour_the_hardest(lazy, played, share=0.5, on_batch=leave)


def light(frames: Frames) -> npt.NDArray[np.float64]:
    """How bright the frame is that each step leads to."""
    means: npt.NDArray[np.float64] = frames[1:].mean(axis=(1, 2, 3))
    return means + np.arange(len(means))


def test_frames_are_predicted_as_often_as_they_weigh(played: Replay) -> None:
    rows = played.tensors("cpu").rows
    probabilities = favour_by_weight(played, light, "favourites")
    assert probabilities.sum().item() == pytest.approx(1)
    wanted = torch.zeros(len(rows.is_step), dtype=torch.float64)
    for episode in rows.episodes("train").tolist():
        first, length = int(rows.first_rows[episode]), int(rows.lengths[episode])
        for step in range(1, length):
            wanted[first + step] = rows.frames[first + step].double().mean() + step - 1
    assert torch.allclose(probabilities, wanted / wanted.sum(), atol=1e-12)


def test_steps_that_pay_and_steps_that_end_are_drawn_more_often(played: Replay) -> None:
    rows = played.tensors("cpu").rows
    firsts = rows.first_rows[rows.episodes("train")].tolist()
    ours = torch.tensor([*firsts, *training_rows(rows)])
    probabilities = favour_outcomes(played, share=0.4)
    assert probabilities.sum().item() == pytest.approx(1)
    assert probabilities[ours].sum().item() == pytest.approx(1)
    ends, pays = rows.ends[ours], rows.rewards[ours] != 0
    # In the toy game the step that ends is the step that pays.
    assert torch.equal(ends, pays)
    assert probabilities[ours][ends].sum().item() == pytest.approx(0.4 + 0.6 * ends.float().mean())
    assert torch.allclose(probabilities[ours][~ends] * len(ours), torch.tensor(0.6).double())


def test_of_what_never_happens_nothing_is_drawn(tmp_path: Path, catch: EnvironmentSpec) -> None:
    replay = Replay.create(tmp_path / "calm", catch, held_out_every=None)
    obs, actions = np.zeros((5, *catch.obs_shape), np.uint8), np.zeros(4, np.int64)
    for rewards in (np.zeros(4, np.float32), np.array([0, 2, 0, 0], np.float32)):
        if rewards.any():
            with pytest.raises(InputError, match=r"calm: no step pays or ends"):
                favour_outcomes(replay, share=0.5)
        replay.append(Episode(obs, actions, rewards, terminated=False, truncated=True))
    # Two episodes of four steps, of which one pays and none ends.
    probabilities = favour_outcomes(replay, share=0.5)
    assert probabilities.max().item() == pytest.approx(0.5 / 8 + 0.5)


@pytest.mark.parametrize(
    ("weigh", "message"),
    [
        (lambda frames: np.ones(len(frames)), r"returned float64 \[\d+\] .* as many numbers"),
        (lambda frames: np.full(len(frames) - 1, "a"), "as many numbers"),
        (lambda frames: np.full(len(frames) - 1, np.nan), "not finite or below 0"),
        (lambda frames: np.full(len(frames) - 1, -1), "not finite or below 0"),
        (lambda frames: np.zeros(len(frames) - 1), "every step the weight 0"),
    ],
)
def test_weights_that_are_none_are_refused(
    played: Replay, weigh: Callable[[Frames], object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        favour_by_weight(played, weigh, "favourites")
    assert "\n" not in str(error.value)
