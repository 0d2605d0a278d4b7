import pytest
import torch

from dreamenv.devices import computes_in_bf16, resolve_device
from dreamenv.errors import InputError


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("no_accelerator")
def test_auto_is_the_cpu_where_there_is_nothing_better() -> None:
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.usefixtures("no_accelerator")
def test_auto_is_mps_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")


@pytest.mark.usefixtures("one_gpu")
def test_auto_is_cuda_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_is_named_by_its_number() -> None:
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(InputError, match="device 'cuda:1' is not there; use 'cpu', or 'auto'"):
        resolve_device("cuda:1")


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "cpu:1", "meta"])
def test_a_device_that_is_not_there_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"device '{name}' is not there; use 'cpu'") as error:
        resolve_device(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cuda:x", "cuda:-1"])
def test_a_name_that_torch_does_not_know_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"device is '{name}'; it must be 'auto'") as error:
        resolve_device(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": 1}, False)],
)
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert computes_in_bf16(torch.device("cpu")) is expected


def test_other_devices_compute_in_single_precision() -> None:
    assert not computes_in_bf16(torch.device("mps"))
