import pytest
import torch

from dreamenv.models.reward_memory import RewardEmbedding, later


def test_steps_are_counted_from_the_last_reward_with_its_sign() -> None:
    since, counted = torch.zeros(2, dtype=torch.int64), []
    for reward in ([0, 0], [1, 0], [0, -1], [0, 0], [-0.5, 0], [0, 2]):
        since = later(since, torch.tensor(reward))
        counted.append(since.tolist())
    assert counted == [[0, 0], [1, 0], [2, -1], [3, -2], [-1, -3], [-2, 1]]
    assert since.dtype == torch.int64


def test_each_reward_within_memory_has_an_embedding_of_its_own() -> None:
    embedding = RewardEmbedding(3, 8)
    torch.nn.init.normal_(embedding.embedding.weight)
    assert len(embedding(torch.arange(-3, 4)).unique(dim=0)) == 7


def test_a_reward_is_forgotten_after_so_many_steps() -> None:
    embedding = RewardEmbedding(3, 8)
    torch.nn.init.normal_(embedding.embedding.weight)
    forgotten = embedding(torch.tensor([0, 4, -4, 1000, -1000]))
    assert len(forgotten.unique(dim=0)) == 1


@pytest.mark.parametrize("since", [-2, 0, 2])
def test_at_first_it_says_nothing(since: int) -> None:
    assert not RewardEmbedding(2, 8)(torch.tensor([since])).any()
