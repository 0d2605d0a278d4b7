from typing import Any

import numpy as np
import pytest
import torch

from dreamenv.dream.seeding import SEEDS, to_seed
from dreamenv.errors import InputError


@pytest.mark.parametrize("seed", [0, 1, 2**32, SEEDS - 1, np.int64(7), np.uint8(7)])
def test_seeds(seed: Any) -> None:
    turned = to_seed(seed)
    assert turned == seed
    assert type(turned) is int
    torch.Generator().manual_seed(turned)


@pytest.mark.parametrize("seed", [-1, SEEDS, 1.0, "1", [1, 2], None, np.float64(1), np.array([1])])
def test_what_is_no_seed(seed: Any) -> None:
    with pytest.raises(InputError, match=r"^seed is .*; it must be one integer from 0 to \d+$"):
        to_seed(seed)
