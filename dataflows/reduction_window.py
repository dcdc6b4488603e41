"""Reduction-window: reduction-spatial groups that share X words, keep a queue each, and fit any reduction length.

grad_weight only. As in reduction-spatial, PEs hold terms of the T-reduction and F words of dY each, an adder tree per
group of g PEs gives one selected element of dW per cycle. Four mechanisms remove what limits that array:

- *Window.* Neighbouring PEs hold neighbouring pixels, so the taps s of one kernel row need the same X words, shifted by
  a PE or two. A line (input channel, kernel row) is loaded once, g words and two more for the ends of the group, and a
  3:1 multiplexer in every PE takes the word of its own, its left or its right neighbour: a third of the X
  traffic for a 3x3 kernel of stride 1, two thirds for stride 2. 1x1 kernels have one tap per line and gain nothing.
- *Queues.* A group takes its next line as soon as one of its two X registers is free; the port serves the group that
  freed one first. Groups are not held together batch by batch: imbalance is that of a whole pass.
- *Shared X.* Groups can hold different output channels and take the same X words by broadcast: Gr row blocks of F
  channels x Gc sets of groups, g*Gr*Gc PEs. X traffic falls by Gr; a broadcast waits for the slowest of its Gr groups.
- *Chunks of falling size.* T is cut into chunks of g pixels with g a power of two that may fall: 784 pixels are three
  passes of 256 and one of 16 on sixteen groups, not four passes of 256.

The F output channels of a row block may belong to several groups of a convolution: a PE keeps a dY word of each, lines
of one group after another are loaded, and a line meets the rows of its own group only. In a depthwise layer a row block
is F channels; a pass over 256 pixels of 16 channels takes 48 lines of 3 taps, where dense-os streams 16 times 256
pixels through one row.

The sequencer takes g and Gr per chunk with the fewest cycles, from line counts that it has after scanning the mask.
Overheads, all simulated: dY preload (X loads start beside it), waiting for X, imbalance, adder-tree latency
per pass, ragged chunks, mask fetch, accumulator read-modify-writes, multiplexers, index decodes.
Partial sums live in the accumulator buffer by rank of the selected element: a group visits its elements in the
same order in every chunk, so the rank is a counter. Only selected sums take space there; tiles grow
by up to 1/d and X and dY are fetched from DRAM fewer times.
"""

import numpy as np

from npusim.dataflow import Dataflow, Network, TileCost
from npusim.errors import ConfigError
from npusim.folding import reduction_cost
from npusim.wgc_kernels import WINDOW_FIELDS, WindowArray, window_grid

SMALLEST_GROUP = 8
MAX_SHARING = 8
# A 3:1 multiplexer is two stages of 2:1.
MUX_STAGES = 2


def array_of(hardware, a_bits, b_bits):
    """The array as the kernels take it: the largest power of two of its PEs, whole bytes per operand at the ports.

    ConfigError when the PEs have no registers for dY.
    """
    if not hardware.array.pe_registers:
        raise ConfigError(
            f"hardware {hardware.name!r}: array.pe_registers = 0, but reduction-window keeps dY in PE registers; "
            "it must be 1 or more"
        )
    pes = 1 << (hardware.peak_macs_per_cycle.bit_length() - 1)
    ports = (hardware.buffers.a.bytes_per_cycle, hardware.buffers.b.bytes_per_cycle)
    operand = -(-max(a_bits, b_bits) // 8)
    return WindowArray(pes, min(SMALLEST_GROUP, pes), MAX_SHARING, hardware.array.pe_registers, operand, *ports)


def network(hardware):
    """A 3:1 multiplexer per PE; per smallest group an edge word at either end, of both X registers."""
    bits, pes = hardware.precision.activation_bits, hardware.peak_macs_per_cycle
    return Network(MUX_STAGES * pes * bits, pes // SMALLEST_GROUP * 4 * bits)


def halo(lines):
    """X words of a line beyond the chunk's own pixels."""
    return int(np.bincount(lines).max()) - 1


def cost(grid, hardware):
    mask, array = grid.mask, array_of(hardware, grid.a_bits, grid.b_bits)
    lines = np.arange(grid.taps) if grid.lines is None else grid.lines
    if mask is None:
        return priced(grid, array, lines)
    cells = window_grid(*mask.where, grid.t.ravel(), grid.taps, lines, halo(lines), array, mask.span)
    cell = mask.fields(cells, WINDOW_FIELDS)
    return reduction_cost(grid, cell, mux_words=MUX_STAGES * cell["macs"] if halo(lines) else 0)


def priced(grid, array, lines):
    """An estimate at the grid's density, for candidate tilings: walks or X loads, whichever is longer, and preloads."""
    per_channel = int(lines.max()) + 1
    terms = -(-grid.t // array.smallest) * array.smallest
    rows = grid.g * grid.m
    elements = np.ceil(rows * grid.columns * grid.density).astype(np.int64)
    passes = -(-terms // array.pes) * -(-rows // array.registers)
    x_words = grid.g * -(-grid.m // (2 * array.registers)) * grid.c * per_channel * grid.t
    loads = -(-x_words * array.operand_bytes // array.port_b_bytes)
    preload = -(-rows * grid.t * array.operand_bytes // array.port_a_bytes)
    cycles = np.maximum(elements * terms // array.pes, loads) + preload + passes * (2 + array.pes.bit_length())
    rest = grid.t % array.pes
    updates = elements * (grid.t // array.pes + (rest > 0) + (rest & (rest - 1) > 0))
    return TileCost(cycles, grid.macs, 0, rows * grid.t, x_words, updates, rows * grid.columns, decodes=updates)


DATAFLOW = Dataflow(
    name="reduction-window",
    summary="reduction-spatial with shared X windows, a queue per group and chunks of falling size (grad_weight)",
    cost=cost,
    phases=("grad_weight",),
    structures=("element", "kernel", "output_channel", "input_channel", "tap", "column_set", "n_m", "layer"),
    fallback="dense-os",
    compact_outputs=True,
    network=network,
)
