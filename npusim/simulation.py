"""The pipeline: step graph, dataflow and machine in; cycles, work, waiting and energy of every operation out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from npusim import bounds as lower_bounds
from npusim import catalogue, engine, notebook, text, units
from npusim import program as tp
from npusim.counters import COUNTERS
from npusim.energy import table as energy_table
from npusim.energy.account import Energy, account, prices
from npusim.energy.dram import WORK as DRAM_WORK
from npusim.energy.dram import CommandPrices, Use, command_prices
from npusim.engine import Schedule
from npusim.engine import memory as engine_memory
from npusim.engine.memory import COUNTED
from npusim.errors import BrokenLaw
from npusim.graph import PHASES, StepGraph, describe
from npusim.mapping.choice import Choice, objective
from npusim.mapping.lower import Lowered, lower
from npusim.verify import verify

if TYPE_CHECKING:
    import pandas as pd

    from npusim.dataflow import Dataflow
    from npusim.npu import Hardware


@dataclass(frozen=True, repr=False)
class Run:
    """Result of one simulation. Arrays have one row per operation of `graph`.

    cycles: from the operation's opening fence to its last task. array_cycles: PE array occupied, of which
    port_stall_cycles only because a buffer port was slower. load_stall, store_stall: the array (or the vector
    unit) waits for operands, or for its results to leave. drain_cycles: nothing left to compute, results leave.
    """

    graph: StepGraph
    hardware: Hardware
    dataflow: str
    engine: str
    lowered: Lowered
    schedule: Schedule
    cycles: np.ndarray
    array_cycles: np.ndarray
    vector_cycles: np.ndarray
    port_stall_cycles: np.ndarray
    load_stall_cycles: np.ndarray
    store_stall_cycles: np.ndarray
    dram_cycles: np.ndarray
    energy: Energy

    def __repr__(self) -> str:
        return f"<Run {self.sentence()}>"

    def sentence(self) -> str:
        """The run in one line: step, machine, dataflow, time and energy."""
        cycles = self.schedule.cycles
        return text.clean(
            f"{self.graph.name} on {self.hardware.name}, {self.dataflow}: {cycles:,} cycles "
            f"({cycles / self.hardware.clock_hz * 1e3:.3g} ms), {text.joules(self.energy.total_pj)}"
        )

    def _repr_html_(self) -> str:
        header = ("phase", "cycles", "utilisation", "energy")
        rows = (
            (phase, f"{cycles:,}", text.percent(used), text.joules(spent))
            for phase, cycles, used, spent in self.phases()[["cycles", "utilisation", "energy_pj"]].itertuples()
        )
        return notebook.paragraph(self.sentence()) + notebook.table(header, rows)

    @property
    def drain_cycles(self) -> np.ndarray:
        """Cycles at the end of an operation in which only results leave."""
        busy = self.array_cycles + self.vector_cycles + self.load_stall_cycles + self.store_stall_cycles
        return self.cycles - busy

    @cached_property
    def bounds(self) -> np.ndarray:
        bus = self.dram_cycles if self.schedule.memory is not None else None
        return lower_bounds.bounds(self.lowered.program, self.lowered.counts, self.hardware, bus)

    def count(self, name: str) -> np.ndarray:
        """One work counter for every operation."""
        return self.lowered.counts[:, COUNTERS.index(name)]

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row per operation: what it is, how it was mapped, cycles, waiting, work and energy (pJ)."""
        import pandas as pd

        plans = self.lowered.plans
        head = {
            "phase": [p.op.phase for p in plans],
            "name": [p.op.name for p in plans],
            "kind": [p.op.kind for p in plans],
            "shape": [describe(p.op.dims) for p in plans],
            "dataflow": [p.dataflow for p in plans],
            "tiling": ["; ".join(map(str, p.tilings)) for p in plans],
            "density": [self._density(p.op) for p in plans],
            "macs": [p.op.macs for p in plans],
        }
        timing = {key: getattr(self, key) for key in TIMING}
        work = {name: self.count(name) for name in COUNTERS}
        priced = {price.work: i for i, price in enumerate(self.energy.prices.actions)}
        work |= {name: self.energy.amounts[:, priced[name]] for name in DRAM_WORK if name in priced}
        energy = {f"{name}_pj": self.energy.pj[:, i] for i, name in enumerate(self.energy.components)}
        frame = pd.DataFrame({**head, **timing, **work, **energy})
        frame["energy_pj"] = self.energy.pj.sum(axis=1)
        peak = self.hardware.peak_macs_per_cycle
        frame["utilisation"] = frame.macs_done / (frame.cycles * peak).clip(lower=1)
        return frame

    def phases(self) -> pd.DataFrame:
        """Sums per phase and for the whole step (row 'step'); numeric columns of `layers`."""
        import pandas as pd

        frame = self.layers
        numbers = frame.drop(columns=["phase", "name", "kind", "shape", "dataflow", "tiling", "density", "utilisation"])
        sums = numbers.groupby(frame.phase).sum().reindex([p for p in PHASES if p in set(frame.phase)])
        sums = pd.concat([sums, numbers.sum().to_frame("step").T.astype(numbers.dtypes)])
        peak = self.hardware.peak_macs_per_cycle
        sums["utilisation"] = sums.macs_done / (sums.cycles * peak).clip(lower=1)
        return sums

    @cached_property
    def units(self) -> pd.DataFrame:
        """How each unit spent the run, in server-cycles by cause; see `npusim.units.server_cycles`."""
        return units.table(*self._served)

    @property
    def _served(self) -> tuple[tp.TileProgram, Schedule, np.ndarray, int | None]:
        bus = int(self.dram_cycles.sum()) if self.schedule.memory is not None else None
        return self.lowered.program, self.schedule, engine.unit_capacity(self.hardware), bus

    @cached_property
    def dram_commands(self) -> pd.DataFrame | None:
        """What command-level memory counted (`engine.memory.COUNTED`), a row per operation; None with `ideal`."""
        import pandas as pd

        counted = self.schedule.memory
        return None if counted is None else pd.DataFrame(counted, columns=list(COUNTED))

    def _density(self, op) -> float:
        masks = self.graph.update_masks if op.phase in ("grad_weight", "update", "aux") else self.graph.task_masks
        return masks[op.param].density if op.param in masks else 1.0

    def verify(self) -> None:
        """Raise BrokenLaw, listing them, when conservation laws or lower bounds do not hold."""
        found = [f"{name} of {count} operations" for name, count in self._broken_laws().items() if count]
        if found:
            raise BrokenLaw("the simulation broke its own laws: " + ", ".join(found))

    def _broken_laws(self) -> dict[str, int]:
        program, ops = self.lowered.program, len(self.cycles)
        moved = {
            kind: np.bincount(program.op[program.kind == kind], program.bytes[program.kind == kind], ops)
            for kind in (tp.LOAD, tp.STORE)
        }
        dense = np.array([p.dense_macs for p in self.lowered.plans])
        counters = ("macs_done", "macs_gated", "macs_skipped", "macs_crossbar")
        done = np.sum([self.count(name) for name in counters], axis=0)
        return {
            "cycles below a lower bound": int((self.cycles[:, None] < self.bounds).sum()),
            "busy and waiting above cycles": int((self.drain_cycles < 0).sum()),
            "MACs done, gated, skipped and in crossbars that are not the dense MACs": int((done != dense).sum()),
            "time of a unit that does not add up": int((units.server_cycles(*self._served) < 0).any(axis=1).sum()),
            "negative counters": int((self.lowered.counts < 0).any(axis=1).sum()),
            "DRAM bytes read that no load moved": int((moved[tp.LOAD] != self.count("dram_read_bytes")).sum()),
            "DRAM bytes written that no store moved": int((moved[tp.STORE] != self.count("dram_write_bytes")).sum()),
            "cycles that do not sum to the step": int(self.cycles.sum() != self.schedule.cycles),
            "DRAM bursts that were not served once": int(self._unserved_bursts() != 0),
        }

    def _unserved_bursts(self) -> int:
        if self.schedule.memory is None:
            return 0
        moved = int(self.lowered.program.bytes.sum()) // self.hardware.dram.burst_bytes
        served = [COUNTED.index(name) for name in ("RD", "WR", "forwarded", "merged")]
        return moved - int(self.schedule.memory[:, served].sum())


COUNTED_AS = dict(zip(DRAM_WORK, ("ACT", "RD", "WR", "REF", "REFB", "open_clocks", "closed_clocks"), strict=True))
TIMING = (
    "cycles", "array_cycles", "vector_cycles", "port_stall_cycles", "load_stall_cycles", "store_stall_cycles",
    "drain_cycles", "dram_cycles",
)  # fmt: skip


def simulate(
    graph: StepGraph, hardware: Hardware, dataflow: Dataflow | str = "dense-os", engine_name: str = "fast",
    energy: str | None = None, priced_as: Hardware | None = None, choice: Choice | None = None,
) -> Run:  # fmt: skip
    """Simulate one training step of `graph` on `hardware`; `energy` overrides the machine's energy table.

    `priced_as`: the machine whose prices apply, when `hardware` is one that runs tensors of other widths. `choice`:
    what tilings make least, and those fixed by hand.

    Raises CatalogueError, ConfigError, CapacityError (user mistakes) and BrokenLaw.
    """
    resolve = cache(catalogue.load_dataflow)
    chosen = resolve(dataflow) if isinstance(dataflow, str) else dataflow
    found = lowered(graph, hardware, chosen, resolve, choice, energy, priced_as)
    verify(found.program, hardware)
    schedule, timing = execute(found, hardware, engine_name)
    table = energy_table.load(energy or hardware.energy.table)
    use = dram_use(schedule, dram_prices(hardware, table))
    spent = account(found.counts, timing["cycles"], priced_as or hardware, table, use=use)
    run = Run(graph, hardware, chosen.name, engine_name, found, schedule, energy=spent, **timing)
    run.verify()
    return run


def lowered(
    graph: StepGraph, hardware: Hardware, dataflow: Dataflow, resolve: Callable[[str], Dataflow],
    choice: Choice | None = None, energy: str | None = None, priced_as: Hardware | None = None,
) -> Lowered:  # fmt: skip
    """The step as a program of tiles; an energy table is read only when `choice` looks at energy."""
    wanted = choice or Choice()
    priced = None
    if wanted.objective != "cycles":
        priced = prices(priced_as or hardware, energy_table.load(energy or hardware.energy.table))
    return lower(graph, dataflow, hardware, resolve, wanted, objective(wanted.objective, priced))


def execute(lowered: Lowered, hardware: Hardware, engine_name: str) -> tuple[Schedule, dict[str, np.ndarray]]:
    """The schedule of a lowered step, and the columns TIMING of `Run` but drain_cycles, int64 [operations] each."""
    memory = engine_memory.memory(hardware)
    schedule = engine.run(lowered.program, engine.unit_capacity(hardware), engine_name, memory)
    timing = _timing(lowered, schedule)
    if memory is not None and schedule.memory is not None:
        timing["dram_cycles"] = memory.bus_cycles(schedule.memory)
    return schedule, timing


def dram_prices(hardware: Hardware, table: energy_table.EnergyTable) -> CommandPrices | None:
    """Prices of DRAM commands; None when the machine's memory is `ideal`."""
    memory, keys = engine_memory.memory(hardware), hardware.dram.commands
    return None if memory is None or keys is None else command_prices(memory.config, keys.device, table)


def dram_use(schedule: Schedule, prices: CommandPrices | None) -> Use | None:
    """What the DRAM did in every operation, for its energy; None when its commands were not simulated."""
    if schedule.memory is None or prices is None:
        return None
    return Use(schedule.memory[:, [COUNTED.index(name) for name in COUNTED_AS.values()]], prices)


def _timing(lowered: Lowered, schedule: Schedule) -> dict[str, np.ndarray]:
    program, ops = lowered.program, len(lowered.plans)
    fences = np.flatnonzero(program.kind == tp.FENCE)
    opening = fences[np.unique(program.op[fences], return_index=True)[1]]
    marks = np.append(schedule.end[opening], schedule.cycles)

    def per_op(mask: np.ndarray) -> np.ndarray:
        total = np.zeros(ops, np.int64)
        np.add.at(total, program.op[mask], program.cycles[mask])
        return total

    waiting = units.waits(program, schedule, tp.COMPUTE, ops) + units.waits(program, schedule, tp.VECTOR, ops)
    return {
        "cycles": np.diff(marks),
        "array_cycles": per_op(program.kind == tp.COMPUTE),
        "vector_cycles": per_op(program.kind == tp.VECTOR),
        "port_stall_cycles": np.array([p.port_stall_cycles for p in lowered.plans], np.int64),
        "load_stall_cycles": waiting[:, 0],
        "store_stall_cycles": waiting[:, 1],
        "dram_cycles": per_op((program.kind == tp.LOAD) | (program.kind == tp.STORE)),
    }
