"""One job to one row of numbers, in whatever process it runs; files arrive as resources and are read once."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim import breakdown, catalogue, config, method
from npusim.energy import account, area, sram
from npusim.energy.table import EnergyTable
from npusim.errors import NpusimError
from npusim.graph import PHASES
from npusim.mapping.choice import Choice, objective
from npusim.mapping.choice import choice as choice_of
from npusim.mapping.lower import lower
from npusim.method_runs import machine_of, times_of
from npusim.npu import Hardware
from npusim.simulation import Run, dram_prices, dram_use, execute
from npusim.sweep.metrics import METRICS
from npusim.sweep.points import Job, Resource, read_step, reshaped
from npusim.verify import verify

if TYPE_CHECKING:
    import numpy as np

    from npusim.graph import StepGraph

DONE, FAILED = "done", "failed"
KEPT_STEPS, KEPT_PRICES = 16, 64


class Evaluator:
    """Simulates jobs whose resources lie in `folder` (see `place`); keeps the steps and tables that it has read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[Hashable, Any] = {}

    def row(self, job: Job) -> tuple[str, str, dict[str, float]]:
        """(status, message, metrics); whatever goes wrong becomes a message, else it says what the energy rests on."""
        try:
            runs = self.runs(job)
            hw = self._machine(job)
            basis = breakdown.prices_basis(runs[0][1].energy.prices, hw)
            return DONE, basis, mean([(share, metrics(run)) for share, run in runs], hw, self._area(job, hw))
        except NpusimError as error:
            return FAILED, str(error), {}
        except Exception as error:
            return FAILED, f"fault of npusim: {type(error).__name__}: {error}", {}

    def runs(self, job: Job) -> list[tuple[float, Run]]:
        """The simulations of a job and how often each runs in a mean step: one, unless a method has several parts."""
        graph = self._once(("step", job.workload, job.input_size, job.batch), lambda: self._step(job))
        hw = self._machine(job)
        if not job.method:
            return [(1.0, self._run(job, graph, hw, hw))]
        plan = self._plan(job, graph, hw)
        return [(float(part.share), self._run(job, part.step(), machine_of(part, hw), hw)) for part in plan.parts]

    def _plan(self, job: Job, graph: StepGraph, hw: Hardware) -> method.Plan:
        name, parameters = method.parse(job.method)
        chosen = method.load(name)
        times = times_of(self._run(job, graph, hw, hw)) if chosen.timed else None
        return method.apply(chosen, graph, times, hw, **parameters)

    def _run(self, job: Job, graph: StepGraph, hw: Hardware, priced: Hardware) -> Run:
        """`npusim.simulation.simulate`, with what was read before at hand; `priced` is the machine of the prices."""
        flows = {name: self._once(("flow", digest), partial(self._flow, digest)) for name, digest in job.dataflows}
        chosen = flows[job.dataflows[0][0]]
        while job.method and chosen.selective and not graph.update_masks:
            chosen = flows[chosen.fallback]
        prices = self._once(("prices", job.machine, job.energy), lambda: self._prices(job, priced))
        choice = self._once(("choice", job.objective, job.mapping), lambda: self._choice(job))
        # Tilings are searched on ideal memory, where DRAM bytes have a flat price.
        flat = self._once(("flat", job.machine, job.energy), lambda: self._prices(job, priced, flat=True))
        aim = objective(choice.objective, None if choice.objective == "cycles" else flat)
        lowered = lower(graph, chosen, hw, flows.__getitem__, choice, aim)
        verify(lowered.program, hw)
        schedule, timing = execute(lowered, hw, job.engine)
        spent = account.apply(lowered.counts, timing["cycles"], prices, dram_use(schedule, prices.dram))
        run = Run(graph, hw, chosen.name, job.engine, lowered, schedule, energy=spent, **timing)
        run.verify()
        return run

    def _choice(self, job: Job) -> Choice:
        return choice_of(job.objective, self._file(job.mapping) if job.mapping else None)

    def _machine(self, job: Job) -> Hardware:
        return self._once(("machine", job.machine), lambda: Hardware.model_validate_json(job.machine))

    def _once(self, asked: Hashable, find: Callable[[], Any]) -> Any:
        if asked not in self._kept:
            kind = asked[0] if isinstance(asked, tuple) else asked
            alike = [key for key in self._kept if isinstance(key, tuple) and key[0] == kind]
            if len(alike) >= (KEPT_STEPS if kind == "step" else KEPT_PRICES):
                del self._kept[alike[0]]
            self._kept[asked] = find()
        return self._kept[asked]

    def _file(self, digest: str) -> Path:
        (path,) = (self._folder / digest).iterdir()
        return path

    def _step(self, job: Job) -> StepGraph:
        graph = reshaped(read_step(self._file(job.workload)), job.input_size, job.batch)
        if graph.digest() != job.step:
            raise RuntimeError(f"step {graph.name!r} is not the one that the sweep was planned with")
        return graph

    def _flow(self, digest: str):
        return catalogue.load_dataflow(self._file(digest))

    def _prices(self, job: Job, hw: Hardware, flat: bool = False) -> account.Prices:
        table, figures = self._once(("table", job.energy), lambda: self._table(job.energy))
        return account.prices(hw, table, figures, None if flat else dram_prices(hw, table))

    def _area(self, job: Job, hw: Hardware) -> float:
        table, figures = self._once(("table", job.energy), lambda: self._table(job.energy))
        return self._once(("area", job.machine, job.energy), lambda: area.area(hw, table, figures).total_mm2)

    def _table(self, digest: str) -> tuple[EnergyTable, sram.SramTable]:
        return load_table(self._file(digest)), sram.load()


def place(folder: Path, digest: str, resource: Resource) -> None:
    """Put a resource where an Evaluator of `folder` finds it; harmless when it is there."""
    target = folder / digest
    if target.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        (Path(fresh) / "new").mkdir()
        (Path(fresh) / "new" / resource.name).write_bytes(resource.content)
        with contextlib.suppress(OSError):
            (Path(fresh) / "new").rename(target)


def load_table(path: Path) -> EnergyTable:
    return config.validate(EnergyTable, json.loads(path.read_bytes()), path.name)


def mean(parts: Sequence[tuple[float, Mapping[str, float]]], hw: Hardware, area_mm2: float) -> dict[str, float]:
    """The numbers of METRICS of a mean step: sums of parts by their shares, rounded where METRICS says int."""
    summed = parts[0][1]
    if len(parts) > 1 or parts[0][0] != 1.0:
        summed = {name: sum(share * part[name] for share, part in parts) for name in parts[0][1]}
    found = {name: METRICS[name](round(n) if METRICS[name] is int else n) for name, n in summed.items()}
    seconds = found["cycles"] / hw.clock_hz
    return {
        **found,
        "time_s": seconds,
        "edp_pj_s": found["energy_pj"] * seconds,
        "area_mm2": area_mm2,
        "utilisation": found["macs_done"] / max(1, found["cycles"] * hw.peak_macs_per_cycle),
        "sram_bytes": hw.sram_bytes,
        "pes": hw.peak_macs_per_cycle,
    }


def metrics(run: Run) -> dict[str, float]:
    """What adds up over runs, of one run."""
    pj = run.energy.pj
    done, gated, skipped = (_total(run, f"macs_{name}") for name in ("done", "gated", "skipped"))
    port = int(run.port_stall_cycles.sum())
    found: dict[str, float] = {
        "cycles": int(run.cycles.sum()),
        "energy_pj": float(pj.sum()),
        "dram_bytes": _total(run, "dram_read_bytes") + _total(run, "dram_write_bytes"),
        "macs_dense": done + gated + skipped,
        "macs_done": done,
        "macs_gated": gated,
        "macs_skipped": skipped,
        "busy_cycles": int(run.array_cycles.sum() + run.vector_cycles.sum()) - port,
        "port_stall_cycles": port,
        "load_stall_cycles": int(run.load_stall_cycles.sum()),
        "store_stall_cycles": int(run.store_stall_cycles.sum()),
        "drain_cycles": int(run.drain_cycles.sum()),
    }
    found |= _phases(run, pj)
    found |= {f"{name}_pj": float(pj[:, i].sum()) for i, name in enumerate(run.energy.components)}
    return found


def _total(run: Run, counter: str) -> int:
    return int(run.count(counter).sum())


def _phases(run: Run, pj: np.ndarray) -> Mapping[str, float]:
    import numpy as np

    phase = np.array([PHASES.index(op.phase) for op in run.graph.ops])
    moved = run.count("dram_read_bytes") + run.count("dram_write_bytes")
    found: dict[str, float] = {}
    for i, name in enumerate(PHASES):
        chosen = phase == i
        found[f"{name}_cycles"] = int(run.cycles[chosen].sum())
        found[f"{name}_energy_pj"] = float(pj[chosen].sum())
        found[f"{name}_dram_bytes"] = int(moved[chosen].sum())
    return found
