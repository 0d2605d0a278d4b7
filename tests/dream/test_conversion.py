from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from dreamenv import Contexts, Dream, WorldModel
from dreamenv.dream.conversion import (
    check_options,
    context_option,
    observation_space,
    to_actions,
    to_channels_last,
    to_mask,
)
from dreamenv.errors import InputError

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


@pytest.mark.parametrize("frame_stack", [1, 3])
def test_the_space_is_that_of_frames_channels_last(
    world_model: WorldModel, contexts: Contexts, frame_stack: int
) -> None:
    dream = Dream(world_model, contexts, 2, frame_stack=frame_stack)
    space = observation_space(dream)
    assert space == Box(0, 255, (40, 40, 3 * frame_stack), np.uint8)
    for row in to_channels_last(dream.reset(seed=0)).numpy():
        assert row in space


def test_channels_come_last() -> None:
    obs = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    turned = to_channels_last(obs)
    assert turned.shape == (2, 4, 5, 3)
    assert turned.dtype == torch.uint8
    assert turned.is_contiguous()
    for channel in range(3):
        assert torch.equal(turned[..., channel], obs[:, channel])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_of_all_sizes_are_actions(dtype: str) -> None:
    expected = torch.tensor([2, 0, 1])
    for actions in (np.array([2, 0, 1], dtype), torch.tensor([2, 0, 1], dtype=vars(torch)[dtype])):
        turned = to_actions(actions)
        assert turned.dtype == torch.int64
        assert torch.equal(turned, expected)


@pytest.mark.parametrize(
    "actions",
    [
        [2, 0, 1],
        (2, 0, 1),
        [np.int64(2), np.int32(0), np.int8(1)],
        np.array([1, 0, 2])[::-1],
        np.array([2, 9, 0, 9, 1, 9])[::2],
    ],
)
def test_sequences_and_views_are_actions(actions: Any) -> None:
    assert torch.equal(to_actions(actions), torch.tensor([2, 0, 1]))


def test_an_array_that_must_not_be_written_to_is_taken_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    actions, mask = np.array([2, 0, 1]), np.array([True, False])
    actions.flags.writeable = mask.flags.writeable = False
    assert to_actions(actions).tolist() == [2, 0, 1]
    assert to_mask(mask).tolist() == [True, False]
    assert not list(recwarn)


def test_an_unsigned_integer_too_large_stays_no_action() -> None:
    actions = to_actions(np.array([2**64 - 1], np.uint64))
    assert not 0 <= int(actions[0]) < 2**62


@pytest.mark.parametrize(
    ("actions", "name"),
    [
        (np.array([0.0, 1.0]), "float64"),
        (np.array([True, False]), "bool"),
        (np.array([0j]), "complex128"),
        (np.array(["0"]), "<U1"),
        (np.array([None]), "object"),
        ([0.5, 1], "float64"),
        (None, "object"),
        ("1", "<U1"),
        (torch.tensor([0.0]), "torch.float32"),
        (torch.tensor([0.0], dtype=torch.bfloat16), "torch.bfloat16"),
        (torch.tensor([True]), "torch.bool"),
        (torch.tensor([0j]), "torch.complex64"),
        (torch.tensor([0j], dtype=torch.complex128), "torch.complex128"),
    ],
)
def test_what_are_no_integers_are_no_actions(actions: Any, name: str) -> None:
    with pytest.raises(InputError, match=f"^actions are {name}; they must be integers$"):
        to_actions(actions)


def test_rows_of_other_lengths_are_no_actions() -> None:
    with pytest.raises(InputError, match=r"^actions are .*; they must be integers$"):
        to_actions([[0], [1, 2]])


@pytest.mark.parametrize(
    "mask",
    [
        np.array([True, False, True]),
        torch.tensor([True, False, True]),
        np.array([True, True, False])[[0, 2, 1]],
        np.array([True, False, True])[::-1],
        np.array([True, True, False, False, True, True])[::2],
    ],
)
def test_masks(mask: Any) -> None:
    turned = to_mask(mask)
    assert turned.dtype == torch.bool
    assert turned.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("mask", "name"), [([True, False], "list"), (True, "bool"), (None, "NoneType"), ("", "str")]
)
def test_what_is_no_array_is_no_mask(mask: Any, name: str) -> None:
    with pytest.raises(InputError, match=f"^reset_mask is a {name}; it must be an array of bool$"):
        to_mask(mask)


@pytest.mark.parametrize(
    "mask", [np.array([None, True]), np.array(["True"]), np.array([b"1"]), np.array([{}])]
)
def test_an_array_that_no_tensor_can_be_is_no_mask(mask: Any) -> None:
    with pytest.raises(InputError, match=r"^reset_mask is .*; it must be an array of bool$"):
        to_mask(mask)


@pytest.mark.parametrize("mask", [np.zeros(3, np.bool_), torch.zeros(3, dtype=torch.bool)])
def test_a_mask_that_chooses_nothing_is_refused(mask: Any) -> None:
    with pytest.raises(InputError, match=r"^reset_mask chooses no dream; leave it out to reset"):
        to_mask(mask)


@pytest.mark.parametrize("options", [None, {}, {"reset_mask": 1}, {"context": None}])
def test_without_the_option_no_context_is_named(options: Any) -> None:
    assert context_option(options, 3) is None


@pytest.mark.parametrize("context", [4, np.int64(4), np.array(4), torch.tensor(4)])
def test_one_context_serves_all_dreams(context: Any) -> None:
    contexts = context_option({"context": context}, 3)
    assert contexts is not None
    assert contexts.dtype == torch.int64
    assert contexts.tolist() == [4, 4, 4]


@pytest.mark.parametrize("context", [[4, 0, 2], np.array([4, 0, 2]), torch.tensor([4, 0, 2])])
def test_each_dream_can_have_its_own_context(context: Any) -> None:
    contexts = context_option({"context": context}, 3)
    assert contexts is not None
    assert contexts.tolist() == [4, 0, 2]


@pytest.mark.parametrize("context", [0.5, [1.0, 0], "0", True, torch.ones(2), [[1], []]])
def test_a_context_that_is_no_integer_is_called_a_context(context: Any) -> None:
    with pytest.raises(InputError, match=r"^contexts are .*; they must be integers$"):
        context_option({"context": context}, 2)


def test_options_that_nothing_looks_at_are_refused() -> None:
    check_options(None, ("context",))
    check_options({}, ("context",))
    check_options({"context": 1}, ("context", "reset_mask"))
    message = "^options has contexts, noop; a dream knows context, reset_mask$"
    with pytest.raises(InputError, match=message):
        check_options({"noop": 1, "contexts": 2, "context": 3}, ("context", "reset_mask"))
