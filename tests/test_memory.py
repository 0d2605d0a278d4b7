import numpy as np
import pytest
import torch

from dreamenv.memory import lacks_memory

FAR_TOO_MUCH = 2**60  # bytes


def test_it_is_told_of_what_torch_raises() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(FAR_TOO_MUCH, dtype=torch.uint8)
    assert lacks_memory(raised.value)
    assert lacks_memory(torch.OutOfMemoryError("CUDA out of memory."))


def test_it_is_told_of_what_numpy_and_python_raise() -> None:
    with pytest.raises(MemoryError) as raised:
        np.empty(FAR_TOO_MUCH, np.uint8)
    assert lacks_memory(raised.value)
    with pytest.raises(MemoryError) as raised:
        bytearray(FAR_TOO_MUCH)
    assert lacks_memory(raised.value)


def test_it_is_not_told_of_other_errors() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.ones(2) @ torch.ones(3)
    assert not lacks_memory(raised.value)
