from typing import Any

import numpy as np
import pytest
import torch

from dreamenv.dream.seeding import SEEDS, generator_seed, to_seed
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


def test_no_bit_of_a_seed_is_lost() -> None:
    seeds = [3, 3 + 2**32, 3 + 2**40, 3 + 2**62]
    draws = {
        torch.rand(1, generator=torch.Generator().manual_seed(generator_seed(seed))).item()
        for seed in seeds
    }
    assert len(draws) == len(seeds)
    assert [generator_seed(seed) for seed in (0, 3, 2**32 - 1)] == [0, 3, 2**32 - 1]
