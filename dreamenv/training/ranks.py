"""The ranks of a run: the processes, one a device, that learn together as one would alone.

`torchrun` starts them. Each draws the same batches and the same noise and computes its share of
the rows; gradients and losses are parts of one rank's alone, and add up to them.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dreamenv.devices import resolve_device
from dreamenv.errors import ConfigError, RankError
from dreamenv.share import Share

# The others wait while the first plays games. One that has ended is noticed at once all the same:
# its connections close.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run. Alone, it does nothing in any of these methods.

    Attributes:
        rank: Its number; the first is 0.
        count: How many there are.
        local: Its number on this machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> "Ranks":
        """Returns what torchrun says of this process; alone if it was not started by it.

        Raises:
            ConfigError: The environment names several processes, but not which this one is.
        """
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return cls()
        names = "RANK", "WORLD_SIZE", "LOCAL_RANK"
        try:
            return cls(*(int(os.environ[name]) for name in names))
        except (KeyError, ValueError):
            raise ConfigError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and {' and '.join(names[::2])} are not "
                f"numbers beside it; start the run with torchrun, or unset WORLD_SIZE"
            ) from None

    @property
    def is_first(self) -> bool:
        """Whether it is the one that leads the others."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """Its share of the rows of a batch."""
        return Share(self.rank, self.count)

    def device(self, name: str) -> torch.device:
        """Returns the device that this rank computes on.

        Args:
            name: As of `resolve_device`; with several ranks without a number.

        Raises:
            InputError: There is no such device, or none for this rank.
            ConfigError: Several ranks cannot compute on it.
        """
        device = resolve_device(name)
        if self.count == 1 or device.type == "cpu":
            return device
        if device.type != "cuda" or ":" in name:
            raise ConfigError(
                f"device is {name!r}; several ranks compute on 'cpu', or on 'cuda' without a "
                f"number, one device each"
            )
        return resolve_device(f"cuda:{self.local}")

    def join(self, device: torch.device) -> None:
        """Meets the other ranks.

        Args:
            device: That of this rank.
        """
        if self.count == 1:
            return
        # Optimisers import this later. Its functions would then keep the group that they find, as
        # a default, and gloo's threads with it, which now and then abort as the interpreter ends.
        import torch.distributed.nn.functional

        if device.type == "cuda":
            torch.cuda.set_device(device)
        # What is told goes through the host in any case, and waits for no device.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with _naming_lost_ranks():
            dist.init_process_group(backend, timeout=_PATIENCE)

    def leave(self) -> None:
        """Waits for the other ranks to leave as well, and parts from them."""
        if self.count == 1:
            return
        with _naming_lost_ranks():
            dist.all_reduce(torch.zeros(1))
            dist.destroy_process_group()

    def tell(self, message: object) -> None:
        """Tells the other ranks something that pickles. Only for the first one.

        Raises:
            RankError: Another rank has ended.
        """
        if self.count > 1:
            with _naming_lost_ranks():
                dist.broadcast_object_list([message], src=0, device=torch.device("cpu"))

    def hear(self) -> Any:
        """Waits for what the first rank tells. Only for the others.

        Raises:
            RankError: Another rank has ended.
        """
        told: list[Any] = [None]
        with _naming_lost_ranks():
            dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
        return told[0]

    @torch.no_grad()
    def copy_first(self, module: nn.Module) -> None:
        """Takes over the weights and buffers of the first rank's module.

        Raises:
            RankError: Another rank has ended.
        """
        if self.count == 1:
            return
        with _naming_lost_ranks():
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor, src=0)

    def add_up(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Returns the sum over the ranks of each value, float32 []; no gradient flows through it.

        Raises:
            RankError: Another rank has ended.
        """
        if self.count == 1:
            return [value.detach() for value in values]
        stacked = torch.stack([value.detach() for value in values])
        with _naming_lost_ranks():
            dist.all_reduce(stacked)
        return list(stacked.unbind())

    def average(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Returns the mean over the ranks of each value, float32 []; no gradient flows through it.

        Raises:
            RankError: Another rank has ended.
        """
        sums = self.add_up(values)
        return sums if self.count == 1 else [each / self.count for each in sums]

    def add_up_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces gradients by their sum over the ranks, the same to the bit on all of them.

        Raises:
            RankError: Another rank has ended.
        """
        if self.count == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        # One message for all of them: a network has hundreds of small ones.
        together = torch.cat([gradient.flatten() for gradient in gradients])
        with _naming_lost_ranks():
            dist.all_reduce(together)
        parts = together.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def gather(self, rows: Tensor) -> Tensor:
        """Returns the rows of all ranks, in the order of their shares.

        Raises:
            RankError: Another rank has ended.
        """
        if self.count == 1:
            return rows
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        with _naming_lost_ranks():
            dist.all_gather(parts, rows)
        return torch.cat(parts)


ALONE = Ranks()
"""The one rank of a run that no torchrun has started."""


@contextmanager
def _naming_lost_ranks() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what gloo raises has no class of its own
        reason = str(error).partition("\n")[0]
        raise RankError(
            f"lost the other ranks ({reason}); see the error of the one that ended first, then add "
            f"--resume to go on"
        ) from error
