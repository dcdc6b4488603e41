"""Lowering: a step graph becomes one TileProgram and the work counts of every operation.

Operations run one after another, separated by fences: a task of one operation starts when every task of the
one before has ended. So each operation's cycles are its own, and they sum to those of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npusim import engine
from npusim import program as tp
from npusim.counters import COUNTERS
from npusim.dataflow import Dataflow, MaskGrid, TileCost, TileGrid
from npusim.errors import CapacityError, ConfigError
from npusim.folding import ceil_div
from npusim.graph import MAC_KINDS, TAPS, Conv, Op, StepGraph, Vector, describe
from npusim.mapping import _kernels, addresses, crossbar, limits, search, vector
from npusim.mapping.builder import Builder, Stretch, stretch
from npusim.mapping.choice import Choice, Objective, first_parts
from npusim.mapping.problem import Problem, problems
from npusim.mapping.tiling import Tiling, image_extents, passes, tap_lines, tile_cycles, tile_extents, tile_starts

if TYPE_CHECKING:
    from npusim.masks import Mask
    from npusim.npu import Hardware


@dataclass(frozen=True)
class OpPlan:
    """How one operation was mapped.

    `dataflow` is the one really used; for `port_stall_cycles` the array waits for buffer ports; `dense_macs` are the
    MACs of its GEMMs without a mask.
    """

    op: Op
    dataflow: str
    tilings: tuple[Tiling, ...] = ()
    port_stall_cycles: int = 0
    dense_macs: int = 0


@dataclass(frozen=True)
class Lowered:
    """A program, the plan of each operation, and `counts` int64 [operations, counters.COUNTERS]."""

    program: tp.TileProgram
    plans: tuple[OpPlan, ...]
    counts: np.ndarray


def lower(
    graph: StepGraph, dataflow: Dataflow, hw: Hardware, resolve, choice: Choice | None = None,
    objective: Objective | None = None,
) -> Lowered:  # fmt: skip
    """Map every operation of `graph`; `resolve(name)` gives a dataflow by name (for fallbacks).

    `choice`: tilings fixed by hand; `objective`: what the others make least (default: cycles).

    Raises CapacityError when an operation cannot be tiled, or the step not be counted, ConfigError when a selective
    dataflow gets a step that has no update masks at all. A mask that selects everything is taken as none.
    """
    if dataflow.selective and not graph.update_masks:
        raise ConfigError(
            f"dataflow {dataflow.name!r} skips work by update masks, but step {graph.name!r} has none; "
            "use a recorded workload with masks, a method that selects (swu:density=0.1), or a dense dataflow"
        )
    limits.check(graph, hw)
    pick = _Picker(choice or Choice(), objective or Objective(), hw)
    first = first_parts(graph) if pick.choice.fixed else [0] * len(graph.ops)
    builder = Builder(hw)
    cells = crossbar.place(graph, hw) if hw.crossbar is not None else None
    plans, counts = [], np.zeros((len(graph.ops), len(COUNTERS)), np.int64)
    for index, op in enumerate(graph.ops):
        builder.fence(index)
        mask = graph.update_masks.get(op.param) if op.phase in ("grad_weight", "update", "aux") else None
        if cells is None and op.kind in ("conv", "linear") and op.phase in ("forward", "grad_input") and op.inputs[2:]:
            raise ConfigError(
                f"{op.label} masks columns of crossbars ({op.inputs[2]!r}), which {hw.name} has not; choose a machine "
                "with a [crossbar] section, such as reram-128x128"
            )
        if cells is not None and cells.multiplies(op):
            plan, work = _lower_in_cells(op, graph, hw, builder, index)
        elif op.kind in MAC_KINDS:
            plan, work = _lower_macs(op, graph, mask, dataflow, pick, resolve, builder, index, first[index])
        else:
            selected = mask if dataflow.selective and _covers(mask, op) else None
            part, work, pieces = vector.lower(op, graph, hw, selected)
            builder.add(part, index, pieces, builder.bases(op, graph))
            plan = OpPlan(op, "vector")
        for name, held in cells.written(op) if cells is not None else ():
            builder.fence(index)
            nbytes = ceil_div(graph.tensors[name].elements * hw.precision.bits(graph.tensors[name].kind), 8)
            try:
                stream, written = crossbar.reprogram(held, nbytes, mask, hw)
            except CapacityError as error:
                raise CapacityError(f"{op.label}: {error}") from None
            builder.add(stretch(*stream, hw.dram.burst_bytes), index)
            work = {key: work.get(key, 0) + written.get(key, 0) for key in (*work, *written)}
        plans.append(plan)
        for key, value in {**work, **builder.traffic()}.items():
            counts[index, COUNTERS.index(key)] += value
    return Lowered(builder.program(), tuple(plans), counts)


def _lower_in_cells(op: Op, graph: StepGraph, hw, builder: Builder, index: int) -> tuple[OpPlan, dict[str, int]]:
    """A product on crossbars; a third input is the mask of their columns, moved to the periphery first."""
    total: dict[str, int] = {}
    streams = []
    if op.inputs[2:]:
        mask = graph.tensors[op.inputs[2]]
        streams.append(crossbar.column_masks(ceil_div(mask.elements * hw.precision.bits(mask.kind), 8), hw))
    for problem in problems(op):
        if problem.taps:
            try:
                streams.append(crossbar.product(problem, hw, bool(op.inputs[2:])))
            except CapacityError as error:
                raise CapacityError(f"{op.label} ({describe(op.dims)}) on crossbars: {error}") from None
    for number, (stream, work) in enumerate(streams):
        if number:
            builder.fence(index)
        builder.add(stretch(*stream, hw.dram.burst_bytes), index)
        total = {key: total.get(key, 0) + work.get(key, 0) for key in (*total, *work)}
    return OpPlan(op, "crossbar", (), 0, total.get("macs_crossbar", 0)), total


def _covers(mask: Mask | None, op: Op) -> bool:
    """Whether an elementwise operation works on the masked weights, element by element."""
    return mask is not None and isinstance(op.dims, Vector) and op.dims.elements == mask.size


def _lower_macs(
    op: Op, graph: StepGraph, mask: Mask | None, dataflow: Dataflow, pick: _Picker, resolve, builder, index: int,
    first: int,
):  # fmt: skip
    groups = op.dims.groups if isinstance(op.dims, Conv) else 1
    parts = problems(op, graph.tensors)
    if mask is not None and mask.count == mask.size:
        mask = None
    if dataflow.choices:
        dataflow = pick.dataflow(op, parts, mask, [resolve(name) for name in dataflow.choices], groups, first)
    while not dataflow.accepts(op.phase, groups, mask):
        dataflow = resolve(dataflow.fallback)
    used = mask if dataflow.selective else None
    tilings, total, stall, dense = [], dict.fromkeys(COUNTERS, 0), 0, 0
    bases = builder.bases(op, graph)
    for number, problem in enumerate(parts):
        if number:
            builder.fence(index)
        try:
            mapped = pick.mapped(op, first + number, problem, dataflow, used)
        except CapacityError as error:
            raise CapacityError(f"{op.label} ({describe(op.dims)}) with {dataflow.name}: {error}") from None
        if bases is None:
            builder.add(mapped.stretch, index)
        else:
            pieces = addresses.matrix(problem, mapped.tiling, mapped.tasks, pick.hw, mapped.loaded)
            builder.add(mapped.stretch, index, pieces, bases)
            bases[addresses.OUT] += addresses.plane_bytes(problem, pick.hw)
        tilings.append(mapped.tiling)
        stall += mapped.port_stall_cycles
        dense += problem.macs
        for key, value in mapped.counts.items():
            total[key] += value
    return OpPlan(op, dataflow.name, tuple(tilings), stall, dense), total


class _Picker(NamedTuple):
    """Takes the tiling of a problem, and the dataflow of an operation that leaves it open."""

    choice: Choice
    objective: Objective
    hw: Hardware

    def mapped(self, op: Op, part: int, problem: Problem, dataflow: Dataflow, mask: Mask | None) -> _Mapped:
        fixed = self.choice.tiling(op.name, op.phase, part, dataflow.name)
        if fixed is None:
            return _lower_problem(problem, dataflow, self.hw, mask, self.objective)
        return _lower_fixed(problem, fixed, dataflow, self.hw, mask)

    def dataflow(
        self, op: Op, parts: list[Problem], mask: Mask | None, choices: list[Dataflow], groups: int, first: int
    ) -> Dataflow:  # fmt: skip
        """Of those that accept the operation, the one with the least objective alone; the first if none does.

        A dataflow that the machine cannot run (no registers, no tiling that fits) is no choice.
        """
        fitting = [flow for flow in choices if flow.accepts(op.phase, groups, mask)]
        if len(fitting) < 2:
            return (fitting or choices)[0]

        def value(flow: Dataflow) -> float:
            used = mask if flow.selective else None
            try:
                found = (self.mapped(op, i, problem, flow, used) for i, problem in enumerate(parts, first))
                return sum(_value_alone(mapped, self.hw, self.objective) for mapped in found)
            except (CapacityError, ConfigError):
                return inf

        return min(fitting, key=value)


CYCLES = Objective()


class _Mapped(NamedTuple):
    """One problem with one tiling: task table and its columns, work counts, cycles lost to buffer ports, what of its
    tiles is loaded."""

    tiling: Tiling
    tasks: np.ndarray
    stretch: Stretch
    counts: dict[str, int]
    port_stall_cycles: int
    loaded: addresses.Loaded

    @property
    def moved_bytes(self) -> int:
        """Bytes of all loads and stores."""
        return int(self.tasks[:, _kernels.BYTES].sum())


@lru_cache(maxsize=1024)
def _lower_problem(
    problem: Problem, dataflow: Dataflow, hw: Hardware, mask: Mask | None, objective: Objective = CYCLES
) -> _Mapped:
    """The problem with its best tiling, see `search`; of tilings as good but for SLACK, the one that moves least."""
    if mask is None and objective == CYCLES:
        return _map(problem, search.best(problem, dataflow, hw), dataflow, hw, None)
    if mask is None:
        tilings = search.promising(problem, dataflow, hw, objective)
    else:
        tilings = search.masked(problem, dataflow, hw, mask)
    tried = [_map(problem, tiling, dataflow, hw, mask) for tiling in tilings]
    values = _values(tried, hw, objective)
    limit = min(values) * search.SLACK
    close = [(mapped.moved_bytes, value, i) for i, (mapped, value) in enumerate(zip(tried, values, strict=True))
             if value <= limit]  # fmt: skip
    return tried[min(close)[2]]


def _values(tried: list[_Mapped], hw: Hardware, objective: Objective) -> list[float]:
    """The objective of each alone; infinite where its lower bound says that it cannot be within SLACK of the best."""
    bounds = [_least_cycles(mapped, hw) if objective == CYCLES else 0 for mapped in tried]
    values, best = [inf] * len(tried), inf
    for i in sorted(range(len(tried)), key=bounds.__getitem__):
        if bounds[i] > best * search.SLACK:
            break
        values[i] = _value_alone(tried[i], hw, objective)
        best = min(best, values[i])
    return values


def _least_cycles(mapped: _Mapped, hw: Hardware) -> int:
    """The array works on one tile, and the DRAM bus on one transfer, at a time."""
    part = mapped.stretch
    return int(max(hw.dram_cycles(part.bytes).sum(), part.cycles[part.kind == tp.COMPUTE].sum()))


@lru_cache(maxsize=1024)
def _lower_fixed(problem: Problem, tiling: Tiling, dataflow: Dataflow, hw: Hardware, mask: Mask | None) -> _Mapped:
    """The problem with a tiling given by hand; CapacityError when it does not fit."""
    search.check(problem, tiling, dataflow, hw, mask)
    return _map(problem, tiling, dataflow, hw, mask)


def _value_alone(mapped: _Mapped, hw: Hardware, objective: Objective) -> float:
    builder = Builder(hw, placed=False)
    builder.fence(0)
    builder.add(mapped.stretch, 0)
    moved = builder.traffic()
    counts = {key: mapped.counts.get(key, 0) + moved.get(key, 0) for key in (*mapped.counts, *moved)}
    return objective.value(counts, engine.run(builder.program(), engine.unit_capacity(hw)).cycles)


def _cycles_alone(mapped: _Mapped, hw: Hardware) -> int:
    return int(_value_alone(mapped, hw, CYCLES))


def _map(problem: Problem, tiling: Tiling, dataflow: Dataflow, hw: Hardware, mask: Mask | None) -> _Mapped:
    limits.tasks(_most_tasks(problem, tiling))
    tiles = _Tiles(problem, tiling, mask is not None)
    grid = tiles.grid(problem, hw, mask)
    cost = _empty_cost(grid) if problem.taps == 0 else dataflow.cost(grid, hw)
    busy = np.broadcast_to(tile_cycles(cost, grid, hw), tiles.shape)
    kept = cost.outputs if mask is not None and dataflow.compact_outputs else None
    groups = tiles.g.reshape(-1, 1)
    rows = groups * tiles.m if cost.live_rows is None else cost.live_rows
    channels = groups * tiles.c if cost.live_channels is None else cost.live_channels
    tasks, deps = _emit(problem, tiling, tiles, cost, busy, hw, mask, rows, channels, kept)
    waiting = (busy - np.broadcast_to(cost.cycles * passes(grid, hw), tiles.shape)) * tiles.multiplicity
    loaded = addresses.Loaded(tiles.g_class, rows, channels)
    return _Mapped(
        tiling,
        tasks,
        stretch(tasks, deps, hw.dram.burst_bytes),
        _counts(problem, cost, tiles, hw),
        int(waiting.sum()),
        loaded,
    )


def _most_tasks(problem: Problem, tiling: Tiling) -> int:
    """Tasks if every tile is loaded, computed and stored."""
    groups, rows = ceil_div(problem.groups, tiling.g), ceil_div(problem.m, tiling.m)
    pixels = ceil_div(problem.n, tiling.n) * ceil_div(problem.p, tiling.p) * ceil_div(problem.q, tiling.q)
    channels = ceil_div(problem.c, tiling.c)
    outer, inner = (channels, pixels) if problem.role == TAPS else (pixels, channels)
    return groups * rows * outer * (3 * inner + 2)


class _Tiles:
    """The tiles of a problem: distinct pixel extents, all m and c extents, and where they lie.

    Group tiles: distinct extents too, or all of them when `masked`, since each has its own part of the mask.
    """

    def __init__(self, problem: Problem, tiling: Tiling, masked: bool) -> None:
        self.g, self.g_start = tile_extents(problem.groups, tiling.g), tile_starts(problem.groups, tiling.g)
        self.g_class = np.arange(self.g.size)
        if not masked:
            last = self.g.size - 1
            ragged = int(self.g[last] != self.g[0])
            self.g, self.g_class = np.unique(self.g[[0, last]]), (self.g_class < last).astype(np.int64) * ragged
        self.m, self.m_start = tile_extents(problem.m, tiling.m), tile_starts(problem.m, tiling.m)
        self.c, self.c_start = tile_extents(problem.c, tiling.c), tile_starts(problem.c, tiling.c)
        n = tile_extents(problem.n, tiling.n)
        p = tile_extents(problem.p, tiling.p)
        q = tile_extents(problem.q, tiling.q)
        rows, cols = image_extents(problem, 0, tiling.p), image_extents(problem, 1, tiling.q)
        extents = np.stack(np.meshgrid(n, p, q, indexing="ij"), axis=-1).reshape(-1, 3)
        self.pixels = extents.prod(axis=1)
        self.region = (n[:, None, None] * rows[None, :, None] * cols[None, None, :]).ravel()
        # Sorting single numbers is much faster than sorting rows.
        keys = np.ravel_multi_index(tuple(extents.T), (problem.n + 1, problem.p + 1, problem.q + 1))
        _, first, self.t_class = np.unique(keys, return_index=True, return_inverse=True)
        self.extents = extents[first]
        self.t = self.extents.prod(axis=1)
        self.shape = (self.g.size, self.m.size, self.c.size, self.t.size)
        self.multiplicity = np.bincount(self.g_class).reshape(-1, 1, 1, 1) * np.bincount(self.t_class).reshape(
            1, 1, 1, -1
        )

    def grid(self, problem: Problem, hw: Hardware, mask: Mask | None) -> TileGrid:
        masks = None
        if mask is not None:
            taps = problem.taps
            first = (self.g_start[:, None] * problem.m + self.m_start).ravel()
            size = (self.g[:, None] * self.m).ravel()
            columns = (self.c_start * taps, self.c * taps)
            masks = MaskGrid(mask.matrix(), first, size, *columns, problem.m, self.g.size)
        bits = hw.precision.bits
        return TileGrid(
            problem.role, self.g.reshape(-1, 1, 1, 1), self.m.reshape(1, -1, 1, 1), self.c.reshape(1, 1, -1, 1),
            self.t.reshape(1, 1, 1, -1), problem.taps, bits(problem.a_kind), bits(problem.b_kind), masks,
            lines=tap_lines(problem) if problem.role == TAPS else None,
            extents=tuple(self.extents.T.reshape(3, 1, 1, 1, -1)), window=problem.window,
            stride=problem.stride,
        )  # fmt: skip


def _empty_cost(grid: TileGrid) -> TileCost:
    """The gradient of inputs that no tap reached: zeros are written, nothing is computed."""
    zero = np.zeros(np.broadcast_shapes(grid.g.shape, grid.m.shape, grid.c.shape, grid.t.shape), np.int64)
    outputs = grid.g * grid.m * grid.t
    return TileCost(zero, zero, 0, zero, zero, zero, outputs)


def _emit(
    problem: Problem, tiling, tiles: _Tiles, cost: TileCost, busy, hw: Hardware, mask: Mask | None, rows, channels,
    kept=None,
):  # fmt: skip
    """Tasks and dependencies; `rows` of A per m tile and `channels` of B per c tile are loaded; `kept` are the outputs
    of each tile whose partial sums are held, None for all."""
    bits = hw.precision.bits
    weights = problem.role == TAPS
    g, t = tiles.g.reshape(-1, 1, 1), tiles.pixels
    reduced = t if weights else tiles.c * problem.taps
    a_words = rows[:, :, None] * reduced
    image = channels[:, :, None] * tiles.region
    b_words = image if weights else image.transpose(0, 2, 1)
    expanded = busy[..., tiles.t_class]
    cycles = expanded if weights else expanded.transpose(0, 1, 3, 2)
    outputs = np.broadcast_to(cost.outputs, (*tiles.shape[:3], cost.outputs.shape[3]))
    outputs = outputs[..., 0] if weights else outputs[:, :, 0, :][..., tiles.t_class]
    full = g * tiles.m[None, :, None] * ((tiles.c * problem.taps) if weights else t)[None, None, :]
    mask_bits = full if mask is not None else np.zeros_like(full)
    slots = np.array([b.slots for b in (hw.buffers.a, hw.buffers.b, hw.buffers.accumulator, hw.buffers.mask)])
    return _kernels.emit_tiles(
        tiling.swap,
        tiles.g_class,
        ceil_div(a_words * bits(problem.a_kind), 8),
        ceil_div(b_words * bits(problem.b_kind), 8),
        ceil_div(mask_bits, 8),
        ceil_div(outputs * bits(problem.out_kind), 8),
        ceil_div((full if kept is None else outputs) * hw.precision.accumulator_bits, 8),
        np.ascontiguousarray(cycles),
        slots,
    )


def _counts(problem: Problem, cost: TileCost, tiles: _Tiles, hw: Hardware) -> dict[str, int]:
    weight = tiles.multiplicity

    tile_count = int(np.broadcast_to(weight, tiles.shape).sum())

    def total(values: np.ndarray | int) -> int:
        if isinstance(values, int):
            return values * tile_count
        return int((np.broadcast_to(values, tiles.shape) * weight).sum())

    bits, accumulator = hw.precision.bits, hw.precision.accumulator_bits
    a_bits, b_bits = bits(problem.a_kind), bits(problem.b_kind)
    # Every piece of one operand meets every piece of the other.
    a_pieces, b_pieces = hw.precision.pieces(a_bits), hw.precision.pieces(b_bits)
    a_bits, b_bits = a_bits * b_pieces, b_bits * a_pieces
    done, gated, updates = total(cost.macs_done), total(cost.macs_gated), total(cost.updates)
    # An output's first value is written without a read; outputs do not depend on the reduced axis.
    per_output = 1 if problem.taps == 0 else 1 / (tiles.pixels.size if problem.role == TAPS else tiles.c.size)
    first = round(total(cost.outputs) * per_output) if updates else 0
    return {
        "macs_done": done,
        "macs_gated": gated,
        "macs_skipped": problem.macs - done - gated,
        "mac_passes": done * (a_pieces * b_pieces - 1),
        "register_bytes": (done + gated) * (a_bits + b_bits) // 8 + total(cost.register_bytes),
        "mux_words": total(cost.mux_words),
        "adder_tree_adds": total(cost.tree_adds),
        "a_read_bytes": ceil_div(total(cost.a_words) * a_bits, 8),
        "b_read_bytes": ceil_div(total(cost.b_words) * b_bits, 8),
        "accumulator_write_bytes": updates * accumulator // 8,
        "accumulator_read_bytes": (updates - first) * accumulator // 8,
        "mask_read_bytes": ceil_div(total(cost.mask_bits), 8),
        "index_decodes": total(cost.decodes),
    }
