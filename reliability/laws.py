"""What must hold for every case: laws, equal engines, right gradients, and what a better machine may cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from npusim import catalogue, engine, memory, method
from npusim import program as tp
from npusim.engine import Schedule
from npusim.engine.dram_standards import load_standard
from npusim.engine.memory import memory as memory_of
from npusim.errors import NpusimError, TraceError
from npusim.functional.execute import execute, reference
from npusim.graph import Conv
from npusim.method import Part, Plan
from npusim.method_runs import _fitting, machine_of, times_of
from npusim.npu import Hardware
from npusim.simulation import Run, simulate
from reliability.cases import Case, with_masks

# The specification takes about 20 microseconds per task.
MOST_SPECIFIED_TASKS = 2500
# Grants to the oldest request are not optimal: the same tasks may take longer when some of them get faster.
MOST_SLOWER = 1.15
MOST_TERMS = 300_000
FUNCTIONAL = (
    "dense-os", "selective-row", "channel-skipping", "kernel-packed", "column-set", "element-gather", "ws-selective",
    "reduction-spatial", "reduction-window",
)  # fmt: skip
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


@dataclass
class Findings:
    """What a case came to. `fixed`, `free`: cycles after the improvement over cycles before, mapping kept or chosen."""

    outcome: str = "ok"
    message: str = ""
    ops: int = 0
    tasks: int = 0
    cycles: int = 0
    specified: int = 0
    gradients: int = 0
    fixed: float | None = None
    free: float | None = None
    extra_cycles: int = 0
    notes: list[str] = field(default_factory=list)


def check(case: Case) -> Findings:
    """Check everything; AssertionError or BrokenLaw when something does not hold.

    A case that npusim refuses with one of its own errors is a finding of outcome 'refused'.
    """
    found = Findings()
    try:
        plan = planned(case)
    except NpusimError as error:
        return _refused(found, error)
    assert memory.of_plan(plan, case.hardware).peak_bytes >= 0
    for part in plan.parts:
        graph = part.step()
        if not graph.ops:
            continue
        try:
            machine = machine_of(part, case.hardware)
            run = simulate(graph, machine, _fitting(graph, case.dataflow), priced_as=case.hardware)
        except NpusimError as error:
            return _refused(found, error)
        found.ops += len(graph.ops)
        found.tasks += run.lowered.program.kind.size
        found.cycles += run.schedule.cycles
        check_engines(run, found)
        check_gradients(run, case.mask_seed, found)
        assert np.isfinite(run.energy.pj).all() and (run.energy.pj >= 0).all()
        if part is plan.parts[0]:
            check_improvement(case, run, found)
    return found


def _refused(found: Findings, error: NpusimError) -> Findings:
    """A step made by npusim's own generators and methods is never inconsistent, so a TraceError is a fault."""
    assert str(error).strip() and not isinstance(error, TraceError), error
    return replace(found, outcome=f"refused: {type(error).__name__}", message=str(error))


def planned(case: Case) -> Plan:
    """The method's plan, with random masks on every part that has none."""
    times = None
    if method.load(case.method).timed:
        times = times_of(simulate(case.graph, case.hardware))
    plan = method.apply(case.method, case.graph, times, case.hardware, **dict(case.parameters))
    if not case.masked:
        return plan
    parts = [_masked(part, case.mask_seed) for part in plan.parts]
    return replace(plan, parts=tuple(parts))


def _masked(part: Part, seed: int) -> Part:
    if part.graph.update_masks:
        return part
    graph = with_masks(part.graph, seed)
    graph.verify()
    return replace(part, graph=graph)


def check_engines(run: Run, found: Findings) -> None:
    """The specification gives the same start, bus and end of every task."""
    program = run.lowered.program
    if program.kind.size > MOST_SPECIFIED_TASKS:
        return
    specified = engine.run(program, engine.unit_capacity(run.hardware), "simpy", memory_of(run.hardware))
    for fast, slow in zip(run.schedule, specified, strict=True):
        assert (fast is None) == (slow is None)
        if fast is not None:
            np.testing.assert_array_equal(fast, slow)
    found.specified += program.kind.size


def check_gradients(run: Run, seed: int, found: Findings) -> None:
    """dW of the first masked layer, executed as mapped: right values, each selected element written once."""
    rng = np.random.default_rng(seed)
    for index, (op, plan) in enumerate(zip(run.graph.ops, run.lowered.plans, strict=True)):
        d = op.dims
        if op.phase != "grad_weight" or not isinstance(d, Conv) or plan.dataflow not in FUNCTIONAL:
            continue
        if d.macs > MOST_TERMS:
            continue
        flow = catalogue.load_dataflow(plan.dataflow)
        shape = (d.k, d.c // d.groups, d.r, d.s)
        mask = np.ones(shape, bool)
        if flow.selective:
            mask = run.graph.update_masks[op.param].bits().reshape(shape).astype(bool)
        dy = rng.standard_normal((d.n, d.k, d.p, d.q)).astype(np.float32)
        x = rng.standard_normal((d.n, d.c, d.h, d.w)).astype(np.float32)
        done = execute(d, mask, dy, x, flow, plan.tilings[0], run.hardware)
        np.testing.assert_allclose(done.dw, reference(d, dy, x) * mask, **TOLERANCE)
        np.testing.assert_array_equal(done.writes, mask)
        if d.groups == 1:
            counted = (int(run.count("macs_done")[index]), int(run.count("macs_gated")[index]))
            assert (done.macs_done, done.macs_gated) == counted, f"{op.label}: {done} against {counted}"
        found.gradients += 1
        if found.gradients >= 2:
            return


def check_improvement(case: Case, run: Run, found: Findings) -> None:
    """Cycles on a machine that is better in one way: with the very same tasks, and mapped anew."""
    if not run.schedule.cycles:
        return
    better = improved(run.hardware, case.change)
    again = rescheduled(run, better, case.change)
    if again is not None:
        found.fixed = again.cycles / run.schedule.cycles
        found.extra_cycles = again.cycles - run.schedule.cycles
        assert found.fixed <= MOST_SLOWER, f"{case.change} doubled: {found.fixed:.3f} times the cycles"
    try:
        anew = simulate(run.graph, better, _fitting(run.graph, case.dataflow), priced_as=case.hardware)
    except NpusimError as error:
        # A better machine may never refuse what the other could do.
        raise AssertionError(f"{case.change} doubled: {error}") from error
    found.free = anew.schedule.cycles / run.schedule.cycles


def improved(hw: Hardware, change: str) -> Hardware:
    """`hw` with twice of what `change` names (half the latency); of command-level memory, channels and path."""
    if hw.dram.commands is not None and change in ("bandwidth", "latency"):
        keys = hw.dram.commands
        channels = keys.channels or load_standard(keys.device, keys.controller).channels
        path, number = ("channels", 2 * channels) if change == "bandwidth" else ("path_ns", keys.path_ns // 2)
        return hw.replace({f"dram.commands.{path}": number})
    twice: Mapping[str, dict[str, int]] = {
        "bandwidth": {"dram.bandwidth_bytes_per_s": 2 * hw.dram.bandwidth_bytes_per_s},
        "latency": {"dram.latency_ns": hw.dram.latency_ns // 2},
        "channels": {"dma.read_channels": 2 * hw.dma.read_channels, "dma.write_channels": 2 * hw.dma.write_channels},
        "rows": {"array.rows": 2 * hw.array.rows},
        "cols": {"array.cols": 2 * hw.array.cols},
        "lanes": {"vector.lanes": 2 * hw.vector.lanes},
        **{
            name: {f"buffers.{name}.bytes": 2 * getattr(hw.buffers, name).bytes}
            for name in ("a", "b", "accumulator", "mask")
        },
    }
    return hw.replace(twice[change])


def rescheduled(run: Run, better: Hardware, change: str) -> Schedule | None:
    """The tasks and dependencies of `run` on `better`; None when the tasks themselves depend on the change."""
    program = run.lowered.program
    if change in ("bandwidth", "latency") and better.dram.model == "commands":
        return engine.run(program, engine.unit_capacity(better), memory=memory_of(better))
    dma = (program.kind == tp.LOAD) | (program.kind == tp.STORE)
    match change:
        case "bandwidth" | "latency":
            program = program._replace(
                cycles=np.where(dma, better.dram_cycles(program.bytes), program.cycles),
                tail=np.where(dma, better.dram_latency_cycles, program.tail),
            )
        case "lanes":
            vector = program.kind == tp.VECTOR
            program = program._replace(cycles=np.where(vector, -(-program.cycles // 2), program.cycles))
        case "rows" | "cols":
            busy = program.kind == tp.COMPUTE
            program = program._replace(cycles=np.where(busy, -(-program.cycles // 2), program.cycles))
        case "channels":
            pass
        case _:
            return None
    return engine.run(program, engine.unit_capacity(better), memory=memory_of(better))
