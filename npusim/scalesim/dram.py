"""SCALE-Sim's DRAM traffic with unlimited bandwidth: its rules for double-buffered operands, replayed word by word.

Each read buffer is cut in 100 sets. Words that are not in it are put into the newest set; whenever 50 sets are full
they are declared prefetched during the time in which the 50 before them were used, and those are forgotten. The first
50 come in before the array starts, 10 words per cycle. Results drain in halves of their buffer, one row of the array
per cycle.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npusim.scalesim.config import Config
from npusim.scalesim.topology import Layer

# A replay takes four bytes per word of an operand, and at most some minutes.
MAX_WORDS = 2**28
MAX_MACS = 2**42


class Port(NamedTuple):
    """DRAM words of one operand, and the first and last cycle in which they move (cycle 0: the array starts)."""

    words: int
    start: int
    stop: int

    @property
    def words_per_cycle(self) -> float:
        return self.words / (self.stop - self.start + 1)


class Traffic(NamedTuple):
    ifmap: Port
    filter: Port
    ofmap: Port

    @property
    def cycles(self) -> int:
        """From the first prefetched word to the last result in DRAM."""
        return self.ofmap.stop - min(self.ifmap.start, self.filter.start)


def traffic(layer: Layer, config: Config) -> Traffic | None:
    """DRAM traffic with unlimited bandwidth (CALC).

    None with a limited one, where SCALE-Sim divides by zero or stalls for a full output buffer, and for layers too
    large to replay.
    """
    if config.limited:
        return None
    words = max(layer.ifmap_h * layer.ifmap_w * layer.channels, layer.m * layer.n, layer.k * layer.n, layer.m)
    if words > MAX_WORDS or layer.macs > MAX_MACS:
        return None
    ifmap = _Operand(layer, config, "ifmap").port()
    filters = _Operand(layer, config, "filter").port()
    ofmap = _ofmap(layer, config)
    return Traffic(ifmap, filters, ofmap) if ifmap and filters and ofmap else None


def _folds(layer: Layer, config: Config) -> tuple[int, int, int]:
    """On the rows, on the columns, streamed: GEMM sizes."""
    m, k, n = layer.m, layer.k, layer.n
    return {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[config.dataflow]


class _Operand:
    """One operand as the array asks for it: which of its axes lies on the lanes and which follows in time."""

    def __init__(self, layer: Layer, config: Config, which: str) -> None:
        self.layer, self.config, self.which = layer, config, which
        # The operand that is held is read in one piece per fold; its lanes are columns, its rows come last row first.
        self.held = {"ifmap": "is", "filter": "ws"}[which] == config.dataflow
        self.on_rows = not self.held and (which == "ifmap" or config.dataflow == "is")

    def _axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Word address, image row and image column of every index on the lanes and in time, int64 [3, size]."""
        layer = self.layer
        k = np.arange(layer.k)
        if self.which == "filter":
            n = np.arange(layer.n) * layer.k
            outer, window = (np.stack([axis, 0 * axis, 0 * axis]) for axis in (n, k))
        else:
            row, column = np.divmod(np.arange(layer.m), layer.ofmap_w)
            outer = self._pixels(row * layer.stride_h, column * layer.stride_w, 0)
            row, rest = np.divmod(k, layer.filter_w * layer.channels)
            window = self._pixels(row, *np.divmod(rest, layer.channels))
        lanes_are_outer = self.held or self.config.dataflow == "os"
        return (outer, window) if lanes_are_outer else (window, outer)

    def _pixels(self, row, column, channel) -> np.ndarray:
        return np.stack([(row * self.layer.ifmap_w + column) * self.layer.channels + channel, row, column])

    def port(self) -> Port | None:
        layer, config = self.layer, self.config
        rows, cols = config.array_rows, config.array_cols
        on_rows, on_columns, length = _folds(layer, config)
        lanes, stream = self._axes()
        words = layer.ifmap_h * layer.ifmap_w * layer.channels if self.which == "ifmap" else layer.k * layer.n
        limits = (layer.ifmap_h, layer.ifmap_w) if self.which == "ifmap" else (1, 1)
        kilowords = config.ifmap_kb if self.which == "ifmap" else config.filter_kb
        from npusim.scalesim import _kernels  # numba: not for reports without DRAM columns

        found = _kernels.reads(
            np.ascontiguousarray(lanes, np.int64), np.ascontiguousarray(stream, np.int64), np.array(limits, np.int64),
            words, -(-on_rows // rows), -(-on_columns // cols), rows if self.on_rows else cols, self.on_rows,
            rows if self.held else 0, 0 if config.dataflow == "os" or self.held else rows,
            length + rows + cols - 2 + (0 if config.dataflow == "os" else rows), kilowords * 1024 // 100,
        )  # fmt: skip
        return Port(*(int(x) for x in found[:3])) if found[3] == 0 else None


def _ofmap(layer: Layer, config: Config) -> Port | None:
    rows, cols = config.array_rows, config.array_cols
    on_rows, on_columns, length = _folds(layer, config)
    from npusim.scalesim import _kernels

    found = _kernels.writes(config.dataflow == "os", on_rows, on_columns, length, rows, cols, config.ofmap_kb * 1024)
    return Port(*(int(x) for x in found[:3])) if found[3] == 0 else None
