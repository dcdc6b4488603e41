"""What every unit of the machine does, cycle by cycle: slices on tracks, and buffers as counters.

| track            | slices                                                                                       |
|------------------|----------------------------------------------------------------------------------------------|
| operations       | one per operation, from its opening fence to the next one's                                  |
| PE array         | one per tile (busy); between them `wait_load`, `wait_store`: what the next tile waits for    |
| vector unit      | one per chunk, as the PE array                                                               |
| DMA in, DMA out  | one per transfer and channel; inside it `wait_bus`, `busy` (its data is on the bus), `latency` |
| DRAM bus         | with `ideal` memory: one per transfer                                                        |
| DRAM channel     | with simulated commands: one per run of bursts of a transfer on the channel's data bus       |
| DRAM channel, refresh | with simulated commands, where there are any: one per refresh                           |

Causes are those of `npusim.units`: on every unit the slices of a cause add up to the unit's row of `units.table` (but
for DRAM channels, of which that row is the mean, rounded down), and what no slice covers is `idle`. Counters: bytes of
each buffer in use, from the start of the task that fills a slot to the end of the last one that needs it.

Times are cycles. Files show one cycle as one nanosecond, because their unit is the nanosecond and a cycle need not be a
whole number of them; the name of the machine's process says how long a cycle is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from npusim import engine, text
from npusim import program as tp
from npusim.engine import dram_watch
from npusim.engine import memory as engine_memory
from npusim.errors import NpusimError, closest

if TYPE_CHECKING:
    from npusim.simulation import Run

OPERATION, TRANSFER, REFRESH = "operation", "transfer", "refresh"


@dataclass(frozen=True)
class Track:
    """Slices of one server of a unit, parents before their children: [start, end) in cycles, what each is (a cause of
    `units.CAUSES`, OPERATION, TRANSFER or REFRESH), its name, and its task (-1: none)."""

    name: str
    unit: str
    start: np.ndarray
    end: np.ndarray
    causes: tuple[str, ...]
    names: tuple[str, ...]
    tasks: np.ndarray

    @property
    def size(self) -> int:
        """How many slices."""
        return self.start.size


@dataclass(frozen=True)
class Counter:
    """Bytes of a buffer in use from each of `at` (cycles, ascending) on; `limit_bytes` is its size."""

    name: str
    at: np.ndarray
    values: np.ndarray
    limit_bytes: int


@dataclass(frozen=True)
class Timeline:
    """Tracks and counters of one simulation."""

    title: str
    cycles: int
    clock_hz: int
    tracks: tuple[Track, ...]
    counters: tuple[Counter, ...]

    @property
    def size(self) -> int:
        """Slices and counter values."""
        return sum(track.size for track in self.tracks) + sum(counter.at.size for counter in self.counters)

    @property
    def scale(self) -> str:
        """How long a cycle is."""
        return f"1 ns here is 1 cycle of {1e9 / self.clock_hz:.4g} ns ({self.clock_hz / 1e6:g} MHz)"


def build(run: Run, layers: Sequence[str] = (), ops: tuple[int, int] | None = None) -> Timeline:
    """The timeline of a simulation, or of a part of it.

    layers: only operations whose name fits one of these patterns ('layer1.*'); ops: only operations of these numbers,
    both included (row numbers of `Run.layers`). NpusimError when there are none.
    """
    found = _Builder(run, _chosen(run, layers, ops))
    capacity = engine.unit_capacity(run.hardware)
    tracks = [found.operations()]
    tracks += [found.unit("PE array", tp.COMPUTE, "array"), found.unit("vector unit", tp.VECTOR, "vector")]
    tracks += found.channels("DMA in", tp.LOAD, "dma_read", int(capacity[tp.DMA_READ]))
    tracks += found.channels("DMA out", tp.STORE, "dma_write", int(capacity[tp.DMA_WRITE]))
    tracks += found.dram()
    title = text.clean(run.sentence())
    return Timeline(title, run.schedule.cycles, run.hardware.clock_hz, tuple(tracks), tuple(found.buffers()))


def _chosen(run: Run, layers: Sequence[str], ops: tuple[int, int] | None) -> np.ndarray:
    """Which operations are shown, bool [operations]."""
    names = [plan.op.name for plan in run.lowered.plans]
    chosen = np.ones(len(names), bool)
    if ops is not None:
        first, last = ops
        if not 0 <= first <= last < len(names):
            raise NpusimError(f"operations {first}-{last}: the step has operations 0-{len(names) - 1}")
        chosen[:first] = chosen[last + 1 :] = False
    if layers:
        fits = [any(fnmatchcase(name, pattern) for pattern in layers) for name in names]
        if not any(fits):
            raise NpusimError(f"no operation is called {', '.join(layers)}{closest(layers[0], dict.fromkeys(names))}")
        chosen &= np.array(fits)
        if not chosen.any():
            raise NpusimError(f"no operation called {', '.join(layers)} is among those numbers")
    return chosen


class _Builder:
    """Columns of the chosen tasks, and the names of their tiles."""

    def __init__(self, run: Run, chosen: np.ndarray) -> None:
        self.run, self.chosen = run, chosen
        self.program, self.schedule = run.lowered.program, run.schedule
        self.kind = self.program.kind
        self.shown = chosen[self.program.op] if self.kind.size else np.zeros(0, bool)
        self.owner = np.repeat(np.arange(self.kind.size), np.diff(self.program.dep_ptr))
        self.labels = [f"{text.clean(plan.op.name)} {plan.op.phase}" for plan in run.lowered.plans]
        self.tile = self._tiles()

    def _tiles(self) -> np.ndarray:
        """The number of the tile that a task belongs to, from 1 in every operation: of a load the first tile that needs
        it, of a store the tile whose results leave; 0 when there is none."""
        program, kind = self.program, self.kind
        working = (kind == tp.COMPUTE) | (kind == tp.VECTOR)
        order = np.cumsum(working)
        before = np.zeros(len(self.labels) + 1, np.int64)
        np.maximum.at(before, program.op + 1, order)
        tile = np.where(working, order - np.maximum.accumulate(before)[program.op], 0)
        deps = program.dep_idx
        uses = working[self.owner] & (kind[deps] == tp.LOAD)
        first = np.full(kind.size, np.iinfo(np.int64).max)
        np.minimum.at(first, deps[uses], tile[self.owner[uses]])
        tile = np.where((kind == tp.LOAD) & (first < np.iinfo(np.int64).max), first, tile)
        leaves = (kind[self.owner] == tp.STORE) & working[deps]
        np.maximum.at(tile, self.owner[leaves], tile[deps[leaves]])
        return tile

    def name(self, task: int | np.integer) -> str:
        number = self.tile[task]
        return f"{self.labels[self.program.op[task]]}" + (f" tile {number}" if number else "")

    def moved(self, task: int | np.integer) -> str:
        """The name of a transfer: buffer and tile."""
        if self.kind[task] == tp.STORE:
            return f"store {self.name(task)}"
        return f"load {tp.BUFFER_NAMES[self.program.buffer[task]]}, {self.name(task)}"

    def tasks(self, kind: int) -> np.ndarray:
        return np.flatnonzero((self.kind == kind) & self.shown)

    def operations(self) -> Track:
        fences = np.flatnonzero(self.kind == tp.FENCE)
        opening = fences[np.unique(self.program.op[fences], return_index=True)[1]]
        marks = np.append(self.schedule.end[opening], self.schedule.cycles)
        at = np.flatnonzero(self.chosen)
        names = tuple(self.labels[i] for i in at)
        none = np.full(at.size, -1)
        return Track("operations", "", marks[at], marks[at + 1], (OPERATION,) * at.size, names, none)

    def unit(self, name: str, kind: int, unit: str) -> Track:
        """Tasks of a unit with one server, and before each the time for which it waits."""
        tasks = self.tasks(kind)
        free, cause, culprit = self._waits(kind, tasks)
        start, end = self.schedule.start[tasks], self.schedule.end[tasks]
        gap = start > free
        rows = _merged(
            (free[gap], start[gap], [("wait_load", "wait_store")[c] for c in cause[gap]], self._waiting(culprit[gap]),
             tasks[gap]),
            (start, end, ["busy"] * tasks.size, [self.name(t) for t in tasks], tasks),
        )  # fmt: skip
        return Track(name, unit, *rows)

    def _waiting(self, culprits: np.ndarray) -> list[str]:
        return [f"waits for {self.moved(task)}" if task >= 0 else "waits" for task in culprits]

    def _waits(self, kind: int, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each task: since when its unit is free, why it is not used (0 LOAD, 1 STORE), and the task waited for.

        The rule of `_analysis_kernels.waits`: a wait lasts from the end of the unit's former task or fence; its cause
        is the LOAD or STORE dependency that ended last, of several the first one.
        """
        program, schedule = self.program, self.schedule
        marks = np.flatnonzero((self.kind == tp.FENCE) | (self.kind == kind))
        ends = np.append(0, schedule.end[marks])
        free = ends[np.searchsorted(marks, tasks)]
        culprit = np.full(tasks.size, -1)
        latest = np.full(tasks.size, -1)
        counts = np.diff(program.dep_ptr)[tasks]
        for number in range(int(counts.max(initial=0))):
            has = np.flatnonzero(counts > number)
            dep = program.dep_idx[program.dep_ptr[tasks[has]] + number]
            moves = (self.kind[dep] == tp.LOAD) | (self.kind[dep] == tp.STORE)
            later = moves & (schedule.end[dep] > latest[has])
            culprit[has[later]], latest[has[later]] = dep[later], schedule.end[dep[later]]
        return free, np.where(culprit >= 0, self.kind[culprit] == tp.STORE, 0).astype(int), culprit

    def channels(self, name: str, kind: int, unit: str, capacity: int) -> list[Track]:
        """Transfers on as many tracks as the unit has channels, each on the first that is free."""
        tasks = self.tasks(kind)
        tasks = tasks[np.lexsort((tasks, self.schedule.start[tasks]))]
        free = [0] * capacity
        lanes = np.zeros(tasks.size, np.int64)
        for i, task in enumerate(tasks):
            lane = next(j for j, end in enumerate(free) if end <= self.schedule.start[task])
            lanes[i], free[lane] = lane, self.schedule.end[task]
        return [
            Track(f"{name} {lane + 1}" if capacity > 1 else name, unit, *self._transfers(tasks[lanes == lane]))
            for lane in range(capacity)
        ]

    def _transfers(self, tasks: np.ndarray):
        start, bus, end = (column[tasks] for column in self.schedule[:3])
        sent = end - self.program.tail[tasks]
        parts = [(start, end, [TRANSFER] * tasks.size, [self.moved(task) for task in tasks], tasks)]
        for first, last, cause, shown in (
            (start, bus, "wait_bus", "waits for the DRAM bus"), (bus, sent, "busy", "data"),
            (sent, end, "latency", "latency"),
        ):  # fmt: skip
            some = last > first
            count = int(some.sum())
            parts.append((first[some], last[some], [cause] * count, [shown] * count, tasks[some]))
        return _merged(*parts)

    def dram(self) -> list[Track]:
        """The bus of `ideal` memory, or every channel of a DRAM whose commands were simulated."""
        memory = engine_memory.memory(self.run.hardware)
        if memory is None:
            return [self.bus()]
        capacity = engine.unit_capacity(self.run.hardware)
        use = dram_watch.use(self.program, self.schedule, capacity, memory, self.shown)
        # Writes that are still queued when the step ends are behind its end.
        shown = use.start < self.schedule.cycles
        if self.shown.any():
            first, last = self.schedule.start[self.shown].min(), self.schedule.end[self.shown].max()
            shown &= (use.what != dram_watch.REFRESH) | ((use.end > first) & (use.start < last))
        tracks = []
        channels = memory.config.channels
        for number in range(memory.buses + channels):
            at = np.flatnonzero(shown & (use.bus == number))
            end = np.minimum(use.end[at], self.schedule.cycles)
            if number < memory.buses:
                channel, part = divmod(number, memory.buses // channels)
                name = f"DRAM channel {channel + 1}" + (f".{part + 1}" if memory.buses > channels else "")
                names = [self.moved(task) + (f", {n} bursts" if n > 1 else "") for task, n in
                         zip(use.task[at], use.joined[at].tolist(), strict=True)]  # fmt: skip
                tracks.append(Track(name, "dram", use.start[at], end, ("busy",) * at.size, tuple(names), use.task[at]))
            elif at.size:
                name = f"DRAM channel {number - memory.buses + 1}, refresh"
                same = (REFRESH,) * at.size
                tracks.append(Track(name, "", use.start[at], end, same, same, use.task[at]))
        return tracks

    def bus(self) -> Track:
        tasks = np.flatnonzero(((self.kind == tp.LOAD) | (self.kind == tp.STORE)) & self.shown)
        start = self.schedule.bus[tasks]
        names = [self.moved(task) for task in tasks]
        rows = _merged((start, start + self.program.cycles[tasks], ["busy"] * tasks.size, names, tasks))
        return Track("DRAM bus", "dram", *rows)

    def buffers(self) -> list[Counter]:
        """Bytes in use of every buffer that the chosen operations fill."""
        until = self._last_use()
        buffers = self.run.hardware.buffers
        found = []
        for code, buffer in enumerate((buffers.a, buffers.b, buffers.accumulator, buffers.mask), start=tp.BUFFER_A):
            fills = np.flatnonzero((self.program.buffer == code) & self.shown)
            if fills.size:
                size = self.program.footprint[fills]
                at = np.concatenate([self.schedule.start[fills], until[fills]])
                found.append(_counter(f"buffer {tp.BUFFER_NAMES[code]}", at, np.append(size, -size), buffer.bytes))
        return found

    def _last_use(self) -> np.ndarray:
        """End of the last task that needs what a task put into its slot.

        Operands and masks: the tasks that depend on the LOAD. Results: the first STORE behind the task that began
        them, if it comes before the next results begin.
        """
        program, end = self.program, self.schedule.end
        until = end.copy()
        working = (self.kind[self.owner] == tp.COMPUTE) | (self.kind[self.owner] == tp.VECTOR)
        np.maximum.at(until, program.dep_idx[working], end[self.owner[working]])
        begins = np.flatnonzero(program.buffer == tp.ACCUMULATOR)
        stores = np.append(np.flatnonzero(self.kind == tp.STORE), self.kind.size)
        leaving = stores[np.searchsorted(stores, begins)]
        has = leaving < np.append(begins[1:], self.kind.size)
        until[begins[has]] = end[leaving[has]]
        return until


def _merged(*parts) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Columns (start, end, causes, names, tasks) joined in the order of time, longer slices first."""
    start, end, tasks = (np.concatenate([np.asarray(part[i], np.int64) for part in parts]) for i in (0, 1, 4))
    causes, names = ([value for part in parts for value in part[i]] for i in (2, 3))
    order = np.lexsort((np.arange(start.size), -end, start))
    return start[order], end[order], tuple(causes[i] for i in order), tuple(names[i] for i in order), tasks[order]


def _counter(name: str, at: np.ndarray, change: np.ndarray, limit: int) -> Counter:
    times, which = np.unique(at, return_inverse=True)
    total = np.zeros(times.size, np.int64)
    np.add.at(total, which, change)
    values = np.cumsum(total)
    new = np.append(True, values[1:] != values[:-1])
    return Counter(name, times[new], values[new], limit)
