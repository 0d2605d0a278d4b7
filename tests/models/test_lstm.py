import pytest
import torch
from torch import nn

from dreamenv.models.lstm import LSTMState, initialise_lstm, step_lstm, zero_state


@pytest.mark.parametrize("lstm", [nn.LSTM(6, 4), nn.LSTMCell(6, 4)])
def test_lstms_start_as_published(lstm: nn.LSTM | nn.LSTMCell) -> None:
    initialise_lstm(lstm)
    parameters = {name.removesuffix("_l0"): tensor for name, tensor in lstm.named_parameters()}
    assert parameters["bias_ih"].tolist() == [0] * 4 + [1] * 4 + [0] * 8
    assert parameters["bias_hh"].tolist() == [0] * 16
    recurrent = parameters["weight_hh"]
    assert torch.allclose(recurrent.T @ recurrent, torch.eye(4), atol=1e-5)
    bound = (6 / (6 + 16)) ** 0.5
    assert parameters["weight_ih"].abs().max() <= bound
    assert parameters["weight_ih"].abs().max() > bound / 2


def test_the_state_before_the_first_step_is_zeros() -> None:
    state = zero_state(nn.LSTM(6, 4), 3)
    assert state.h.shape == state.c.shape == (3, 4)
    assert state.h.abs().sum() + state.c.abs().sum() == 0
    assert state.h.data_ptr() != state.c.data_ptr()


def test_a_step_is_that_of_torch() -> None:
    lstm = nn.LSTM(6, 4, batch_first=True)
    state = LSTMState(torch.randn(3, 4), torch.randn(3, 4))
    for _ in range(3):
        x = torch.randn(3, 6)
        _, (h, c) = lstm(x[:, None], (state.h[None], state.c[None]))
        state = step_lstm(lstm, x, state)
        torch.testing.assert_close(state, LSTMState(h[0], c[0]))


def test_a_choice_between_states_is_one_of_rows() -> None:
    ours, theirs = (LSTMState(torch.rand(3, 2), torch.rand(3, 2)) for _ in range(2))
    chosen = ours.where(torch.tensor([True, False, True]), theirs)
    for each, one, other in zip(chosen, ours, theirs, strict=True):
        assert torch.equal(each, torch.stack([one[0], other[1], one[2]]))


def test_no_gradient_flows_into_a_detached_state() -> None:
    h, c = torch.ones(2, 1, 3, requires_grad=True).unbind()
    state = LSTMState(h, c).detach()
    assert torch.equal(state.h, h)
    assert not state.h.requires_grad
    assert not state.c.requires_grad
