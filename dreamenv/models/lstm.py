"""What the recurrent networks share: the state of an LSTM, and how one is initialised."""

from typing import NamedTuple

import torch
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
