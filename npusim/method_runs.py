"""Simulation of training plans, and methods held against dense training in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from npusim import catalogue, memory, method, rewrite, spill
from npusim.dataflow import Dataflow
from npusim.errors import CapacityError, NpusimError
from npusim.mapping import crossbar
from npusim.method import Part, Plan
from npusim.npu import Hardware
from npusim.simulation import Run, simulate
from npusim.spill import MemoryLimit

if TYPE_CHECKING:
    import pandas as pd

    from npusim.graph import StepGraph

# Sums over operations that a plan's parts contribute by their shares.
SUMS = ("cycles", "macs", "macs_done", "dram_read_bytes", "dram_write_bytes", "energy_pj")


@dataclass(frozen=True)
class PlanRun:
    """A simulated training plan: the run of every part, and the memory plan of the part that needs the most."""

    label: str
    plan: Plan
    runs: tuple[Run, ...]
    memory: memory.MemoryPlan

    @cached_property
    def phases(self) -> pd.DataFrame:
        """Sums of a mean step per phase, and row 'step': every part weighted with its share."""
        frames = [
            run.phases() * float(part.share)
            for part, run in zip(self.plan.parts, self.runs, strict=True)
        ]  # fmt: skip
        total = frames[0]
        for frame in frames[1:]:
            total = total.add(frame, fill_value=0)
        return total

    @property
    def step(self) -> dict[str, float]:
        """Totals of a mean step."""
        row = self.phases.loc["step"]
        return {name: float(row[name]) for name in SUMS}

    @property
    def useful_macs(self) -> float:
        """MACs that masks leave; see `npusim.rewrite.useful_macs`."""
        return sum(float(part.share) * rewrite.useful_macs(part.step()) for part in self.plan.parts)

    @property
    def updated(self) -> int:
        """Weights that are trained: the most of any part."""
        return max(rewrite.trained_weights(part.step()) for part in self.plan.parts)

    def wear(self) -> dict[str, float]:
        """On crossbars: cells programmed in a mean step, per cell in use, and steps until the first is worn out.

        Without any write the last is infinite.
        """
        limits = self.runs[0].hardware.crossbar
        if limits is None:
            return {}
        placed = [(float(part.share), run, crossbar.place(run.graph, run.hardware))
                  for part, run in zip(self.plan.parts, self.runs, strict=True)]  # fmt: skip
        most = sum(share * crossbar.writes_of_busiest_cell(run.graph, at) for share, run, at in placed)
        writes, cells = float(self.phases.loc["step"].cell_writes), max(at.cells for *_, at in placed)
        return {
            "cell_writes": writes,
            "writes_per_cell": writes / max(cells, 1),
            "steps_to_wear_out": limits.endurance_writes / most if most else float("inf"),
        }

    def row(self, base: PlanRun | None = None) -> dict[str, Any]:
        """What the table of methods shows; ratios are against `base`."""
        step = self.step
        found: dict[str, Any] = {
            "method": self.label,
            "cycles": step["cycles"],
            "energy_pj": step["energy_pj"],
            "dram_bytes": step["dram_read_bytes"] + step["dram_write_bytes"],
            "peak_bytes": self.memory.peak_bytes,
            "training_bytes": self.memory.training_bytes,
            "macs": step["macs"],
            "useful_macs": self.useful_macs,
            "updated": self.updated,
        }
        found |= self.wear()
        if base is not None:
            other = base.step
            found["speedup"] = other["cycles"] / max(step["cycles"], 1e-9)
            found["energy_gain"] = other["energy_pj"] / max(step["energy_pj"], 1e-9)
        return found


def machine_of(part: Part, hardware: Hardware) -> Hardware:
    """The machine as a part uses it: its widths, and with `scalable` the PEs that narrow operands leave room for.

    Operands wider than the machine's multiplier are cut into pieces of its width and take several passes.
    """
    if not part.bits:
        return hardware
    changes: dict[str, Any] = {f"precision.{kind}_bits": width for kind, width in part.bits.items()}
    used = [part.bits.get(kind, hardware.precision.bits(kind)) for kind in ("activation", "weight", "gradient")]
    if part.scalable and (times := hardware.precision.operand_bits // max(used)) > 1:
        changes |= {"array.rows": hardware.array.rows * times, "array.cols": hardware.array.cols * times}
    if max(used) > hardware.precision.operand_bits:
        changes["precision.multiplier_bits"] = hardware.precision.operand_bits
    accumulator = max(hardware.precision.accumulator_bits, *used, part.bits.get("weight_gradient", 0))
    return hardware.replace(changes | {"precision.accumulator_bits": accumulator})


def simulate_plan(
    plan: Plan, hardware: Hardware, dataflow: Dataflow | str = "dense-os", label: str = "",
    limit: MemoryLimit | None = None, **options: Any,
) -> PlanRun:  # fmt: skip
    """Simulate every part on the machine at its widths, priced as the machine itself (its MACs do not get cheaper).

    A part without update masks runs with the fallback of a selective dataflow. `limit`: of the step's memory, see
    `npusim.spill`. `options` as for `simulate`.
    """
    plan, found = spill.fit_plan(plan, hardware, limit) if limit else (plan, memory.of_plan(plan, hardware))
    runs = []
    for part in plan.parts:
        step = part.step()
        runs.append(simulate(step, machine_of(part, hardware), _fitting(step, dataflow), priced_as=hardware, **options))
    return PlanRun(label, plan, tuple(runs), found)


def _fitting(step: StepGraph, dataflow: Dataflow | str) -> Dataflow:
    chosen = catalogue.load_dataflow(dataflow) if isinstance(dataflow, str) else dataflow
    while chosen.selective and not step.update_masks:
        chosen = catalogue.load_dataflow(chosen.fallback)
    return chosen


def times_of(run: Run) -> dict[tuple[str, str], int]:
    """Cycles by operation name and phase."""
    found: dict[tuple[str, str], int] = {}
    for op, cycles in zip(run.graph.ops, run.cycles, strict=True):
        key = (op.name, op.phase)
        found[key] = found.get(key, 0) + int(cycles)
    return found


@dataclass(frozen=True)
class MethodTable:
    """Methods on one step and machine; `runs[0]` is dense training. `misfits`: label -> why it does not fit."""

    runs: tuple[PlanRun, ...]
    misfits: Mapping[str, str]

    def table(self) -> pd.DataFrame:
        """One row per method; columns as in `PlanRun.row`."""
        import pandas as pd

        return pd.DataFrame([run.row(self.runs[0]) for run in self.runs])


def compare_methods(
    graph: StepGraph,
    hardware: Hardware,
    methods: Sequence[str],
    dataflow: str = "dense-os",
    limit: MemoryLimit | None = None,
    misfits: bool = False,
    **options: Any,
) -> MethodTable:
    """Simulate dense training and each of `methods` ('name' or 'name:key=value') on one step and machine.

    `limit`: of every method's memory; one that does not fit it is a misfit, but dense training then runs without.
    `misfits`: methods that do not fit the network, or need more than the machine has, are left out and reported; else
    they raise. `options` as for `simulate`.
    """
    dense = simulate_plan(method.apply("dense", graph), hardware, dataflow, "dense", **options)
    times = times_of(dense.runs[0])
    runs, left_out = [dense], {}
    if limit is not None:
        try:
            runs = [_limited(method.apply("dense", graph), hardware, dataflow, "dense", limit, options)]
        except method.MisfitError as error:
            if not misfits:
                raise
            left_out["dense"] = f"{error}; without a limit here"
    for text in methods:
        if text == "dense":
            continue
        name, parameters = method.parse(text)
        try:
            training = method.apply(name, graph, times, hardware, **parameters)
            runs.append(_limited(training, hardware, dataflow, text, limit, options))
        except (method.MisfitError, CapacityError) as error:
            if not misfits:
                raise
            left_out[text] = str(error)
    return MethodTable(tuple(runs), left_out)


def _limited(
    training: Plan, hardware: Hardware, dataflow: str, label: str, limit: MemoryLimit | None, options: Mapping[str, Any]
) -> PlanRun:
    """A run within the limit; MisfitError names the method that cannot have it."""
    if limit is None:
        return simulate_plan(training, hardware, dataflow, label, **options)
    try:
        training, found = spill.fit_plan(training, hardware, limit)
    except NpusimError as error:
        raise method.MisfitError(f"method {label!r}: {error}") from None
    return replace(simulate_plan(training, hardware, dataflow, label, **options), memory=found)
