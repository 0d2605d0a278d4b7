import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamenv.dream.transfer import Array, ToHost, pack, unpack

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CUDA = torch.device("cuda")  # naming it needs none


def some_tensors(num_envs: int) -> list[Tensor]:
    """What a step gives: rewards at a place that float32 could not begin at without a gap."""
    return [
        torch.randint(0, 256, (num_envs, 5, 3, 1), dtype=torch.uint8),
        torch.randn(num_envs),
        torch.rand(num_envs) < 0.5,
        torch.randn(num_envs, 2).double(),
    ]


def assert_equal(arrays: list[Array], tensors: list[Tensor]) -> None:
    assert [array.dtype for array in arrays] == [tensor.cpu().numpy().dtype for tensor in tensors]
    for array, tensor in zip(arrays, tensors, strict=True):
        np.testing.assert_array_equal(array, tensor.cpu().numpy(), strict=True)


@given(st.integers(0, 9))
def test_what_is_packed_comes_out(num_envs: int) -> None:
    tensors = some_tensors(num_envs)
    packed = pack(tensors)
    assert packed.dtype == torch.uint8
    assert packed.ndim == 1
    assert_equal([part.numpy() for part in unpack(packed, tensors)], tensors)


def test_channels_last_are_packed_in_the_order_of_their_shape() -> None:
    frames = torch.arange(24, dtype=torch.uint8).view(1, 2, 3, 4).permute(0, 2, 3, 1)
    assert_equal([part.numpy() for part in unpack(pack([frames]), [frames])], [frames])


@pytest.mark.parametrize("device", [torch.device("cpu"), CUDA], ids=str)
def test_arrays_are_those_of_the_tensors(device: torch.device) -> None:
    to_host = ToHost(device)
    for num_envs in (3, 1, 7):
        tensors = some_tensors(num_envs)
        assert_equal(to_host(*tensors), tensors)


def test_arrays_stay_as_they_were_when_more_is_copied() -> None:
    to_host = ToHost(CUDA)
    first, then = some_tensors(4), some_tensors(4)
    arrays = to_host(*first)
    to_host(*then)
    assert_equal(arrays, first)


def test_copies_in_inference_mode_and_out_of_it() -> None:
    to_host = ToHost(CUDA)
    with torch.inference_mode():
        tensors = some_tensors(4)
        assert_equal(to_host(*tensors), tensors)
    assert_equal(to_host(*tensors), tensors)


@NEEDS_CUDA
def test_from_a_gpu_it_is_one_transfer_to_page_locked_memory() -> None:
    to_host = ToHost(CUDA)
    tensors = [tensor.cuda() for tensor in some_tensors(64)]
    assert_equal(to_host(*tensors), tensors)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        to_host(*tensors)
    copies = [event.name for event in profile.events() if event.name.startswith("Memcpy DtoH")]
    assert copies == ["Memcpy DtoH (Device -> Pinned)"]
