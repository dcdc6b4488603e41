"""`Result.plot` and `Comparison.plot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from npusim import memory_plot, plot, roofline
from npusim.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from npusim.results import Result


class Plots:
    """Figures of one or several results; each method returns a new matplotlib Figure, which notebooks show.

    >>> npusim.simulate("tiny-cnn").plot.roofline().savefig("roofline.png")
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self._results = tuple(results)

    def speedup(self, *others: Result) -> Figure:
        """Speedup and energy gain of the others against the first result, per phase and for the step.

        Of one result alone, how much faster each phase could be: its cycles against the lower bounds of its
        operations (`npusim.bounds`), which no schedule undercuts.
        """
        runs = (*self._results, *others)
        return plot.drawn(plot.speedup if len(runs) > 1 else plot.headroom, _comparison(runs))

    def energy(self, *others: Result) -> Figure:
        """Energy by component, of the weight gradients (WGC) and of the step."""
        return plot.drawn(plot.energy, _comparison((*self._results, *others)))

    def cycles(self, *others: Result) -> Figure:
        """Where the cycles go (busy, waiting by cause), of the weight gradients (WGC) and of the step."""
        return plot.drawn(plot.cycles, _comparison((*self._results, *others)))

    def roofline(self, *others: Result) -> Figure:
        """Every operation under the limits of the machine."""
        return plot.drawn(roofline.figure, (*self._results, *others))

    def memory(self) -> Figure:
        """Bytes alive in every operation of the (first) step, by group."""
        return plot.drawn(memory_plot.of_result, self._results[0])

    def __repr__(self) -> str:
        return "<Plots: speedup(), energy(), cycles(), roofline(), memory()>"


def _comparison(runs: Sequence[Result]) -> Comparison:
    return Comparison(tuple(runs)) if len({run.label for run in runs}) == len(runs) else Comparison.of(*runs)
