import itertools

import pytest
import torch
from torch import Tensor

from dreamenv.models.choice_head import ChoiceHead

SIZE = (8, 12)


def head_of(choices: int = 3, memory: int = 2, place_maps: int = 2) -> ChoiceHead:
    """A head of which every part matters."""
    head = ChoiceHead(choices, memory, place_maps, 8, 12, SIZE)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return head


def some_frame() -> tuple[Tensor, Tensor]:
    return torch.randn(1, 8, *SIZE), torch.randn(1, 12, *SIZE)


@torch.no_grad()
def drawn(
    head: ChoiceHead, features: Tensor, output: Tensor, since: int = 0, choice: int = 0
) -> Tensor:
    told = torch.tensor([since]), torch.tensor([choice])
    chosen: Tensor = head(head.see(features, output, None), output, *told)
    return chosen


def test_at_first_it_changes_nothing() -> None:
    features, output = some_frame()
    head = ChoiceHead(3, 2, 2, 8, 12, SIZE)
    for choice in range(3):
        assert torch.equal(drawn(head, features, output, 1, choice), output)


def test_each_choice_after_each_reward_draws_a_frame_of_its_own() -> None:
    frame, head = some_frame(), head_of()
    futures = [drawn(head, *frame, since, choice) for since in (-2, -1, 1, 2) for choice in (0, 2)]
    assert len(torch.cat(futures).unique(dim=0)) == 8


@pytest.mark.parametrize("since", [0, 3, -3, 1000])
def test_while_no_reward_is_remembered_it_changes_nothing(since: int) -> None:
    features, output = some_frame()
    for choice in range(3):
        assert torch.equal(drawn(head_of(), features, output, since, choice), output)


def test_without_a_memory_it_always_chooses_and_rewards_mean_nothing() -> None:
    frame, head = some_frame(), head_of(memory=0)
    futures = [drawn(head, *frame, since, choice) for since in (0, 1, -5) for choice in range(3)]
    assert len(torch.cat(futures).unique(dim=0)) == 3
    assert not torch.equal(futures[0], frame[1])


def test_what_was_never_met_changes_nothing() -> None:
    (features, output), head = some_frame(), ChoiceHead(3, 2, 2, 8, 12, SIZE)
    optimiser = torch.optim.SGD(head.parameters(), lr=1.0)
    for _ in range(2):
        told = torch.tensor([1]), torch.tensor([2])
        optimiser.zero_grad()
        head(head.see(features, output, None), output, *told).sum().backward()
        optimiser.step()
    assert not torch.equal(drawn(head, features, output, 1, 2), output)
    for since, choice in itertools.product((-1, 1, 2), range(3)):
        if (since, choice) != (1, 2):
            assert torch.equal(drawn(head, features, output, since, choice), output)


@torch.no_grad()
def test_a_square_is_changed_as_the_frame_is_that_it_was_cut_out_of() -> None:
    (features, output), head = some_frame(), head_of()
    whole = drawn(head, features, output, 1, 2)
    square = slice(None), slice(None), slice(0, 8), slice(3, 12)
    corner, told = torch.tensor([[0, 3]]), (torch.tensor([1]), torch.tensor([2]))
    seen = head.see(features[square], output[square], corner)
    cut = head(seen, output[square], *told)
    # Three convolutions: what is nearer to the cut than three pixels sees its zeros.
    assert torch.allclose(cut[..., 3:], whole[..., 6:], atol=1e-5)
    elsewhere = head(
        head.see(features[square], output[square], corner - corner), output[square], *told
    )
    assert not torch.allclose(elsewhere[..., 3:], whole[..., 6:], atol=1e-2)
