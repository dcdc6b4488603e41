"""The best tiling of a problem: candidates are priced, the promising ones simulated, the best of those is taken.

1. Every candidate that fits is priced with the dataflow's own cost of a full tile and with the DRAM traffic that
   follows from which operands stay in their slots.
2. Of the SHORTLIST best, array cycles are summed exactly over full and ragged tiles. That gives a lower bound: nothing
   is computed before the first operands are there, and the last result leaves after it.
3. They are simulated in order of their estimate with the engine and `ideal` memory, unless their bound says that they
   cannot be better than what has been found, or BUDGET tasks have been simulated.

With an update mask a tile's cost depends on which elements it holds. Then candidates that differ in rows, channels
or pixels are returned and the caller tries each.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache, reduce
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npusim.counters import COUNTERS
from npusim.dataflow import Dataflow, TileGrid
from npusim.engine import unit_capacity
from npusim.errors import CapacityError
from npusim.graph import TAPS
from npusim.mapping import _bound_kernels as bound_kernels
from npusim.mapping import _search_kernels as kernels
from npusim.mapping.candidates import Candidates, described, fits, fitting, footprints, table
from npusim.mapping.choice import Objective
from npusim.mapping.problem import Problem
from npusim.mapping.tiling import Tiling, image_span, tap_lines, tile_cycles

if TYPE_CHECKING:
    from npusim.masks import Mask
    from npusim.npu import Hardware

SHORTLIST, BUDGET = 384, 60_000
PRICED_BY_ENERGY = 24
SLACK = 1.001
MASKED_CANDIDATES, OTHER_CANDIDATES, NEAR = 8, 4, 1.2
AXES = 6
LARGE = 2**40


def best(problem: Problem, dataflow: Dataflow, hw: Hardware) -> Tiling:
    """The tiling of fewest cycles; of those within SLACK of it the one that moves the fewest bytes.

    CapacityError when none fits.
    """
    return _best(problem, dataflow, boundless(hw), fits(problem, hw).tobytes())


@lru_cache(maxsize=4096)
def _best(problem: Problem, dataflow: Dataflow, hw: Hardware, chosen: bytes) -> Tiling:
    """`best` of these rows of the problem's table (bytes of int64); nothing looks at sizes of buffers."""
    found = table(problem).take(np.frombuffer(chosen, np.int64))
    cycles, _ = estimate(problem, dataflow, hw, found)
    swap, i = np.divmod(smallest(cycles.ravel(), SHORTLIST), found.g.size)
    return simulated(problem, dataflow, hw, found.take(i), swap.astype(bool))


@lru_cache(maxsize=1024)
def boundless(hw: Hardware) -> Hardware:
    """The machine with very large buffers: machines with the same candidates share the search among them."""
    sizes = {name: buffer.model_copy(update={"bytes": LARGE}) for name, buffer in hw.buffers}
    return hw.model_copy(update={"buffers": hw.buffers.model_copy(update=sizes)})


def promising(problem: Problem, dataflow: Dataflow, hw: Hardware, objective: Objective) -> tuple[Tiling, ...]:
    """The PRICED_BY_ENERGY tilings with the least estimate of an objective that counts energy."""
    found = fitting(problem, hw)
    cycles, moved = estimate(problem, dataflow, hw, found)
    t, pj = found.n * found.p * found.q, dict(zip(COUNTERS, objective.pj_per_count, strict=True))
    bits, energy = hw.precision.bits, cycles * objective.pj_per_cycle
    energy += moved * (pj["dram_read_bytes"] + (pj["a_write_bytes"] + pj["b_write_bytes"]) / 2)
    if problem.taps:
        cost = dataflow.cost(_grid(problem, hw, found[:AXES]), hw)
        tiles = problem.groups * problem.m * problem.c * problem.t / (found.g * found.m * found.c * t)
        updates = (pj["accumulator_read_bytes"] + pj["accumulator_write_bytes"]) * hw.precision.accumulator_bits / 8
        words = cost.a_words * (bits(problem.a_kind) / 8 * pj["a_read_bytes"])
        words = words + cost.b_words * (bits(problem.b_kind) / 8 * pj["b_read_bytes"]) + cost.updates * updates
        energy = energy + tiles * words
    value = (energy * cycles if objective.name == "edp" else energy).ravel()
    tilings = []
    for order in smallest(value, PRICED_BY_ENERGY):
        swap, i = divmod(int(order), found.g.size)
        tilings.append(found.tiling(i, swap > 0))
    return (best(problem, dataflow, hw), *tilings)


def check(problem: Problem, tiling: Tiling, dataflow: Dataflow, hw: Hardware, mask: Mask | None) -> None:
    """Raise CapacityError when a tile does not fit the buffers."""
    found = described(problem, np.array([[tiling.g, tiling.m, tiling.c, tiling.n, tiling.p, tiling.q]]))
    need = footprints(problem, hw, found, mask, dataflow.compact_outputs)
    large = [f"{int(size[0])} bytes in buffer {key!r}, which has {getattr(hw.buffers, key).slot_bytes} for a tile"
             for key, size in need.items() if size[0] > getattr(hw.buffers, key).slot_bytes]  # fmt: skip
    if large:
        raise CapacityError(f"the given tile {tiling} does not fit {hw.name}: it needs {', '.join(large)}")


def simulated(problem: Problem, dataflow: Dataflow, hw: Hardware, found: Candidates, swap: np.ndarray) -> Tiling:
    """Of tilings with loop orders the best by simulation; by estimate when none can be simulated in BUDGET."""
    classes = tile_classes(problem, dataflow, hw, found)
    which = swap.astype(np.int64), np.arange(swap.size)
    cycles, bounds, traffic = (rows[which] for rows in limits(problem, hw, found, classes.total_cycles))
    cycles = np.maximum(cycles, in_step(problem, hw, found, classes)[which])
    order = np.lexsort((traffic, cycles))
    found, swap = found.take(order), swap[order]
    spent, moved = simulate(problem, hw, found, swap, classes.busy[order], bounds[order], BUDGET)
    done = np.flatnonzero(spent >= 0)
    if done.size == 0:
        return found.tiling(0, swap[0])
    close = done[spent[done] <= SLACK * spent[done].min()]
    chosen = close[np.lexsort((spent[close], moved[close]))[0]]
    return found.tiling(chosen, swap[chosen])


def smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` smallest values, in ascending order of value."""
    if values.size > count:
        chosen = np.argpartition(values, count)[:count]
        return chosen[np.argsort(values[chosen], kind="stable")]
    return np.argsort(values, kind="stable")


def simulate(
    problem: Problem, hw: Hardware, found: Candidates, swap: np.ndarray, busy: np.ndarray, bounds: np.ndarray,
    budget: int,
) -> np.ndarray:  # fmt: skip
    """Cycles and bytes moved of every tiling alone, in order, int64 [2, candidates]; -1 where it was left out: its
    lower bound is no better than the best before it, or all before it took `budget` tasks.

    busy: see `Classes`.
    """
    tilings = np.stack([*found[:AXES], swap.astype(np.int64)], axis=1)
    buffers = hw.buffers
    slots = np.array([b.slots for b in (buffers.a, buffers.b, buffers.accumulator, buffers.mask)])
    return kernels.evaluate(
        _shape(problem, hw), _memory(hw), slots, unit_capacity(hw), tilings, busy, bounds,
        2 * found.steps, budget,
    )  # fmt: skip


class Classes(NamedTuple):
    """Tiles that are full (0) or ragged (1) along the axes g, m, c, n, p, q; an axis along which no candidate is ragged
    has length 1. Arrays broadcast to [candidates, 2, 2, 2, 2, 2, 2].

    extents: of the axes; times: how many tiles of the class there are; busy int64: array cycles of one of them.
    """

    extents: list[np.ndarray]
    times: np.ndarray
    busy: np.ndarray

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Over all tiles, [candidates]."""
        return (values * self.times).reshape(len(self.times), -1).sum(axis=1)

    @property
    def total_cycles(self) -> np.ndarray:
        return self.sum(self.busy)


def tile_classes(problem: Problem, dataflow: Dataflow, hw: Hardware, found: Candidates) -> Classes:
    totals = (problem.groups, problem.m, problem.c, problem.n, problem.p, problem.q)
    extents, times = [], []
    for axis, (size, whole) in enumerate(zip(found[:AXES], totals, strict=True)):
        rest = whole % size
        both, number = [size], [whole // size]
        if rest.any():
            both.append(np.where(rest > 0, rest, size))
            number.append((rest > 0).astype(np.int64))
        shape = (-1, *(1,) * axis, len(both), *(1,) * (AXES - 1 - axis))
        extents.append(np.stack(both, axis=1).reshape(shape))
        times.append(np.stack(number, axis=1).reshape(shape))
    counted = reduce(np.multiply, times)
    if problem.taps == 0:
        return Classes(extents, counted, np.zeros(counted.shape, np.int64))
    grid = _grid(problem, hw, extents)
    busy = np.broadcast_to(tile_cycles(dataflow.cost(grid, hw), grid, hw), counted.shape)
    return Classes(extents, counted, np.ascontiguousarray(busy, np.int64))


def in_step(problem: Problem, hw: Hardware, found: Candidates, classes: Classes) -> np.ndarray:
    """Estimated cycles when every tile takes its array cycles or the bus time of its transfers, whichever is longer;
    operands that stay for several tiles are spread over them. int64 [2, candidates] (rows: loop orders)."""
    g, m, c, n, p, q = classes.extents
    bits, taps, t = hw.precision.bits, problem.taps, n * p * q
    rows, columns = image_span(problem, 0, p), image_span(problem, 1, q)
    a_words, out_words = (m * t, m * c * taps) if problem.role == TAPS else (m * c * taps, m * t)
    parts = (
        (g * a_words, problem.a_kind),
        (g * c * n * rows * columns, problem.b_kind),
        (g * out_words, problem.out_kind),
    )
    sizes = [words * (bits(kind) / 8 * hw.clock_hz / hw.dram.bandwidth_bytes_per_s) for words, kind in parts]
    found_cycles = []
    for loads in transfers(problem, hw, found):
        shares = [(number / found.steps).reshape(-1, *(1,) * AXES) for number in loads]
        bus = sum(size * share for size, share in zip(sizes, shares, strict=True))
        found_cycles.append(classes.sum(np.maximum(classes.busy, bus)))
    return np.array(found_cycles).astype(np.int64)


def _grid(problem: Problem, hw: Hardware, extents: Sequence[np.ndarray], density: float = 1.0) -> TileGrid:
    g, m, c, n, p, q = extents
    bits = hw.precision.bits
    return TileGrid(
        problem.role, g, m, c, n * p * q, max(problem.taps, 1), bits(problem.a_kind), bits(problem.b_kind),
        density=density, lines=tap_lines(problem) if problem.role == TAPS else None, extents=(n, p, q),
        window=problem.window, stride=problem.stride,
    )  # fmt: skip


def _shape(problem: Problem, hw: Hardware) -> kernels.Shape:
    p, bits = problem, hw.precision.bits
    return kernels.Shape(
        p.role == TAPS, p.groups, p.m, p.c, p.taps, p.n, p.p, p.q, p.h, p.w, *p.stride, *p.start, *p.extent,
        bits(p.a_kind), bits(p.b_kind), bits(p.out_kind),
    )  # fmt: skip


def _memory(hw: Hardware) -> kernels.Memory:
    per_byte = Fraction(hw.clock_hz, hw.dram.bandwidth_bytes_per_s)
    return kernels.Memory(hw.dram.burst_bytes, per_byte.numerator, per_byte.denominator, hw.dram_latency_cycles)


def estimate(
    problem: Problem, dataflow: Dataflow, hw: Hardware, found: Candidates, density: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Estimated cycles and DRAM bytes of each candidate, int64 [2, candidates] (rows: loop orders).

    A ragged tile is taken as its share of a full one.
    """
    grid = _grid(problem, hw, found[:AXES], density)
    volume = problem.groups * problem.m * problem.c * problem.t * (problem.taps > 0)
    tiles = volume / (found.g * found.m * found.c * grid.t)
    compute = (tile_cycles(dataflow.cost(grid, hw), grid, hw) * tiles).astype(np.int64)
    cycles, _, moved = limits(problem, hw, found, compute, density)
    return cycles, moved


def limits(problem: Problem, hw: Hardware, found: Candidates, compute: np.ndarray, density: float = 1.0) -> np.ndarray:
    """Estimated cycles, cycles that no resource lets a tiling undercut, and DRAM bytes, int64 [3, 2, candidates] (the
    second axis: loop orders).

    With L loads and stores of duration bus time + latency, and array cycles `compute` in all:

        array         the first operands' loads, compute, the last store
        bus           bus time of all transfers, latency of the last one
        channels      durations of all loads / read channels; of all stores / write channels
        slots         of each operand (durations of its loads + compute) / slots, since a slot is either loading or in
                      use; of the accumulator (durations of stores + compute) / slots

    Transfers are whole bursts of mean size for the estimate, exact bytes without rounding for the lower bound.
    """
    return bound_kernels.limits(
        _traffic(problem, hw, density), *_tiles(found), found.regions,
        np.broadcast_to(compute, found.g.shape).astype(np.int64),
    )  # fmt: skip


def transfers(problem: Problem, hw: Hardware, found: Candidates) -> np.ndarray:
    """Loads of A, loads of B and stores of each candidate, for both loop orders, int64 [2, 3, candidates]."""
    return bound_kernels.transfers(_traffic(problem, hw), *_tiles(found))


def _tiles(found: Candidates) -> tuple[np.ndarray, ...]:
    return found.tiles_g, found.tiles_m, found.tiles_c, found.tiles_t


def _traffic(problem: Problem, hw: Hardware, density: float = 1.0) -> bound_kernels.Traffic:
    """`density`: share of the outputs that is stored."""
    p, bits, buffers = problem, hw.precision.bits, hw.buffers
    computed = p.taps > 0
    columns, length = (p.c * p.taps, p.t) if p.role == TAPS else (p.t, p.c * p.taps)
    return bound_kernels.Traffic(
        p.role == TAPS, computed, p.groups * p.m * length * bits(p.a_kind),
        p.groups * p.c * computed * bits(p.b_kind), ceil(p.groups * p.m * columns * density) * bits(p.out_kind),
        buffers.a.slots, buffers.b.slots, buffers.accumulator.slots, hw.dma.read_channels, hw.dma.write_channels,
        hw.dram.burst_bytes, hw.clock_hz / hw.dram.bandwidth_bytes_per_s, hw.dram_latency_cycles,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def masked(problem: Problem, dataflow: Dataflow, hw: Hardware, mask: Mask) -> tuple[Tiling, ...]:
    """Up to MASKED_CANDIDATES tilings that differ in rows or channels, OTHER_CANDIDATES that differ in pixels, and
    as many with the least traffic within NEAR of the fewest cycles, by estimate at the mask's density.

    The mask of an output tile must fit the mask buffer.
    """
    found = fitting(problem, hw, None, mask, dataflow.compact_outputs)
    density = mask.density if dataflow.selective else 1.0
    cycles, traffic = estimate(problem, dataflow, hw, found, density)
    by_cycles = np.lexsort((traffic.ravel(), cycles.ravel()))
    by_traffic = np.lexsort((cycles.ravel(), traffic.ravel()))

    def tiling(order: int) -> Tiling:
        swap, i = divmod(int(order), found.g.size)
        return found.tiling(i, swap > 0)

    blocks: dict[tuple[str, int], Tiling] = {}
    pixels: dict[int, Tiling] = {}
    for order in by_cycles[cycles.ravel()[by_cycles] <= 2 * cycles.min()]:
        one = tiling(order)
        blocks.setdefault(("m", one.m), one)
        blocks.setdefault(("c", one.c), one)
        if len(pixels) < OTHER_CANDIDATES:
            pixels.setdefault(one.n * one.p * one.q, one)
        if len(set(blocks.values())) >= MASKED_CANDIDATES:
            break
    near = by_traffic[cycles.ravel()[by_traffic] <= NEAR * cycles.min()]
    lean = [tiling(order) for order in near[:OTHER_CANDIDATES]]
    return tuple(dict.fromkeys((*blocks.values(), *pixels.values(), *lean)))
