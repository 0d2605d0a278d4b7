import pytest
import torch

from dreamenv.errors import InputError
from dreamenv.share import WHOLE, Share


def test_shares_are_equal_parts_in_order() -> None:
    rows = torch.arange(12).view(6, 2)
    shares = [Share(index, 3).of(rows) for index in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    assert torch.equal(torch.cat(shares), rows)
    columns = [Share(index, 2).of(rows, 1) for index in range(2)]
    assert torch.equal(torch.cat(columns, dim=1), rows)
    assert WHOLE.of(rows) is rows


def test_rows_that_cannot_be_cut_equally_are_refused() -> None:
    with pytest.raises(InputError, match=r"^5 rows cannot be cut into 2 equal shares"):
        Share(0, 2).of(torch.zeros(5))


def test_each_row_has_the_random_numbers_that_it_has_in_the_whole() -> None:
    def draw(share: Share, rows: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [
            share.drawn((rows, 3), lambda shape: torch.randn(shape, generator=generator))
            for _ in range(2)
        ]

    whole = draw(WHOLE, 40)
    halves = draw(Share(0, 2), 20), draw(Share(1, 2), 20)
    for drawn, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(drawn, torch.cat([first, second]))
