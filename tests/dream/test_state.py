from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from torch import Tensor

from dreamenv.dream.state import DreamState

NAMES = [field.name for field in fields(DreamState)]


def numbered(*numbers: int) -> DreamState:
    """A state whose dreams can be told from their numbers, in every tensor."""
    rows = torch.tensor(numbers)
    return DreamState(
        frames=rows.to(torch.uint8)[:, None, None, None, None].repeat(1, 2, 1, 3, 4),
        actions=rows[:, None].repeat(1, 2),
        h=rows[:, None].repeat(1, 5).float(),
        c=-rows[:, None].repeat(1, 5).float(),
        since_reward=-rows,
        steps=rows.clone(),
        ended=rows % 2 == 1,
        next_context=rows + 100,
    )


def tensors(state: DreamState) -> list[Tensor]:
    return [getattr(state, name) for name in NAMES]


def assert_equal(state: DreamState, expected: DreamState) -> None:
    for name, ours, theirs in zip(NAMES, tensors(state), tensors(expected), strict=True):
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours, theirs), name


def assert_apart(state: DreamState, *others: DreamState) -> None:
    """Writing to the one changes none of the others."""
    before = [[tensor.clone() for tensor in tensors(other)] for other in others]
    for tensor in tensors(state):
        tensor.zero_()
    for other, kept in zip(others, before, strict=True):
        assert all(torch.equal(*pair) for pair in zip(tensors(other), kept, strict=True))


def test_its_length_is_the_number_of_dreams() -> None:
    assert len(numbered(7, 8, 9)) == 3


def test_rows_are_taken_in_the_order_asked_for_and_as_often() -> None:
    state = numbered(4, 5, 6, 7)
    assert_equal(state.rows(torch.tensor([2, 0, 2, 3, 1])), numbered(6, 4, 6, 7, 5))
    assert_equal(state, numbered(4, 5, 6, 7))


def test_no_rows_are_a_state_of_no_dreams() -> None:
    assert len(numbered(4, 5).rows(torch.tensor([], dtype=torch.int64))) == 0


def test_rows_are_copies() -> None:
    state = numbered(4, 5, 6)
    assert_apart(state.rows(torch.arange(3)), state)


def test_where_takes_whole_rows_of_either() -> None:
    ours, theirs = numbered(1, 2, 3), numbered(11, 12, 13)
    mask = torch.tensor([True, False, True])
    assert_equal(ours.where(mask, theirs), numbered(1, 12, 3))
    assert_equal(ours.where(~mask, theirs), numbered(11, 2, 13))
    assert_equal(ours, numbered(1, 2, 3))
    assert_equal(theirs, numbered(11, 12, 13))


@pytest.mark.parametrize("taken", [True, False])
def test_where_copies_even_if_all_rows_are_of_one(taken: bool) -> None:
    ours, theirs = numbered(1, 2), numbered(11, 12)
    assert_apart(ours.where(torch.tensor([taken, taken]), theirs), ours, theirs)


def test_replaced_rows_stand_where_the_indices_say_and_the_others_stay() -> None:
    state = numbered(1, 2, 3, 4)
    other = numbered(21, 22)
    assert_equal(state.replace(torch.tensor([3, 1]), other), numbered(1, 22, 3, 21))
    assert_equal(state, numbered(1, 2, 3, 4))
    assert_equal(other, numbered(21, 22))


def test_replacing_copies() -> None:
    state, other = numbered(1, 2, 3), numbered(21, 22, 23)
    assert_apart(state.replace(torch.arange(3), other), state, other)
    assert_apart(state.replace(torch.tensor([0]), numbered(21)), state)


def test_its_tensors_are_not_exchanged() -> None:
    state = numbered(1)
    with pytest.raises(FrozenInstanceError):
        state.steps = torch.zeros(1)  # type: ignore[misc]
