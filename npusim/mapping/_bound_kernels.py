"""Loads and stores of tilings, and the cycles that they cannot undercut: arrays and scalars only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npusim.jit import njit


class Traffic(NamedTuple):
    """A problem on a machine: bits of all of A, of B per word of `Candidates.regions`, of all outputs; slots of the
    buffers; DMA channels; bytes of a burst, cycles per byte, latency.

    taps_role: output columns are channels and taps; computed: there is something to compute, else outputs are only
    written.
    """

    taps_role: bool
    computed: bool
    a_bits: int
    b_bits: int
    out_bits: int
    a_slots: int
    b_slots: int
    out_slots: int
    read_channels: int
    write_channels: int
    burst_bytes: int
    per_byte: float
    latency_cycles: int


@njit
def transfers(traffic, tiles_g, tiles_m, tiles_c, tiles_t):
    """Loads of A, loads of B and stores, for both loop orders, int64 [2, 3, candidates].

    Tiles of an operand come round in a cycle; those that fit the slots stay, else every step loads (least recently
    needed is replaced).
    """
    found = np.zeros((2, 3, tiles_g.size), np.int64)
    for i in range(tiles_g.size):
        g, nx = tiles_g[i], tiles_m[i]
        ny, nz = (tiles_c[i], tiles_t[i]) if traffic.taps_role else (tiles_t[i], tiles_c[i])
        steps = g * nx * ny * nz
        for swap in range(2):
            a_kept, b_kept = (nx * nz, nz) if swap else (nz, ny * nz)
            if traffic.computed:
                found[swap, 0, i] = g * nx * nz if a_kept <= traffic.a_slots else steps
                found[swap, 1, i] = g * ny * nz if b_kept <= traffic.b_slots else steps
            found[swap, 2, i] = g * nx * ny
    return found


@njit
def _whole(bits, tiles, burst):
    """Bytes of a mean transfer in whole bursts, when `bits` are moved in `tiles`."""
    return -(-bits // (8 * tiles * burst)) * burst


@njit
def _longest(t, compute, ends, a_loads, b_loads, stores, a_all, b_all, out_all):
    """The tightest of the bounds of `search.limits` for transfers of these mean bytes."""
    a_time = a_loads * (a_all * t.per_byte + t.latency_cycles)
    b_time = b_loads * (b_all * t.per_byte + t.latency_cycles)
    written = stores * (out_all * t.per_byte + t.latency_cycles)
    moved = a_loads * a_all + b_loads * b_all + stores * out_all
    found = compute + (2 * t.latency_cycles if t.computed else t.latency_cycles) + ends
    found = max(found, moved * t.per_byte + t.latency_cycles)
    found = max(found, (a_time + b_time) / t.read_channels)
    found = max(found, written / t.write_channels)
    found = max(found, (a_time + compute) / t.a_slots)
    found = max(found, (b_time + compute) / t.b_slots)
    return max(found, (written + compute) / t.out_slots), moved


@njit
def limits(t, tiles_g, tiles_m, tiles_c, tiles_t, regions, compute):
    """Estimated cycles, a lower bound of the cycles, and DRAM bytes, int64 [3, 2, candidates]; see `search.limits`."""
    loads = transfers(t, tiles_g, tiles_m, tiles_c, tiles_t)
    found = np.empty((3, 2, tiles_g.size), np.int64)
    for i in range(tiles_g.size):
        g, nx = tiles_g[i], tiles_m[i]
        ny, nz = (tiles_c[i], tiles_t[i]) if t.taps_role else (tiles_t[i], tiles_c[i])
        a_tiles, b_tiles, stores = g * nx * nz, g * ny * nz, g * nx * ny
        b_bits = t.b_bits * regions[i]
        a_all, b_all = _whole(t.a_bits, a_tiles, t.burst_bytes), _whole(b_bits, b_tiles, t.burst_bytes)
        out_all = _whole(t.out_bits, stores, t.burst_bytes)
        ends = (a_all + b_all + out_all) * t.per_byte
        a_mean, b_mean, out_mean = t.a_bits / (8 * a_tiles), b_bits / (8 * b_tiles), t.out_bits / (8 * stores)
        for swap in range(2):
            a_loads, b_loads = loads[swap, 0, i], loads[swap, 1, i]
            cycles, moved = _longest(t, compute[i], ends, a_loads, b_loads, stores, a_all, b_all, out_all)
            least, _ = _longest(t, compute[i], 0.0, a_loads, b_loads, stores, a_mean, b_mean, out_mean)
            found[0, swap, i], found[1, swap, i], found[2, swap, i] = np.int64(cycles), np.int64(least), moved
    return found
