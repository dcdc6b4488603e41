"""Several results, held against the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim import config, notebook, text
from npusim.breakdown import PHASE_NAMES, comparison_cells, rows_of
from npusim.errors import NpusimError

if TYPE_CHECKING:
    import pandas as pd

    from npusim.accessor import Plots
    from npusim.results import Result

SHOWN_CHANGES = 3


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Results with different labels; `runs[0]` is the baseline.

    >>> both = npusim.compare("resnet18-swu", dataflows=["dense-os", "reduction-spatial"])
    >>> both.table.loc["reduction-spatial", "speedup"]
    """

    runs: tuple[Result, ...]

    def __post_init__(self) -> None:
        labels = [run.label for run in self.runs]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice or not labels:
            raise NpusimError(f"a comparison has {', '.join(twice)} twice" if twice else "a comparison of nothing")

    @classmethod
    def of(cls, *results: Result) -> Comparison:
        """Results under labels that say in what they differ: workload, machine, method, dataflow."""
        names = labels(results)
        return cls(tuple(replace(result, label=name) for result, name in zip(results, names, strict=True)))

    @property
    def baseline(self) -> Result:
        """What the others are held against."""
        return self.runs[0]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per run and phase (and 'step'), indexed by both.

        cycles; time_s at the machine's clock; utilisation (wanted MACs / PE slots); stall_share (array or vector unit
        waits for operands, ports or stores, and final drains, of cycles); dram_bytes; energy_pj in all and
        `<component>_pj`; macs_done; speedup (of time) and energy_gain are baseline / this run.
        """
        import pandas as pd

        return pd.concat({run.label: _summary(run, self.baseline) for run in self.runs}, names=["run", "phase"])

    @property
    def manifest(self) -> dict[str, Any]:
        """Provenance: that of the baseline, and in `runs` what was simulated of every run."""
        dataflows: dict[str, Any] = {}
        for run in self.runs:
            dataflows |= run.manifest["dataflows"]
        runs = [{"label": run.label, **run.facts.model_dump()} for run in self.runs]
        return {**self.baseline.manifest, "dataflows": dataflows, "runs": runs}

    def compare(self, *others: Result) -> Comparison:
        """The same baseline, with more results."""
        return Comparison.of(*self.runs, *others)

    @property
    def plot(self) -> Plots:
        """Figures: `c.plot.speedup()`, `energy()`, `cycles()`, `roofline()`, `memory()`; each a matplotlib Figure."""
        from npusim.accessor import Plots

        return Plots(self.runs)

    def report(self, path: str | Path) -> Path:
        """Write the report: one HTML file that needs no network. Returns its path.

        >>> npusim.compare("tiny-cnn", dataflows=["dense-os", "dense-ws"]).report("both.html")
        """
        from npusim import atomic
        from npusim.html.page import report_page

        atomic.write(path, report_page(self))
        return Path(path)

    def save(self, folder: str | Path) -> Path:
        """Write all tables as CSV and manifest.json; `npusim.read` and `npusim report` read them."""
        from npusim import atomic, saved

        atomic.write_files(folder, saved.files(self))
        return Path(folder)

    def __repr__(self) -> str:
        cells = comparison_cells(self)
        lines = [f"baseline {text.clean(self.baseline.sentence())}"]
        for run in self.runs[1:]:
            row = cells[run.label, "step"]
            shown = f"{text.times(row['speedup'])} speedup, {text.times(row['energy_gain'])} energy gain"
            lines.append(f"{text.clean(run.label)}: {shown}")
        return "<Comparison " + "\n  ".join(lines) + ">"

    def _repr_html_(self) -> str:
        header = ("phase", "run", "cycles", "utilisation", "stalled", "energy", "speedup", "energy gain")
        rows = [
            (
                PHASE_NAMES.get(row["phase"], row["phase"]), row["run"], f"{round(row['cycles']):,}",
                text.percent(row["utilisation"]), text.percent(row["stall_share"]), text.joules(row["energy_pj"]),
                text.times(row["speedup"]), text.times(row["energy_gain"]),
            )
            for row in rows_of(self.table.reset_index())
        ]  # fmt: skip
        order = [phase for phase in dict.fromkeys(row[0] for row in rows)]
        rows.sort(key=lambda row: order.index(row[0]))
        return notebook.table(header, rows, 2, f"against {self.baseline.label}")


def labels(results: Sequence[Result]) -> list[str]:
    """Names that tell results apart: of workload, machine, method and dataflow those that differ."""
    machines = _machines(results)
    columns = [
        [run.facts.workload for run in results],
        machines,
        [run.facts.method or "as recorded" for run in results],
        [run.facts.dataflow for run in results],
    ]
    differing = [column for column in columns if len(set(column)) > 1] or columns[3:]
    found = [", ".join(parts) for parts in zip(*differing, strict=True)]
    return [
        name if found.count(name) == 1 else f"{name} #{found[: i + 1].count(name)}" for i, name in enumerate(found)
    ]  # fmt: skip


def _machines(results: Sequence[Result]) -> list[str]:
    """Names of machines; machines of one name are told apart by the keys in which they differ."""
    leaves = [dict(config.leaves(run.hardware.model_dump())) for run in results]
    found = []
    for run, own in zip(results, leaves, strict=True):
        same = [other for other, run2 in zip(leaves, results, strict=True) if run2.hardware.name == run.hardware.name]
        changed = [key for key in own if any(other.get(key) != own[key] for other in same)]
        shown = ", ".join(f"{key}={own[key]}" for key in changed[:SHOWN_CHANGES])
        more = ", ..." if len(changed) > SHOWN_CHANGES else ""
        found.append(f"{run.hardware.name} ({shown}{more})" if changed else run.hardware.name)
    return found


def _summary(run: Result, baseline: Result) -> pd.DataFrame:
    import pandas as pd

    sums, base = run.phases, baseline.phases
    waiting = sums.port_stall_cycles + sums.load_stall_cycles + sums.store_stall_cycles + sums.drain_cycles
    cycles = sums.cycles.clip(lower=1)
    clocks = run.hardware.clock_hz / baseline.hardware.clock_hz
    return pd.DataFrame(
        {
            "cycles": sums.cycles,
            "time_s": sums.cycles / run.hardware.clock_hz,
            "utilisation": sums.utilisation,
            "stall_share": waiting / cycles,
            "macs_done": sums.macs_done,
            "dram_bytes": sums.dram_read_bytes + sums.dram_write_bytes,
            "energy_pj": sums.energy_pj,
            "speedup": (base.cycles / cycles * clocks).reindex(sums.index),
            "energy_gain": (base.energy_pj / sums.energy_pj).reindex(sums.index),
            **{f"{name}_pj": sums[f"{name}_pj"] for name in run.components},
        }
    )
