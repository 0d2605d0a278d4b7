from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from dreamenv.evaluation.strip import save_picture, stack, strip


def frames(*levels: int, channels: int = 3) -> torch.Tensor:
    column = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None]
    return column.expand(len(levels), channels, 2, 5)


def test_rows_stand_below_each_other_and_steps_side_by_side() -> None:
    picture = strip([frames(1, 2, 3), frames(4, 5, 6)])
    assert picture.shape == (3, 4, 15)
    assert picture[0, ::2, ::5].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert picture[:, :2, 5:10].eq(2).all()


def test_strips_are_parted_by_a_white_line() -> None:
    picture = stack([strip([frames(1)]), strip([frames(2)])])
    assert picture.shape == (3, 2 + 4 + 2, 5)
    assert picture[0, :, 0].tolist() == [1, 1, 255, 255, 255, 255, 2, 2]
    assert torch.equal(stack([strip([frames(7)])]), strip([frames(7)]))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_picture_is_saved_as_it_is_or_its_first_channel_as_grey(
    tmp_path: Path, channels: int
) -> None:
    picture = torch.randint(0, 256, (channels, 6, 9), dtype=torch.uint8)
    save_picture(tmp_path / "picture.png", picture)
    saved = imageio.imread(tmp_path / "picture.png")
    shown = picture if channels == 3 else picture[:1].expand(3, -1, -1)
    np.testing.assert_array_equal(saved.transpose(2, 0, 1), shown.numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
