"""A program grows stream by stream: task tables become columns once, and a step joins those of all its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npusim import program as tp
from npusim.mapping import _kernels, addresses, limits

if TYPE_CHECKING:
    from npusim.graph import Op, StepGraph
    from npusim.npu import Hardware

# What the tasks of a stream move, in the order of `_kernels.columns`.
TRAFFIC = (
    "dram_read_bytes", "dram_write_bytes", "accumulator_read_bytes", "a_write_bytes", "b_write_bytes",
    "mask_write_bytes",
)  # fmt: skip
ZERO, ZEROS, CODES = np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)


class Stretch(NamedTuple):
    """Tasks of one stream. Dependencies `deps` int64 (dep_counts int64[n] of each task) count from its first task; -1
    is the fence before it. `ends`: tasks whose end is the end of all; bytes: in whole bursts; traffic int64[TRAFFIC];
    other columns as in TileProgram, with `cycles` of work only.
    """

    kind: np.ndarray
    cycles: np.ndarray
    bytes: np.ndarray
    buffer: np.ndarray
    slot: np.ndarray
    footprint: np.ndarray
    dep_counts: np.ndarray
    deps: np.ndarray
    ends: np.ndarray
    traffic: np.ndarray


NOTHING = Stretch(CODES, ZEROS, ZEROS, CODES, CODES, ZEROS, ZEROS, ZEROS, ZEROS, ZEROS)


def stretch(tasks: np.ndarray, deps: np.ndarray, burst_bytes: int) -> Stretch:
    """Columns of task and dependency tables (see `_kernels.emit_tiles`)."""
    return Stretch(*_kernels.columns(tasks, deps, burst_bytes))


class Builder:
    """Joins streams, operation by operation; every task without dependencies waits for the fence before its stream.

    `placed`: with addresses for command-level memory, if the machine has it; else with ideal memory.
    """

    def __init__(self, hw: Hardware, placed: bool = True) -> None:
        self.hw = hw
        self.places = addresses.Map() if placed and hw.dram.model == "commands" else None
        self.size = 0
        self.parts: list[Stretch] = []
        self.deps: list[np.ndarray] = []
        self.ops: list[int] = []
        self.open = np.empty(0, np.int64)
        self.pending = np.zeros(len(TRAFFIC), np.int64)
        self.segments: list[np.ndarray] = []
        self.placed: list[tuple[np.ndarray, np.ndarray]] = []
        self.rows = 0

    def bases(self, op: Op, graph: StepGraph) -> np.ndarray | None:
        """Base addresses of the operands of `op`; None when no DRAM commands are simulated."""
        return addresses.operands(op, graph, self.hw, self.places) if self.places else None

    def fence(self, op: int) -> None:
        """Everything added later waits for everything added before."""
        small = np.zeros(1, np.uint8)
        part = Stretch(small + tp.FENCE, ZERO, ZERO, small, small, ZERO, ZERO + self.open.size, ZEROS, ZEROS, ZEROS)
        self._append(part, self.open, op)
        self.open = np.array([self.size - 1])

    def add(self, part: Stretch, op: int, pieces: addresses.Pieces | None = None, bases=None) -> None:
        base = self.size
        limits.tasks(base + part.kind.size, "the step")
        self.pending = self.pending + part.traffic
        if pieces is not None:
            # In place of whole bursts from the first one on: those that the pieces touch.
            loads, stores = part.kind == tp.LOAD, part.kind == tp.STORE
            moved = np.where(loads | stores, pieces.bytes, 0)
            self.pending[:2] += (moved[loads].sum(), moved[stores].sum()) - part.traffic[:2]
            part = part._replace(bytes=moved)
        self._append(part, part.deps + base, op)
        if pieces is not None:
            self.placed[-1] = pieces.first + self.rows, pieces.pieces
            self.segments.append(pieces.segments + np.pad(bases[pieces.operand][:, None], ((0, 0), (0, 3))))
            self.rows += len(pieces.segments)
        self.open = part.ends + base if part.ends.size else self.open

    def _append(self, part: Stretch, deps: np.ndarray, op: int) -> None:
        self.parts.append(part)
        self.deps.append(deps)
        self.ops.append(op)
        self.size += part.kind.size
        if self.places:
            self.placed.append((np.zeros(part.kind.size, np.int64),) * 2)

    def traffic(self) -> dict[str, int]:
        """Bytes moved since the last call."""
        found, self.pending = self.pending, np.zeros(len(TRAFFIC), np.int64)
        return dict(zip(TRAFFIC, found.tolist(), strict=True))

    def program(self) -> tp.TileProgram:
        """All that was added."""
        joined = Stretch(*(np.concatenate(column) for column in zip(NOTHING, *self.parts, strict=True)))
        dma = (joined.kind == tp.LOAD) | (joined.kind == tp.STORE)
        bus, latency = self.hw.dram_cycles(joined.bytes), self.hw.dram_latency_cycles
        placed = {}
        if self.places:
            bus, latency = np.zeros_like(joined.bytes), self.hw.dram_path_cycles
            first, pieces = (np.concatenate(column) for column in zip(*self.placed, strict=True))
            placed = {"first": first, "pieces": pieces, "segments": np.concatenate([tp.NO_SEGMENTS, *self.segments])}
        return tp.TileProgram(
            kind=joined.kind,
            op=np.repeat(np.array(self.ops, np.int32), [part.kind.size for part in self.parts]),
            cycles=np.where(dma, bus, joined.cycles),
            tail=np.where(dma, latency, 0).astype(np.int64),
            bytes=joined.bytes,
            buffer=joined.buffer,
            slot=joined.slot,
            footprint=joined.footprint,
            dep_ptr=np.cumsum(np.concatenate([ZERO, joined.dep_counts])),
            dep_idx=np.concatenate([ZEROS, *self.deps]).astype(np.int32),
            **placed,
        )
