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
def drawn(head: ChoiceHead, features: Tensor, output: Tensor, since: int, choice: int) -> Tensor:
    told = torch.tensor([since]), torch.tensor([choice])
    chosen: Tensor = head(head.see(features, output, None), output, *told)
    return chosen


@torch.no_grad()
def odds(head: ChoiceHead, features: Tensor, output: Tensor, since: int) -> Tensor:
    return head.likelihood(head.see(features, output, None), torch.tensor([since]))


def test_at_first_it_changes_nothing() -> None:
    features, output = some_frame()
    head = ChoiceHead(3, 2, 2, 8, 12, SIZE)
    for choice in range(3):
        assert torch.equal(drawn(head, features, output, 1, choice), output)


@pytest.mark.parametrize("since", [0, 1, -2, 7])
def test_the_first_choice_is_what_the_unet_has_drawn(since: int) -> None:
    features, output = some_frame()
    assert torch.equal(drawn(head_of(), features, output, since, 0), output)


def test_each_other_choice_each_time_after_a_reward_is_a_change_of_its_own() -> None:
    frame, head = some_frame(), head_of()
    futures = [drawn(head, *frame, since, choice) for since in (0, 1, 2) for choice in (1, 2)]
    assert len(torch.cat(futures).unique(dim=0)) == 6
    # Whatever the sign of the reward.
    assert torch.equal(drawn(head, *frame, -2, 1), drawn(head, *frame, 2, 1))


def test_what_was_never_met_changes_nothing() -> None:
    (features, output), head = some_frame(), ChoiceHead(3, 2, 2, 8, 12, SIZE)
    optimiser = torch.optim.SGD(head.parameters(), lr=1.0)
    for _ in range(2):
        told = torch.tensor([1]), torch.tensor([2])
        optimiser.zero_grad()
        head(head.see(features, output, None), output, *told).sum().backward()
        optimiser.step()
    assert not torch.equal(drawn(head, features, output, 1, 2), output)
    for since, choice in itertools.product((0, 1, 2), (1, 2)):
        if (since, choice) != (1, 2):
            assert torch.equal(drawn(head, features, output, since, choice), output)


def test_at_first_each_choice_is_as_likely_as_the_others() -> None:
    assert odds(ChoiceHead(4, 2, 2, 8, 12, SIZE), *some_frame(), 1).tolist() == [[0, 0, 0, 0]]


def test_how_likely_a_choice_is_depends_on_the_frame_and_on_the_last_reward() -> None:
    head, (features, output) = head_of(), some_frame()
    told = [(features, 1), (features, -1), (features, 0), (torch.randn_like(features), 1)]
    each = [odds(head, seen, output, since) for seen, since in told]
    assert each[0].shape == (1, 3)
    assert len(torch.cat(each).unique(dim=0)) == 4


@pytest.mark.parametrize("since", [3, -3, 1000])
def test_a_reward_that_is_forgotten_is_none(since: int) -> None:
    head, frame = head_of(), some_frame()
    assert torch.equal(odds(head, *frame, since), odds(head, *frame, 0))
    for choice in range(3):
        assert torch.equal(drawn(head, *frame, since, choice), drawn(head, *frame, 0, choice))


def test_without_a_memory_rewards_mean_nothing() -> None:
    head, frame = head_of(memory=0), some_frame()
    assert torch.equal(odds(head, *frame, 1), odds(head, *frame, 0))
    assert torch.equal(drawn(head, *frame, 1, 2), drawn(head, *frame, 0, 2))


def test_learning_how_likely_choices_are_changes_nothing_that_is_drawn() -> None:
    head, (features, output) = head_of(), some_frame()
    features.requires_grad_(True)
    likelihood = head.likelihood(head.see(features, output, None), torch.tensor([1]))
    likelihood.log_softmax(dim=1)[:, 0].sum().backward()
    assert features.grad is None
    learns = {name for name, parameter in head.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in learns} == {"find", "found", "moment", "odds"}


@torch.no_grad()
def test_a_square_is_changed_as_the_frame_is_that_it_was_cut_out_of() -> None:
    (features, output), head = some_frame(), head_of()
    whole = drawn(head, features, output, 1, 2)
    square = slice(None), slice(None), slice(0, 8), slice(3, 12)
    corner, told = torch.tensor([[0, 3]]), (torch.tensor([1]), torch.tensor([2]))
    cut = head(head.see(features[square], output[square], corner), output[square], *told)
    # Three convolutions: what is nearer to the cut than three pixels sees its zeros.
    assert torch.allclose(cut[..., 3:], whole[..., 6:], atol=1e-5)
    elsewhere = head.see(features[square], output[square], corner - corner)
    cut = head(elsewhere, output[square], *told)
    assert not torch.allclose(cut[..., 3:], whole[..., 6:], atol=1e-2)
