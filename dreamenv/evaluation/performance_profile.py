"""How many runs reach how much: a curve that hides no game behind a mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from dreamenv.config import Config
from dreamenv.evaluation.stratified import Numbers, estimate

THRESHOLDS = tuple(round(0.02 * number, 2) for number in range(101))  # up to twice the human score


@dataclass(frozen=True)
class PerformanceProfile(Config):
    """The share of runs above each threshold, all games counting the same (Agarwal et al., 2021).

    Attributes:
        thresholds: Human-normalised scores, rising.
        shares: The share of runs whose score is above each.
        low: The lower ends of their 95% intervals, by the stratified bootstrap over runs; None
            where a game has fewer than two runs.
        high: The upper ends, likewise.
    """

    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None

    def to_figure(self, label: str, others: Mapping[str, "PerformanceProfile"]) -> Figure:
        """Draws the curve with its band above those of others, which are thin and dashed.

        Args:
            label: Whose it is.
            others: By label.
        """
        figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
        axes = figure.add_subplot(
            xlabel="human-normalised score τ",
            ylabel="share of runs with a score above τ",
            xlim=(self.thresholds[0], self.thresholds[-1]),
            ylim=(0, 1),
        )
        for name, other in others.items():
            axes.step(
                other.thresholds,
                other.shares,
                where="post",
                linestyle="--",
                linewidth=1,
                label=name,
            )
        axes.step(
            self.thresholds,
            self.shares,
            where="post",
            color="black",
            linewidth=2,
            label=label,
        )
        if self.low is not None and self.high is not None:
            axes.fill_between(
                self.thresholds, self.low, self.high, step="post", color="black", alpha=0.2
            )
        axes.grid(alpha=0.3)
        axes.legend()
        return figure


def profile(
    scores: Sequence[Sequence[float]], thresholds: tuple[float, ...] = THRESHOLDS
) -> PerformanceProfile:
    """Works the curve out.

    Args:
        scores: The human-normalised scores of the runs of each game.
        thresholds: Where.

    Raises:
        InputError: There is no game, or a game has no run.
        DreamenvError: SciPy is not installed.
    """

    def shares(matrices: Numbers) -> Numbers:
        above = [(matrices > threshold).mean(axis=(-2, -1)) for threshold in thresholds]
        return np.stack(above, axis=-1)

    estimates = estimate(scores, shares)
    ends = (estimates.low, estimates.high)
    low, high = (None if end is None else tuple(end.tolist()) for end in ends)
    return PerformanceProfile(thresholds, tuple(estimates.values.tolist()), low, high)
