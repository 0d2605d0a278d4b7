"""What the recurrent networks share: the state of an LSTM, and how one is initialised."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LSTMState(NamedTuple):
    """The state of an LSTM: `h` and `c`, each float32 [N, lstm_dim]."""

    h: Tensor
    c: Tensor

    def where(self, mask: Tensor, other: "LSTMState") -> "LSTMState":
        """Takes these rows where the mask, bool [N], is true, and the other ones elsewhere."""
        rows = mask[:, None]
        return LSTMState(torch.where(rows, self.h, other.h), torch.where(rows, self.c, other.c))

    def detach(self) -> "LSTMState":
        """Returns the state without the course of computation that gradients would follow."""
        return LSTMState(self.h.detach(), self.c.detach())


def zero_state(lstm: nn.LSTM | nn.LSTMCell, num_rows: int) -> LSTMState:
    """Returns the state before the first step, on the device of the LSTM."""
    weight = next(lstm.parameters())
    shape = num_rows, lstm.hidden_size
    return LSTMState(weight.new_zeros(shape), weight.new_zeros(shape))


def step_lstm(lstm: nn.LSTM, x: Tensor, state: LSTMState) -> LSTMState:
    """Takes one step of an LSTM of one layer, by plain products.

    On a CPU, torch's own call first lays all weights out anew, which for one step takes longer than
    the products (atari100k, one row: 3.5 ms in bf16 and 1.6 in float32 for 0.5).

    Args:
        lstm: Its weights.
        x: [N, features].
        state: The state before.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = lstm.all_weights[0]
    gates = F.linear(x, weight_ih, bias_ih) + F.linear(state.h, weight_hh, bias_hh)
    enters, stays, cell, leaves = gates.chunk(4, dim=1)
    c = stays.sigmoid() * state.c + enters.sigmoid() * cell.tanh()
    return LSTMState(leaves.sigmoid() * c.tanh(), c)


def initialise_lstm(lstm: nn.LSTM | nn.LSTMCell) -> None:
    """Initialises an LSTM as DIAMOND does.

    Input weights Xavier-uniform, recurrent weights orthogonal, biases 0 but the input bias of
    the forget gate, which is 1.
    """
    for name, parameter in lstm.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(parameter)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)
        if name.startswith("bias_ih"):
            gate = len(parameter) // 4
            nn.init.ones_(parameter[gate : 2 * gate])
