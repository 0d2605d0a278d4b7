import pytest
import torch

from dreamenv.data import Replay
from dreamenv.evaluation.detection import Detection, as_detections, count_outcomes, detect

from .counting import CountingWorld

CPU = torch.device("cpu")


def test_shares_of_nothing_are_none() -> None:
    nothing = Detection(hits=0, predicted=0, actual=0)
    assert nothing.precision is None
    assert nothing.recall is None
    assert Detection(hits=0, predicted=0, actual=3).recall == 0.0


def test_it_reads_as_precision_and_recall_and_how_often() -> None:
    assert str(Detection(3, 4, 6)) == "0.750 / 0.500 (6)"
    assert str(Detection(0, 0, 3)) == "- / 0.000 (3)"


def test_steps_are_counted_where_they_are_judged() -> None:
    judged = torch.tensor([[True, True, True, False]])
    detections = as_detections(
        count_outcomes(
            torch.tensor([[0, 1, 2, 2]]),
            torch.tensor([[0, 2, 2, 2]]),
            torch.tensor([[True, False, False, True]]),
            torch.tensor([[False, False, True, True]]),
            judged,
        )
    )
    assert detections.rewards == (Detection(1, 1, 1), Detection(0, 1, 0), Detection(1, 1, 2))
    assert detections.end == Detection(0, 1, 1)


def test_every_held_out_step_is_judged_once(replay: Replay) -> None:
    told: list[int] = []
    detections = detect(CountingWorld(ends=[130, 110, 205]), replay, CPU, told.append)
    # Ten steps of each action in one episode, five of the first in the other.
    assert detections.rewards == (Detection(15, 15, 15), Detection(10, 10, 10), Detection(0, 0, 0))
    # 110 lies in the middle, and the episode that stops at 205 was truncated.
    assert detections.end == Detection(hits=1, predicted=3, actual=1)
    assert told[-1] == 25


@pytest.mark.parametrize("levels", [range(10, 23), range(30, 55)])
def test_episodes_that_are_trained_on_are_not_judged(replay: Replay, levels: range) -> None:
    assert detect(CountingWorld(ends=levels), replay, CPU).end.predicted == 0
