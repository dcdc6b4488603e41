"""The dataflow contract: how a tile of a problem runs on the PE array.

A dataflow is one file that defines `DATAFLOW = Dataflow(...)`. Its `cost` function gets a grid of tiles and
returns, per tile, what the array does; it decides nothing about buffers, DRAM or order. It must be pure and
elementwise over the grid: the same function prices candidate tilings (without a mask) and the final tiles.
Promised to it: every tile fits the buffers. Promised by it: `cycles` is 0 exactly where nothing is computed;
such a tile is dropped with its loads and its mask (one summary bit per tile is taken as given).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npusim.graph import TAPS

if TYPE_CHECKING:
    from npusim.masks import Mask
    from npusim.npu import Hardware

Ints = np.ndarray
MASK_STRUCTURES = ("element", "kernel", "output_channel", "input_channel", "tap", "column_set", "n_m", "layer")


@dataclass(frozen=True)
class MaskGrid:
    """Update mask of a tile grid: bits uint8 [K, C/G*taps], and where each tile begins and how far it reaches.

    Row ranges are those of all group tiles one after the other: a tile of several groups takes all their rows. Columns
    of a row are those of its own group, of `group_rows` rows (0: one group of all rows).
    """

    bits: Ints
    row_start: Ints
    row_size: Ints
    column_start: Ints
    column_size: Ints
    group_rows: int = 0
    group_tiles: int = 1

    @property
    def where(self) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """Bits and ranges as the tile kernels take them."""
        return self.bits, self.row_start, self.row_size, self.column_start, self.column_size

    @property
    def span(self) -> int:
        """Rows of one group."""
        return self.group_rows or self.bits.shape[0]

    def fields(self, cells: Ints, names: tuple[str, ...]) -> dict[str, Ints]:
        """A kernel's [row ranges, c tiles, t tiles, fields] as named arrays over [g, m, c, t tiles]."""
        table = cells.reshape(self.group_tiles, -1, *cells.shape[1:])
        return dict(zip(names, np.moveaxis(table, -1, 0), strict=True))


@dataclass(frozen=True)
class TileGrid:
    """Tile extents as int64 arrays that broadcast together to (group tiles, m tiles, c tiles, t tiles).

    g groups per tile, m rows, c channels of a group, t pixels; `taps` is common. In role TAPS (grad_weight) the output
    is [m, c*taps] and t is reduced, in role PIXELS the output is [m, t] and c*taps is reduced.
    `a_bits`, `b_bits`: operand widths. `mask` is None when the operation has none, or the tiling is only priced;
    `density` is the selected share to price it with. `lines` gives every tap of a channel the number of its line:
    for neighbouring pixels, taps of one line read X words that differ only by a shift of at most two pixels.
    `extents` are the images, output rows and output columns that make up t; `window` the taps and `stride` the step
    per direction.
    """

    role: str
    g: Ints
    m: Ints
    c: Ints
    t: Ints
    taps: int
    a_bits: int
    b_bits: int
    mask: MaskGrid | None = None
    density: float = 1.0
    lines: Ints | None = None
    extents: tuple[Ints | int, Ints | int, Ints | int] = (1, 1, 1)
    window: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)

    @property
    def columns(self) -> Ints:
        """Output columns of the tile's GEMM: pixels, or channels times taps."""
        return self.c * self.taps if self.role == TAPS else self.t

    @property
    def length(self) -> Ints:
        """Reduction length of the tile's GEMM."""
        return self.t if self.role == TAPS else self.c * self.taps

    @property
    def macs(self) -> Ints:
        return self.g * self.m * self.c * self.taps * self.t


@dataclass(frozen=True)
class TileCost:
    """What one tile does, arrays over the grid (t axis included; sums over it are taken by the caller).

    cycles        array-busy cycles, before buffer ports are considered
    macs_done     MACs whose result is wanted; macs_gated: executed slots whose result is not (clock-gated)
    a_words, b_words, mask_bits   read from buffers A, B and mask
    updates       accumulator words written (each also reads, but for the first value of an output)
    outputs       distinct output elements of the tile that are written back, int64 (m tiles, c or t tiles, ...)
    tree_adds, decodes   adder-tree additions and index decodes
    mux_words     operand words times the 2:1 stages of the selection networks that they pass
    register_bytes   written into registers beyond the two operands of every MAC
    live_rows, live_channels   how many rows of A and channels of B must be loaded, [g tiles, m tiles] and [g tiles,
                  c tiles], over all groups of a tile; None when all of them
    """

    cycles: Ints | int
    macs_done: Ints
    macs_gated: Ints | int
    a_words: Ints
    b_words: Ints
    updates: Ints
    outputs: Ints
    mask_bits: Ints | int = 0
    tree_adds: Ints | int = 0
    decodes: Ints | int = 0
    mux_words: Ints | int = 0
    register_bytes: Ints | int = 0
    live_rows: Ints | None = None
    live_channels: Ints | None = None


@dataclass(frozen=True)
class Network:
    """What a selective dataflow adds to the array: 2:1 multiplexers of one bit, and register bits.

    Wires are not counted, nor the state machines that fill the registers.
    """

    mux_bits: int = 0
    register_bits: int = 0


@dataclass(frozen=True)
class Dataflow:
    """A named mapping of tiles to the array.

    `phases` it can run; `structures`: mask structures that save it cycles (empty: it ignores masks and
    computes everything); `fallback`: the dataflow for the other phases, for grouped convolutions unless
    `grouped` (its cost then takes tiles of several groups), and for operations without a mask when it needs one.
    `compact_outputs`: partial sums of selected elements only are kept in the accumulator buffer, addressed by their
    rank in the tile's mask. `choices`: names of dataflows of which every operation takes the one with the fewest
    simulated cycles (its own `cost` is never used). Tilings are searched with `cost` for the machine with very large
    buffers, so that machines share a search; its own machine's prices what is taken. `network`: what it adds to an
    array, for `energy.area`.
    """

    name: str
    summary: str
    cost: Callable[[TileGrid, Hardware], TileCost]
    phases: tuple[str, ...] = ("forward", "grad_input", "grad_weight", "aux")
    structures: tuple[str, ...] = ()
    fallback: str = ""
    grouped: bool = True
    compact_outputs: bool = False
    choices: tuple[str, ...] = ()
    network: Callable[[Hardware], Network] | None = None

    @property
    def selective(self) -> bool:
        """Whether update masks change what it does."""
        return bool(self.structures)

    def accepts(self, phase: str, groups: int, mask: Mask | None) -> bool:
        if phase not in self.phases or (groups > 1 and not self.grouped):
            return False
        return mask is not None if self.selective else True
