"""One job to one row of numbers, in whatever process it runs; files arrive as resources and are read once."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim import catalogue, config, engine
from npusim.energy import account, area, sram
from npusim.energy.table import EnergyTable
from npusim.errors import NpusimError
from npusim.graph import PHASES
from npusim.hardware import Hardware
from npusim.mapping.lower import lower
from npusim.simulate import Run, _timing
from npusim.sweep.points import Job, Resource, read_step
from npusim.trace.reshape import reshape
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
        """(status, message, metrics); whatever goes wrong becomes a message."""
        try:
            run = self.run(job)
            return DONE, "", metrics(run, self._once(("area", job.machine, job.energy), lambda: self._area(job, run)))
        except NpusimError as error:
            return FAILED, str(error), {}
        except Exception as error:
            return FAILED, f"fault of npusim: {type(error).__name__}: {error}", {}

    def run(self, job: Job) -> Run:
        """The simulation of a job: `npusim.simulate.simulate`, with what was read before at hand."""
        graph = self._once(("step", job.workload, job.input_size, job.batch), lambda: self._step(job))
        hw = self._once(("machine", job.machine), lambda: Hardware.model_validate_json(job.machine))
        flows = {name: self._once(("flow", digest), partial(self._flow, digest)) for name, digest in job.dataflows}
        chosen = flows[job.dataflows[0][0]]
        lowered = lower(graph, chosen, hw, flows.__getitem__)
        verify(lowered.program, hw)
        schedule = engine.run(lowered.program, engine.unit_capacity(hw), job.engine)
        timing = _timing(lowered, schedule)
        prices = self._once(("prices", job.machine, job.energy), lambda: self._prices(job, hw))
        spent = account.apply(lowered.counts, timing["cycles"], hw, prices)
        run = Run(graph, hw, chosen.name, job.engine, lowered, schedule, energy=spent, **timing)
        run.verify()
        return run

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
        graph = read_step(self._file(job.workload))
        if job.input_size is not None or job.batch is not None:
            graph = reshape(graph, job.input_size, job.batch)
        if graph.digest() != job.step:
            raise RuntimeError(f"step {graph.name!r} is not the one that the sweep was planned with")
        return graph

    def _flow(self, digest: str):
        return catalogue.load_dataflow(self._file(digest))

    def _prices(self, job: Job, hw: Hardware) -> account.Prices:
        return account.prices(hw, *self._once(("table", job.energy), lambda: self._table(job.energy)))

    def _area(self, job: Job, run: Run) -> float:
        return area.area(run.hardware, *self._once(("table", job.energy), lambda: self._table(job.energy))).total_mm2

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


def metrics(run: Run, area_mm2: float) -> dict[str, float]:
    """The numbers of METRICS for one run."""
    pj = run.energy.pj
    cycles, energy = int(run.cycles.sum()), float(pj.sum())
    seconds = cycles / run.hardware.clock_hz
    done = _total(run, "macs_done")
    pes = run.hardware.peak_macs_per_cycle
    port = int(run.port_stall_cycles.sum())
    found: dict[str, float] = {
        "cycles": cycles,
        "time_s": seconds,
        "energy_pj": energy,
        "edp_pj_s": energy * seconds,
        "area_mm2": area_mm2,
        "utilisation": done / max(1, cycles * pes),
        "dram_bytes": _total(run, "dram_read_bytes") + _total(run, "dram_write_bytes"),
        "sram_bytes": run.hardware.sram_bytes,
        "pes": pes,
        "macs_dense": done + _total(run, "macs_gated") + _total(run, "macs_skipped"),
        "macs_done": done,
        "macs_gated": _total(run, "macs_gated"),
        "macs_skipped": _total(run, "macs_skipped"),
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
