"""Where the tiles of an operation lie in DRAM: which pieces every LOAD and STORE of a program moves.

Only command-level memory needs it. Layouts, row-major:

| tensor                       | layout                                                                             |
|------------------------------|------------------------------------------------------------------------------------|
| activations, their gradients | [N, C, H, W]; tokens of a linear layer [N, C]                                      |
| weights, weight gradients    | [K, C/G, R, S]                                                                     |
| operands of a matmul         | [batch, M, K], [batch, K, N]                                                       |
| dX of a strided convolution  | one [N, C, P, Q] plane after the other, one per output residue class               |
| masks, compact results       | tile by tile: what a tile holds lies together                                      |

A DMA engine fetches whole runs: the columns between the wanted ones of a strided window are moved too. Of rows or
channels without a selected element only as many as are live are moved, evenly spread over the tile. Every tensor has
its own place, from 4 KiB boundaries on, in order of first use; a step larger than the device wraps around.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npusim import program as tp
from npusim.folding import ceil_div
from npusim.graph import TAPS, Conv, Gemm, Op, StepGraph
from npusim.mapping import _kernels
from npusim.mapping.problem import Problem
from npusim.mapping.tiling import tile_extents, tile_starts

if TYPE_CHECKING:
    from npusim.mapping.tiling import Tiling
    from npusim.npu import Hardware

PAGE = 4096
# Operands of a MAC operation; those of a vector operation are numbered as its inputs, then its outputs.
A, B, OUT, MASK = range(4)


class Pieces(NamedTuple):
    """DRAM pieces of the tasks of one problem, relative to the tensors they belong to.

    first, pieces int64 [tasks]: rows of `segments` of each task; segments int64 [s, 4]: address, bytes, rows, stride;
    operand int64 [s]: number of the tensor; bytes int64 [tasks]: bytes of all bursts that the pieces touch.
    """

    first: np.ndarray
    pieces: np.ndarray
    segments: np.ndarray
    operand: np.ndarray
    bytes: np.ndarray


class Loaded(NamedTuple):
    """What of a problem's tiles is loaded: rows of A int64 [classes, m tiles], channels of B int64 [classes, c tiles].

    Both are summed over the groups of a tile; g_class int64 [group tiles] gives the class of each.
    """

    g_class: np.ndarray
    rows: np.ndarray
    channels: np.ndarray


class Block(NamedTuple):
    """Tiles as loops over runs, in bits: start [t], and outermost first counts and strides [t, levels], run [t]."""

    start: np.ndarray
    counts: np.ndarray
    strides: np.ndarray
    run: np.ndarray


class Map:
    """Addresses of tensors, handed out in order of first use; `sizes` in bytes."""

    def __init__(self) -> None:
        self.bases: dict[str, int] = {}
        self.end = 0

    def base(self, name: str, size: int) -> int:
        if name not in self.bases:
            self.bases[name] = self.end
            self.end += ceil_div(max(size, 1), PAGE) * PAGE
        return self.bases[name]


def operands(op: Op, graph: StepGraph, hw: Hardware, memory: Map) -> np.ndarray:
    """Base address of every operand of `op`, int64; those that the step does not name get places of their own."""
    names = [*op.inputs, *op.outputs]
    if isinstance(op.dims, (Conv, Gemm)):
        first, second = (1, 0) if isinstance(op.dims, Conv) and op.phase != "grad_weight" else (0, 1)
        inputs = [*op.inputs, *(f"{op.label} operand {i}" for i in range(len(op.inputs), 2))]
        outputs = op.outputs or (f"{op.label} result",)
        names = [inputs[first], inputs[second], outputs[0], f"mask of {op.param or op.label}"]
    sizes = [ceil_div(_elements(name, op, graph) * _bits(name, graph, hw), 8) for name in names]
    if isinstance(op.dims, Conv) and op.phase == "grad_input":
        sizes[OUT] += op.dims.stride[0] * op.dims.stride[1] * PAGE
    return np.array([memory.base(name, size) for name, size in zip(names, sizes, strict=True)], np.int64)


def plane_bytes(problem: Problem, hw: Hardware) -> int:
    """Room for the result of one problem of several that write the same tensor: whole pages."""
    elements = problem.groups * problem.m * problem.t
    return ceil_div(elements * hw.precision.bits(problem.out_kind), 8 * PAGE) * PAGE


def _elements(name: str, op: Op, graph: StepGraph) -> int:
    if name in graph.tensors:
        return graph.tensors[name].elements
    match op.dims:
        case Conv() as d:
            return max(d.n * d.c * d.h * d.w, d.n * d.k * d.p * d.q, d.weights)
        case Gemm() as d:
            return d.batch * max(d.m * d.k, d.k * d.n, d.m * d.n)
    raise AssertionError(f"{op.label}: no tensor {name!r}")


def _bits(name: str, graph: StepGraph, hw: Hardware) -> int:
    return hw.precision.bits(graph.tensors[name].kind) if name in graph.tensors else 32


def matrix(problem: Problem, tiling: Tiling, tasks: np.ndarray, hw: Hardware, loaded: Loaded) -> Pieces:
    """Pieces of a MAC problem's tasks."""
    bits = hw.precision.bits
    where = _Places(problem, tiling, loaded)
    kind, buffer = tasks[:, _kernels.KIND], tasks[:, _kernels.BUFFER]
    parts = []
    for operand, code, block in (
        (A, tp.BUFFER_A, where.a(bits(problem.a_kind))),
        (B, tp.BUFFER_B, where.b(bits(problem.b_kind))),
    ):
        chosen = np.flatnonzero((kind == tp.LOAD) & (buffer == code))
        parts.append((operand, chosen, _take(block, tasks[chosen, _kernels.TILE])))
    stores = np.flatnonzero(kind == tp.STORE)
    out_bits = bits(problem.out_kind)
    whole = where.out(out_bits)
    block = _take(whole, tasks[stores, _kernels.TILE])
    sizes = 8 * tasks[stores, _kernels.BYTES]
    compact = sizes < (block.counts.prod(axis=1) * block.run) // 8 * 8
    run = np.where(compact, sizes, block.run)
    counts = np.where(compact[:, None], 1, block.counts)
    start = np.where(compact, _take(where.packed(out_bits), tasks[stores, _kernels.TILE]).start, block.start)
    parts.append((OUT, stores, Block(start, counts, block.strides, run)))
    masks = np.flatnonzero((kind == tp.LOAD) & (buffer == tp.MASK_BUFFER))
    packed = _take(where.packed(1), tasks[masks, _kernels.TILE])
    parts.append((MASK, masks, packed._replace(run=8 * tasks[masks, _kernels.BYTES])))
    return _join(parts, len(tasks), hw.dram.burst_bytes)


def stream(sizes: list[int], spans: list[int], inputs: int, chunks: int, tasks: np.ndarray, hw: Hardware) -> Pieces:
    """Pieces of a vector operation's tasks: chunk i moves the i-th part of every tensor that its buffer takes.

    sizes: bytes moved of each tensor, inputs first; spans: bytes over which they are spread (more when only some
    bursts are touched). Inputs stream through buffers a and b in turn.
    """
    burst = hw.dram.burst_bytes
    kind, buffer, chunk = (tasks[:, column] for column in (_kernels.KIND, _kernels.BUFFER, _kernels.TILE))
    parts = []
    for number, (size, span) in enumerate(zip(sizes, spans, strict=True)):
        if number < inputs:
            chosen = (kind == tp.LOAD) & (buffer == (tp.BUFFER_B if number % 2 else tp.BUFFER_A))
        else:
            chosen = kind == tp.STORE
        at = np.flatnonzero(chosen)
        edges = np.arange(chunks + 1) * size // chunks
        moved = np.maximum(np.diff(edges)[chunk[at]], 1)
        if size == span:
            start, counts, strides, run = edges[chunk[at]], np.ones_like(moved), np.zeros_like(moved), moved
        else:
            rows = ceil_div(moved, burst)
            start = np.arange(chunks)[chunk[at]] * span // chunks // burst * burst
            counts, run = rows, np.full_like(moved, burst)
            strides = np.maximum(span // chunks // np.maximum(rows, 1) // burst, 1) * burst
        parts.append((number, at, Block(8 * start, counts[:, None], 8 * strides[:, None], 8 * run)))
    return _join(parts, len(tasks), burst)


def _window(problem: Problem, axis: int, size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(first, count, step) of the image rows (axis 0) or columns (axis 1) that each tile of `size` outputs reads."""
    stride, extent = problem.stride[axis], problem.extent[axis]
    total, image = ((problem.p, problem.h), (problem.q, problem.w))[axis]
    first, count = tile_starts(total, size), tile_extents(total, size)
    low = np.clip(first * stride + problem.start[axis], 0, image - 1)
    high = np.clip((first + count - 1) * stride + problem.start[axis] + extent, low + 1, image)
    if axis == 0 and extent == 1 < stride:
        return low, ceil_div(high - low, stride), stride
    return low, high - low, 1


class _Places:
    """Where the tiles of a problem begin and how far they reach; one row per tile, numbered as the tasks' tiles are."""

    def __init__(self, problem: Problem, tiling: Tiling, loaded: Loaded) -> None:
        self.problem = problem
        self.g, self.g_start = tile_extents(problem.groups, tiling.g), tile_starts(problem.groups, tiling.g)
        self.m, self.m_start = tile_extents(problem.m, tiling.m), tile_starts(problem.m, tiling.m)
        self.c, self.c_start = tile_extents(problem.c, tiling.c), tile_starts(problem.c, tiling.c)
        self.loaded = loaded
        axes = [(problem.n, tiling.n), (problem.p, tiling.p), (problem.q, tiling.q)]
        order = np.meshgrid(*(np.arange(ceil_div(total, size)) for total, size in axes), indexing="ij")
        self.n_at, self.p_at, self.q_at = (index.ravel() for index in order)
        self.n, self.p, self.q = (tile_extents(*axis) for axis in axes)
        self.n_start, self.p_start, self.q_start = (tile_starts(*axis) for axis in axes)
        self.y_window, self.x_window = _window(problem, 0, tiling.p), _window(problem, 1, tiling.q)
        self.transposed = problem.role != TAPS and problem.b_kind == "gradient"

    def _grid(self, *sizes: int) -> list[np.ndarray]:
        return [index.ravel() for index in np.meshgrid(*map(np.arange, sizes), indexing="ij")]

    def a(self, bits: int) -> Block:
        """[groups, m tiles, t tiles] of dY in role TAPS, else [groups, m tiles, c tiles] of the weights."""
        p = self.problem
        if p.role == TAPS:
            g, m, t = self._grid(self.g.size, self.m.size, self.n_at.size)
            return self._output_image(g, m, t, self.loaded.rows[self.loaded.g_class[g], m], bits)
        g, m, c = self._grid(self.g.size, self.m.size, self.c.size)
        taps = max(p.taps, 1)
        outer, inner = (self.c, self.m) if self.transposed else (self.m, self.c)
        at, along = (c, m) if self.transposed else (m, c)
        starts, offsets = (self.c_start, self.m_start) if self.transposed else (self.m_start, self.c_start)
        total, width = (p.c, p.m) if self.transposed else (p.m, p.c)
        row = self.g_start[g] * total + starts[at]
        stride = width * taps * bits
        return Block(
            row * stride + offsets[along] * taps * bits, (self.g[g] * outer[at])[:, None],
            np.full((g.size, 1), stride), inner[along] * taps * bits,
        )  # fmt: skip

    def b(self, bits: int) -> Block:
        """The image tiles that are read: [groups, c tiles, t tiles] in role TAPS, else [groups, t tiles, c tiles]."""
        p = self.problem
        if p.role == TAPS:
            g, c, t = self._grid(self.g.size, self.c.size, self.n_at.size)
        else:
            g, t, c = self._grid(self.g.size, self.n_at.size, self.c.size)
        (top, height, step), (left, width, _) = self.y_window, self.x_window
        y, x = self.p_at[t], self.q_at[t]
        live = self.loaded.channels[self.loaded.g_class[g], c]
        return _image(
            (p.n, p.groups * p.c, p.h, p.w), self.n_start[self.n_at[t]], self.n[self.n_at[t]],
            self.g_start[g] * p.c + self.c_start[c], live, _spread(self.g[g] * self.c[c], live),
            top[y], height[y], step, left[x], width[x], bits,
        )  # fmt: skip

    def out(self, bits: int) -> Block:
        """The results: [groups, m tiles, c tiles] of dW in role TAPS, else [groups, m tiles, t tiles] of an image."""
        p = self.problem
        if p.role != TAPS:
            g, m, t = self._grid(self.g.size, self.m.size, self.n_at.size)
            return self._output_image(g, m, t, self.g[g] * self.m[m], bits)
        g, m, c = self._grid(self.g.size, self.m.size, self.c.size)
        stride = p.c * p.taps * bits
        start = (self.g_start[g] * p.m + self.m_start[m]) * stride + self.c_start[c] * p.taps * bits
        rows = (self.g[g] * self.m[m])[:, None]
        return Block(start, rows, np.full((g.size, 1), stride), self.c[c] * p.taps * bits)

    def packed(self, bits: int) -> Block:
        """As `out`, but what a tile holds lies together."""
        p = self.problem
        g, m, last = self._grid(self.g.size, self.m.size, self.c.size if p.role == TAPS else self.n_at.size)
        width = p.c * p.taps if p.role == TAPS else p.t
        sizes = self.n[self.n_at] * self.p[self.p_at] * self.q[self.q_at]
        before = self.c_start * p.taps if p.role == TAPS else np.cumsum(sizes) - sizes
        start = (self.g_start[g] * p.m + self.m_start[m]) * width + self.g[g] * self.m[m] * before[last]
        one = np.ones((g.size, 1), np.int64)
        return Block(start * bits, one, one, np.full(g.size, bits))

    def _output_image(self, g, m, t, live: np.ndarray, bits: int) -> Block:
        p = self.problem
        n, y, x = self.n_at[t], self.p_at[t], self.q_at[t]
        return _image(
            (p.n, p.groups * p.m, p.p, p.q), self.n_start[n], self.n[n], self.g_start[g] * p.m + self.m_start[m],
            live, _spread(self.g[g] * self.m[m], live), self.p_start[y], self.p[y], 1, self.q_start[x], self.q[x], bits,
        )  # fmt: skip


def _image(shape, n0, n, c0, c, c_step, y0, rows, y_step: int, x0, columns, bits: int) -> Block:
    """Boxes of an image [N, C, H, W]: n images, c channels `c_step` apart, rows `y_step` apart, whole column runs."""
    _, channels, height, width = shape
    plane = height * width
    start = ((n0 * channels + c0) * plane + y0 * width + x0) * bits
    counts = np.stack(np.broadcast_arrays(n, c, rows), axis=1)
    strides = np.stack(np.broadcast_arrays(channels * plane, c_step * plane, y_step * width), axis=1) * bits
    return Block(start, counts, np.broadcast_to(strides, counts.shape), columns * bits)


def _spread(there: np.ndarray, live: np.ndarray) -> np.ndarray:
    """Distance of `live` channels spread evenly over those that are there."""
    return np.maximum(there // np.maximum(live, 1), 1)


def _take(block: Block, tiles: np.ndarray) -> Block:
    return Block(*(column[tiles] for column in block))


def _join(parts: list[tuple[int, np.ndarray, Block]], tasks: int, burst: int) -> Pieces:
    """One table of segments, in order of the tasks."""
    owner, operand, tables = [], [], []
    for number, chosen, block in parts:
        of, table = _segments(_merged(block))
        owner.append(chosen[of])
        operand.append(np.full(of.size, number, np.int64))
        tables.append(table)
    owners = np.concatenate(owner)
    order = np.argsort(owners, kind="stable")
    segments, owners = np.concatenate(tables)[order], owners[order]
    count = np.bincount(owners, minlength=tasks).astype(np.int64)
    moved = np.bincount(owners, weights=_kernels.touched(segments, burst), minlength=tasks).astype(np.int64)
    return Pieces(np.cumsum(count) - count, count, segments, np.concatenate(operand)[order], moved * burst)


def _merged(block: Block) -> Block:
    """Loops whose steps are as long as what they repeat become longer runs; equal ones become one loop."""
    counts, strides, run = block.counts.copy(), block.strides.copy(), block.run.copy()
    levels = counts.shape[1]
    for level in reversed(range(levels)):
        inner = (counts[:, level + 1 :] == 1).all(axis=1)
        joined = inner & (strides[:, level] == run) & (counts[:, level] > 1)
        run[joined] *= counts[joined, level]
        counts[joined, level] = 1
    for level in range(levels - 1):
        nested = strides[:, level] == counts[:, level + 1] * strides[:, level + 1]
        counts[nested, level + 1] *= counts[nested, level]
        counts[nested, level] = 1
    return Block(block.start, counts, strides, run)


def _segments(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """(tile of each segment, [s, 4] address, bytes, rows, stride): the innermost loop becomes rows, others unroll."""
    tiles, levels = block.counts.shape
    looped = block.counts > 1
    inner = np.where(looped.any(axis=1), levels - 1 - np.argmax(looped[:, ::-1], axis=1), levels - 1)
    at = np.arange(tiles)
    rows, stride = block.counts[at, inner], block.strides[at, inner]
    outer = block.counts.copy()
    outer[at, inner] = 1
    repeats = outer.prod(axis=1)
    of = np.repeat(at, repeats)
    index = np.arange(of.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    start = block.start[of]
    for level in reversed(range(levels)):
        index, here = np.divmod(index, outer[of, level])
        start = start + here * block.strides[of, level]
    last = ceil_div(start + block.run[of], 8)
    return of, np.stack([start // 8, last - start // 8, rows[of], stride[of] // 8], axis=1)
