"""The share of a batch that one of several processes computes."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dreamenv.errors import InputError


@dataclass(frozen=True)
class Share:
    """One of the equal parts, in order, that the rows of a batch are cut into.

    Attributes:
        index: Which of them; the first is 0.
        count: How many there are.
    """

    index: int = 0
    count: int = 1

    def of(self, whole: Tensor, dim: int = 0) -> Tensor:
        """Returns the rows of the share.

        Args:
            whole: All rows.
            dim: The dimension that counts them.

        Raises:
            InputError: They cannot be cut into equal parts.
        """
        if self.count == 1:
            return whole
        rows, left = divmod(whole.shape[dim], self.count)
        if left:
            raise InputError(
                f"{whole.shape[dim]} rows cannot be cut into {self.count} equal shares; give a "
                f"multiple of {self.count}"
            )
        return whole.narrow(dim, self.index * rows, rows)

    def drawn(self, shape: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        """Returns the random numbers of the share: those that its rows have in the whole.

        Those of all rows are drawn, so that a generator goes on alike for every share.

        Args:
            shape: Of the share, rows first.
            draw: Draws random numbers of a shape.
        """
        return self.of(draw((shape[0] * self.count, *shape[1:])))


WHOLE = Share()
"""All rows."""
