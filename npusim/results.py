"""What a simulation hands to people: plain tables with everything that reports, pictures and files show.

A `Result` comes from `npusim.simulate`, or from files that `npusim run --out` and `Result.save` wrote
(`npusim.read`); both give the same tables, so both make the same report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim import memory, notebook, provenance, text
from npusim.breakdown import PHASE_NAMES, STEP, cycle_parts, rows_of
from npusim.config import Model
from npusim.errors import ResultsError
from npusim.graph import PHASES, StepGraph
from npusim.method_runs import PlanRun
from npusim.npu import Hardware

if TYPE_CHECKING:
    import pandas as pd

    from npusim.accessor import Plots
    from npusim.comparison import Comparison
    from npusim.provenance import Request
    from npusim.simulation import Run

WORDS = ("phase", "name", "kind", "shape", "dataflow", "tiling", "bound")
# Columns of `Result.layers` that do not add up.
SHARES = ("density", "utilisation", "share")


class Masked(Model):
    """Update masks of a step: parameters that have one, selected weights, all weights of those parameters."""

    parameters: int
    selected: int
    size: int


class PricedAction(Model):
    """pJ of one unit of `work`, a column of `Result.layers`, and where it is booked (`npusim.energy.account`)."""

    component: str
    action: str
    work: str
    pj: float


class PriceList(Model):
    """Energy prices that applied, with source and confidence per component.

    `doubtful`: components of low confidence that cost anything.
    """

    table: str
    node_nm: int
    leakage_mw: float
    actions: list[PricedAction]
    doubtful: list[str]
    sources: dict[str, str]
    confidence: dict[str, str]
    notes: list[str]


class Facts(Model):
    """What was simulated. `operations` and `macs` are those of the step before masks; `shares` of a training method
    say how often each of its parts runs in a mean step ([1.0] when there is one part)."""

    workload: str
    digest: str
    dataflow: str
    method: str
    engine: str
    operations: int
    macs: int
    masked: Masked
    shares: list[float]
    hardware: Hardware
    prices: PriceList


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """One simulated training step.

    layers: one row per operation: what it is, how it was mapped, cycles, waiting, counted work and energy; the columns
    are described in `npusim.simulation.Run` and `npusim.counters`. `bound_cycles` is the largest lower bound, `bound`
    its name (`npusim.bounds`). A training method whose parts run with different shares has columns `part` and `share`.
    phases: sums per phase and for the whole step (row 'step'). units: how every unit spent the step.
    memory: bytes alive in every operation, by group (`npusim.memory`).
    runs: the simulations themselves, one per part; empty when the result was read from files.

    >>> r = npusim.simulate("tiny-cnn")
    >>> r.layers.nlargest(5, "cycles")[["name", "phase", "cycles"]]
    """

    label: str
    facts: Facts
    layers: pd.DataFrame
    phases: pd.DataFrame
    units: pd.DataFrame
    memory: pd.DataFrame
    manifest: Mapping[str, Any]
    runs: tuple[Run, ...] = ()

    @property
    def hardware(self) -> Hardware:
        """The machine."""
        return self.facts.hardware

    @property
    def cycles(self) -> float:
        """Cycles of the (mean) step."""
        return self.phases.at[STEP, "cycles"].item()

    @property
    def seconds(self) -> float:
        """Time of the step at the machine's clock."""
        return self.cycles / self.hardware.clock_hz

    @property
    def energy_pj(self) -> float:
        """Energy of the step."""
        return float(self.phases.at[STEP, "energy_pj"])

    @cached_property
    def energy(self) -> pd.DataFrame:
        """Picojoules per phase (rows; last row: the step) and component, with their total.

        >>> r.energy.loc["grad_weight"].nlargest(3)
        """
        found = self.phases[[f"{name}_pj" for name in self.components]].copy()
        found.columns = list(self.components)
        found["total"] = self.phases["energy_pj"]
        return found

    @cached_property
    def actions(self) -> pd.DataFrame:
        """Picojoules of each operation by action: phase, name, component, action, work, count and pj; no zeros.

        >>> r.actions.groupby(["component", "action"]).pj.sum().nlargest(5)
        """
        import pandas as pd

        head = [name for name in ("part", "share", "phase", "name") if name in self.layers]
        frames = []
        for price in self.facts.prices.actions:
            frame = self.layers[head].assign(component=price.component, action=price.action, work=price.work)
            frame["count"] = self.layers[price.work]
            frame["pj"] = frame["count"] * price.pj
            frames.append(frame[frame.pj != 0])
        return pd.concat(frames).sort_index(kind="stable").reset_index(drop=True)

    @property
    def components(self) -> tuple[str, ...]:
        """Components of the energy account."""
        names = [str(name).removesuffix("_pj") for name in self.phases.columns if str(name).endswith("_pj")]
        return tuple(name for name in names if name != "energy")

    @property
    def peak_bytes(self) -> int:
        """Memory of the training step: the most bytes alive at once."""
        return int(self.memory[list(memory.GROUPS)].sum(axis=1).max()) if len(self.memory) else 0

    def compare(self, *others: Result) -> Comparison:
        """This result as the baseline of `others`.

        >>> npusim.simulate("resnet18-swu").compare(npusim.simulate("resnet18-swu", dataflow="selective-row")).table
        """
        from npusim.comparison import Comparison

        return Comparison.of(self, *others)

    @property
    def plot(self) -> Plots:
        """Figures: `r.plot.cycles()`, `energy()`, `speedup()`, `roofline()`, `memory()`; each a matplotlib Figure."""
        from npusim.accessor import Plots

        return Plots((self,))

    def report(self, path: str | Path) -> Path:
        """Write the report: one HTML file that needs no network. Returns its path.

        >>> npusim.simulate("tiny-cnn").report("tiny.html")
        """
        return self.compare().report(path)

    def timeline(self, path: str | Path, layers: Sequence[str] = (), ops: tuple[int, int] | None = None) -> Path:
        """Write what every unit did in every cycle: .pftrace (Perfetto), .json (Chrome), .png or .svg.

        layers, ops: only some operations, by patterns of their names or by row numbers of `layers`. A method with
        several parts gives a process for each. Raises NpusimError for a result that was read from files.

        >>> npusim.simulate("tiny-cnn").timeline("tiny.json", layers=["conv1"])
        """
        from npusim import atomic, timeline, timeline_files

        path = Path(path)
        if not self.runs:
            raise ResultsError("this result was read from files, which hold no timeline: simulate the step again")
        timeline_files.check(path.suffix)
        built = [timeline.build(run, layers, ops) for run in self.runs]
        atomic.write(path, timeline_files.write(built, path.suffix))
        return path

    def save(self, folder: str | Path) -> Path:
        """Write layers, phases, units and memory as CSV and manifest.json; `npusim.read` and `npusim report` read them.

        >>> npusim.simulate("tiny-cnn").save("results/tiny")
        """
        from npusim import atomic, saved

        atomic.write_files(folder, saved.files(self))
        return Path(folder)

    def __repr__(self) -> str:
        return f"<Result {text.clean(self.sentence())}>"

    def sentence(self) -> str:
        """The result in one line: step, machine, dataflow, method, time, energy and memory."""
        facts = self.facts
        with_method = f", method {facts.method}" if facts.method else ""
        return (
            f"{facts.workload} on {self.hardware.name}, {facts.dataflow}{with_method}: {round(self.cycles):,} cycles "
            f"({self.seconds * 1e3:.3g} ms), {text.joules(self.energy_pj)}, {text.size(self.peak_bytes)} peak memory"
        )

    def _repr_html_(self) -> str:
        header = ("phase", "cycles", "busy", "stalled", "utilisation", "DRAM", "energy")
        rows = []
        for phase, row in zip(self.phases.index, rows_of(self.phases), strict=True):
            cycles = row["cycles"] or 1
            busy = cycle_parts(row)["busy"] / cycles
            rows.append((
                PHASE_NAMES.get(str(phase), phase), f"{round(row['cycles']):,}", text.percent(busy),
                text.percent(1 - busy), text.percent(row["utilisation"]),
                text.size(row["dram_read_bytes"] + row["dram_write_bytes"]), text.joules(row["energy_pj"]),
            ))  # fmt: skip
        return notebook.paragraph(self.sentence()) + notebook.table(header, rows)


def of_run(
    run: Run, request: Request, command: Sequence[str], plan: memory.MemoryPlan | None = None
) -> Result:  # fmt: skip
    """The result of one simulation of a step as it is; `plan`: its memory, if a limit changed it."""
    plan = plan or memory.plan(run.graph, run.hardware.precision.bits)
    return _result((run,), (1.0,), plan, run.hardware, request, command, run.graph)


def of_plan(planned: PlanRun, hardware: Hardware, request: Request, command: Sequence[str], step: StepGraph) -> Result:
    """The result of a training method; `step` is what it was applied to."""
    shares = tuple(float(part.share) for part in planned.plan.parts)
    return _result(planned.runs, shares, planned.memory, hardware, request, command, step, planned.label)


def _result(
    runs: Sequence[Run], shares: Sequence[float], plan: memory.MemoryPlan, hardware: Hardware, request: Request,
    command: Sequence[str], step: StepGraph, method_name: str = "",
) -> Result:  # fmt: skip
    facts = _facts(runs, shares, hardware, step, method_name)
    record = provenance.manifest(runs[:1], request, command)
    return Result(
        label=runs[0].dataflow, facts=facts, layers=_layers(runs, shares),
        phases=_mean([_phases(run) for run in runs], shares), units=_mean([run.units for run in runs], shares),
        memory=_memory(plan), manifest=record, runs=tuple(runs),
    )  # fmt: skip


def _facts(
    runs: Sequence[Run], shares: Sequence[float], hardware: Hardware, step: StepGraph, method_name: str
) -> Facts:  # fmt: skip
    first = runs[0]
    masks = first.graph.update_masks.values()
    prices = first.energy.prices
    return Facts(
        workload=step.name, digest=step.digest(), dataflow=first.dataflow, method=method_name, engine=first.engine,
        operations=len(step.ops), macs=sum(op.macs for op in step.ops),
        masked=Masked(
            parameters=len(masks), selected=sum(m.count for m in masks), size=sum(m.size for m in masks)
        ),
        shares=list(shares), hardware=hardware,
        prices=PriceList(
            table=prices.table, node_nm=prices.node_nm, leakage_mw=prices.leakage_mw,
            actions=[PricedAction(component=p.component, action=p.name, work=p.work, pj=p.pj) for p in prices.actions],
            doubtful=list(prices.doubtful()),
            sources=dict(prices.sources), confidence=dict(prices.confidence), notes=list(prices.notes),
        ),
    )  # fmt: skip


def _layers(runs: Sequence[Run], shares: Sequence[float]) -> pd.DataFrame:
    import pandas as pd

    frames = [_bounded(run) for run in runs]
    if len(frames) == 1:
        return frames[0]
    parts = [
        frame.assign(part=i + 1, share=share) for i, (frame, share) in enumerate(zip(frames, shares, strict=True))
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _bounded(run: Run) -> pd.DataFrame:
    """`Run.layers` with the largest lower bound of every operation and its name."""
    import numpy as np

    from npusim.bounds import BOUNDS

    names = np.array(BOUNDS)[run.bounds.argmax(axis=1)] if len(run.bounds) else []
    return run.layers.assign(bound_cycles=run.bounds.max(axis=1, initial=0), bound=names)


def _phases(run: Run) -> pd.DataFrame:
    sums = run.phases()
    bound = run.bounds.max(axis=1, initial=0)
    of = {phase: int(bound[(run.layers.phase == phase).to_numpy()].sum()) for phase in sums.index if phase != STEP}
    return sums.assign(bound_cycles=[*of.values(), sum(of.values())])


def _mean(frames: Sequence[pd.DataFrame], shares: Sequence[float]) -> pd.DataFrame:
    """Sums of a mean step: every part weighted with its share; its utilisation by its cycles too."""
    if len(frames) == 1 and shares[0] == 1:
        return frames[0]
    weighted = []
    for frame, share in zip(frames, shares, strict=True):
        scaled = frame * share
        if "utilisation" in frame:
            scaled["utilisation"] = frame.utilisation * scaled.cycles
        weighted.append(scaled)
    total = weighted[0]
    for scaled in weighted[1:]:
        total = total.add(scaled, fill_value=0)
    if "utilisation" in total:
        total["utilisation"] = total.utilisation / total.cycles.clip(lower=1e-9)
        total = total.reindex([name for name in (*PHASES, STEP) if name in total.index])
    return total[frames[0].columns]


def _memory(plan: memory.MemoryPlan) -> pd.DataFrame:
    import pandas as pd

    ops = plan.graph.ops
    frame = pd.DataFrame({"phase": [op.phase for op in ops], "name": [op.name for op in ops]})
    return frame.join(pd.DataFrame(plan.timeline(), columns=list(memory.GROUPS)))
