"""Gemmini at the level of its commands: machine, layers cut into loop instructions, and a run.

The numbers of `Gemmini` are those of the default 16x16 int8 configuration of ucb-bar/gemmini (Configs.scala) or
follow from its register stages; where a stage count was not evident (`load_done`, `write_reply`, `end`) it was set so
that GEMMs of a single tile take as long as in the RTL, and then left for all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npusim.validate import gemmini_kernels
from npusim.validate import gemmini_loops_kernels as loops_kernels
from npusim.validate import gemmini_station_kernels as station
from npusim.validate.gemmini_memory_kernels import LINE_BYTES, PORTS, Memory, warm

BLOCK = 16
SCRATCHPAD_BLOCKS = loops_kernels.SPAD_ROWS // BLOCK
ACCUMULATOR_BLOCKS = loops_kernels.ACC_ROWS // BLOCK
A_BASE, B_BASE, C_BASE, D_BASE = (n << 28 for n in range(4))


@dataclass(frozen=True)
class Gemmini:
    """Sizes (entries, rows, bytes) and register stages (cycles) of the accelerator."""

    entries: tuple[int, int, int] = (8, 16, 4)  # reservation_station_entries_ld, _ex, _st
    queue: tuple[int, int, int] = (8, 8, 2)  # ld_queue_length, ex_queue_length, st_queue_length
    requests: int = 16  # max_in_flight_mem_reqs, of the reader and of the writer
    bus_bytes: int = 16  # dma_buswidth
    max_bytes: int = 64  # dma_maxbytes
    commands_in_flight: int = 2  # DMACommandTracker: max_in_flight_mem_reqs / block_rows + 1
    scratchpad_bank: int = 4096  # rows; 256 KiB in 4 single-ported banks
    accumulator_bank: int = 512  # rows; 64 KiB in 2 banks
    first_config: int = 8  # queues in front of the loop unrollers
    next_config: int = 2  # completed flag, head of the loops
    config_commands: int = 6  # LOOP_WS and its configuration, one per cycle
    request: int = 4  # translation (2) and buffers (2) to the memory
    reply: int = 2  # buffers from the memory
    spad_write: int = 3  # scale queue, scale register, pixel repeater
    load_done: int = 8  # last beat to command completed
    mesh: int = 38  # last row fired to last result written
    store_pipe: int = 6  # accumulator read to first beat
    store_rows: int = 7  # rows between accumulator read and writer: issue queue and scale unit
    write_reply: int = 3
    end: int = 8  # last reply to idle


@dataclass(frozen=True)
class Cache:
    """A shared L2 with DRAM behind it; cycles as in `gemmini_memory_kernels.Memory`."""

    hit: int
    busy: int
    miss: int
    write_back: int
    misses: int
    serve: int
    line_cycles: int
    sets: int = 1024
    ways: int = 8


@dataclass(frozen=True)
class Result:
    """`cycles` from the first command to idle, rows fired by the execute controller, bytes that the memory was asked
    for and got, and the cycle at which each loop instruction had emitted its last command."""

    cycles: int
    rows_fired: int
    read_bytes: int
    written_bytes: int
    ends: np.ndarray


@dataclass
class Layer:
    """Loop instructions of a layer: rows for `expand`, and the most commands of one loop per queue.

    turns: columns of the halves that a loop uses, of scratchpad and accumulator, and of its output address
    shape: columns that tell tiles of different shape apart
    period: loops of one output tile
    arrays: address and bytes of the operands in the order in which they are filled
    """

    expand: object
    loops: np.ndarray
    capacity: tuple[int, int, int]
    turns: tuple[int, int, int]
    shape: tuple[int, ...]
    period: int
    arrays: tuple[tuple[int, int], ...]

    def part(self, places: np.ndarray) -> np.ndarray:
        """These loops by themselves: they take turns with the halves of scratchpad and accumulator."""
        half, bank, out = self.turns
        table = self.loops[places].copy()
        table[:, half] = np.arange(len(table)) % 2
        stored = table[:, out] >= 0
        table[:, bank] = (np.cumsum(stored) - stored) % 2
        return table


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def matmul_layer(m: int, k: int, n: int, tile: tuple[int, int, int], c_bytes: int) -> Layer:
    """C[m, n] = A[m, k] B[k, n] in tiles of (i, j, k) blocks, i outermost and k innermost; rows are not padded."""
    ti, tj, tk = tile
    rows: list[list[int]] = []
    bank = 0
    m_blocks, n_blocks, k_blocks = (ceil_div(x, BLOCK) for x in (m, n, k))
    for i in range(0, m_blocks, ti):
        for j in range(0, n_blocks, tj):
            for kk in range(0, k_blocks, tk):
                last = kk + tk >= k_blocks
                sizes = [min(ti, m_blocks - i), min(tj, n_blocks - j), min(tk, k_blocks - kk)]
                left = [m - i * BLOCK, n - j * BLOCK, k - kk * BLOCK]
                a, b = A_BASE + (i * k + kk) * BLOCK, B_BASE + (kk * n + j) * BLOCK
                c = C_BASE + (i * n + j) * BLOCK * c_bytes if last else -1
                rows.append([*sizes, *left, a, b, c, k, n, n * c_bytes, kk > 0, len(rows) % 2, bank, c_bytes])
                bank ^= last
    table = np.array(rows, np.int64)
    return Layer(
        loops_kernels.matmul,
        table,
        (ti * ceil_div(tk, 4) + tk * ceil_div(tj, 4), ti * tj * tk, ti * tj),
        (loops_kernels.HALF, loops_kernels.BANK, loops_kernels.C_ADDRESS),
        (loops_kernels.TI,),
        ceil_div(k_blocks, tk),
        ((A_BASE, m * k), (B_BASE, k * n)),
    )


@dataclass(frozen=True)
class Conv:
    """A convolution as Gemmini runs it: channels last, `tile` = (rows, columns, output channels, input channels)."""

    c: int
    k: int
    p: int
    q: int
    r: int
    s: int
    stride: int
    pad: int
    tile: tuple[int, int, int, int]


def conv_layer(conv: Conv) -> Layer:
    """Loops in the order output row, output column, output channel, input channel; all taps in every loop."""
    tp, tq, tk, tc = conv.tile
    stride = conv.stride
    pixels = min(conv.s, max(1, BLOCK // conv.c)) if conv.c < BLOCK else 1
    height = (conv.p - 1) * conv.stride + conv.r - 2 * conv.pad
    width = (conv.q - 1) * conv.stride + conv.s - 2 * conv.pad
    in_pixel, in_row = conv.c, conv.c * width
    rows: list[list[int]] = []
    bank = 0
    for p in range(0, conv.p, tp):
        for q in range(0, conv.q, tq):
            for k in range(0, conv.k, tk):
                for c in range(0, conv.c, tc):
                    o = [min(tp, conv.p - p), min(tq, conv.q - q), min(tk, conv.k - k)]
                    kc = min(tc, conv.c - c)
                    i = [o[0] * stride + conv.r - 1, o[1] * stride + conv.s - 1]
                    top, left = p * conv.stride - conv.pad, q * conv.stride - conv.pad
                    up, lft = max(0, -top), max(0, -left)
                    load = [min(i[0], height - top) - up, min(i[1], width - left) - lft]
                    last = c + tc >= conv.c
                    out = C_BASE + (p * conv.q + q) * conv.k + k if last else -1
                    source = A_BASE + (top + up) * in_row + (left + lft) * in_pixel + c
                    rows.append(
                        [
                            *o, conv.r, conv.s, kc, stride, *load, up, lft, *i,
                            source, in_pixel, in_row, B_BASE + c * conv.k + k, conv.k, conv.c * conv.k,
                            out, conv.k, conv.q * conv.k, c == 0, pixels, len(rows) % 2, bank, D_BASE + 4 * k,
                        ]
                    )  # fmt: skip
                    bank ^= last
    table = np.array(rows, np.int64)
    operands = ((A_BASE, in_row * height), (B_BASE, conv.r * conv.s * conv.c * conv.k), (D_BASE, 4 * conv.k))
    turns = (loops_kernels.C_HALF, loops_kernels.C_BANK, loops_kernels.OUT_ADDRESS)
    shape = (loops_kernels.O_ROWS, loops_kernels.O_COLS)
    capacity = _conv_capacity(conv, table, pixels)
    return Layer(loops_kernels.conv, table, capacity, turns, shape, ceil_div(conv.c, tc), operands)


def _conv_capacity(conv: Conv, rows: np.ndarray, pixels: int) -> tuple[int, int, int]:
    """Most commands of one loop."""

    def blocks(values: np.ndarray, size: int = BLOCK) -> np.ndarray:
        return -(-values // size)

    col = loops_kernels
    o_rows, o_cols, o_chs, chs = (rows[:, n] for n in (col.O_ROWS, col.O_COLS, col.O_CHS, col.K_CHS))
    lines = o_rows * blocks(o_cols) * blocks(o_chs)
    ld = lines + conv.r * conv.s * blocks(chs) * blocks(o_chs, 64)
    ld = ld + rows[:, col.LOAD_ROWS] * blocks(rows[:, col.LOAD_COLS]) * blocks(chs, 64)
    ex = lines * conv.r * ceil_div(conv.s, pixels) * blocks(chs)
    return int(ld.max()), int(ex.max()), int(lines.max())


def memory(latency: int) -> Memory:
    """Ideal in-order memory."""
    return _memory(Cache(latency, 0, 0, 0, 0, 0, 0, sets=0, ways=0))


def cached_memory(cache: Cache, layer: Layer) -> Memory:
    """A cache in which the operands of the layer have just been written, one array after the other."""
    storage = _memory(cache)
    lines = 2 * cache.sets * cache.ways
    for address, size in layer.arrays:
        first, last = address // LINE_BYTES, ceil_div(address + size, LINE_BYTES)
        warm(storage, max(first, last - lines), last)
    return storage


def _memory(cache: Cache) -> Memory:
    table = (cache.sets, cache.ways)
    return Memory(
        cache.hit, cache.busy, cache.serve, cache.miss, cache.write_back, cache.line_cycles, np.zeros(PORTS, np.int64),
        np.full(table, -1, np.int64), np.zeros(table, np.bool_), np.zeros(cache.sets, np.int64),
        np.zeros(cache.misses, np.int64),
    )  # fmt: skip


def run(layer: Layer, gemmini: Gemmini, storage: Memory, table: np.ndarray | None = None) -> Result:
    """Simulate a layer, or only the loop instructions of `table`."""
    g = gemmini
    timing = station.Timing(
        np.array(g.entries), np.array(g.queue), BLOCK, g.bus_bytes, g.max_bytes, g.commands_in_flight,
        g.scratchpad_bank, g.accumulator_bank, g.first_config, g.next_config, g.config_commands, g.request, g.reply,
        g.spad_write, g.load_done, g.mesh, g.store_pipe, g.store_rows, g.write_reply, g.end,
    )  # fmt: skip
    table = layer.loops if table is None else table

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    ld, ex, st = layer.capacity
    parts = station.PARTS
    machine = station.Machine(
        timing, storage, zeros(sum(g.entries), station.SLOT_COLUMNS), zeros(3, station.QUEUE_COLUMNS),
        zeros(3, station.ORDER), zeros(g.requests), zeros(g.requests), zeros(64, 3), zeros(8, 3),
        zeros(station.CALENDAR), zeros(parts * ld, 8), zeros(parts * ex, 9), zeros(parts * st, 7), zeros(parts, 3),
        zeros(len(table)), zeros(station.SCALARS),
    )  # fmt: skip
    cycles = gemmini_kernels.run(machine, layer.expand, table)
    if cycles < 0:
        raise RuntimeError(f"the Gemmini model came to a stand at cycle {machine.scalar[station.NOW]}")
    counts = (station.FIRED, station.READ_BYTES, station.WRITTEN_BYTES)
    fired, read_bytes, written_bytes = (int(machine.scalar[n]) for n in counts)
    return Result(int(cycles), fired, read_bytes, written_bytes, machine.ends)
