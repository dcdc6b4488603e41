"""Reduction-spatial: the PEs hold terms of the T-reduction, an adder tree sums them; only set elements are computed.

grad_weight only. The R*C PEs form groups of g PEs, each group with an adder tree. Output channels with a
selected element are taken F at a time (F words of dY stay in every PE's registers), pixels g at a time. The
live columns (input channel, tap) of that block go to the groups, one each; a group walks the F-bit mask word of
its column with a priority encoder, one selected element per cycle. Overheads, all simulated: dY preload, X words
through the port of buffer B (hidden only as far as the walk lasts), groups waiting for the one with the most
selected elements, adder-tree latency per pass, chunks of g pixels that are not full, mask fetch, and an
accumulator read-modify-write for every element and chunk.

The F output channels of a pass may belong to several groups of a convolution: the live columns of one group after
another go to the tree groups, and each walks the rows of its own. A depthwise layer has one row per column, so a walk
takes one cycle and the loads of X bound it.

The group size g is a power of two, chosen per tile for the fewest cycles: small g fits short reductions (few
pixels), large g shares fewer X loads and balances better.
"""

from functools import reduce

import numpy as np

from npusim.dataflow import Dataflow, TileCost
from npusim.errors import ConfigError
from npusim.folding import joined_groups, reduction_cost
from npusim.reduction_kernels import REDUCTION_FIELDS, ReductionArray, reduction_grids

SMALLEST_GROUP = 8


def arrays(hardware, a_bits, b_bits):
    """The ways to group the PEs, from one tree over (almost) all of them down to groups of SMALLEST_GROUP.

    An operand takes whole bytes at the ports. ConfigError when the PEs have no registers for dY.
    """
    if not hardware.array.pe_registers:
        raise ConfigError(
            f"hardware {hardware.name!r}: array.pe_registers = 0, but reduction-spatial keeps dY in PE registers; "
            "it must be 1 or more"
        )
    operand_bytes = -(-max(a_bits, b_bits) // 8)
    pes = hardware.peak_macs_per_cycle
    ports = (hardware.buffers.a.bytes_per_cycle, hardware.buffers.b.bytes_per_cycle)
    group = 1 << (pes.bit_length() - 1)
    smallest = min(SMALLEST_GROUP, group)
    while group >= smallest:
        yield ReductionArray(group, pes // group, hardware.array.pe_registers, operand_bytes, *ports)
        group //= 2


def cost(grid, hardware):
    mask = grid.mask
    if mask is None:
        return unmasked_cost(grid, hardware)
    options = tuple(arrays(hardware, grid.a_bits, grid.b_bits))
    best = reduce(
        lambda best, other: np.where(other[..., :1] < best[..., :1], other, best),
        reduction_grids(*mask.where, grid.t.ravel(), options, mask.span),
    )
    return reduction_cost(grid, mask.fields(best, REDUCTION_FIELDS))


def unmasked_cost(grid, hardware):
    """Every element selected, in closed form: prices candidate tilings."""
    cycles, a_words, b_words, updates = reduce(
        lambda best, other: np.where(other[0] < best[0], other, best),
        (np.stack(np.broadcast_arrays(*_dense(grid, a))) for a in arrays(hardware, grid.a_bits, grid.b_bits)),
    )
    return TileCost(cycles, grid.macs, 0, a_words, b_words, updates, grid.g * grid.m * grid.columns, decodes=updates)


def _dense(grid, array):
    """(cycles, dY words, X words, accumulator updates) of a full mask with this grouping."""
    joined = joined_groups(grid, array.registers)
    chunks, blocks = -(-grid.t // array.group), -(-joined.m // array.registers)
    rows, terms = np.minimum(joined.m, array.registers), np.minimum(grid.t, array.group)
    preload = -(-rows * terms * array.operand_bytes // array.port_a_bytes)
    load = -(-array.groups * terms * array.operand_bytes // array.port_b_bytes)
    met = np.minimum(grid.m, array.registers) * grid.density
    walk = np.ceil(-(-joined.columns // array.groups) * np.maximum(met, load)).astype(np.int64)
    cycles = chunks * blocks * (preload + load + walk + array.group.bit_length() + 1)
    words = chunks * terms
    return cycles, words * joined.m, words * blocks * joined.columns, joined.m * grid.columns * chunks


DATAFLOW = Dataflow(
    name="reduction-spatial",
    summary="PEs hold the pixel reduction, an adder tree sums; only selected elements are computed (grad_weight)",
    cost=cost,
    phases=("grad_weight",),
    structures=("element", "kernel", "output_channel", "input_channel", "tap", "column_set", "n_m", "layer"),
    fallback="dense-os",
    compact_outputs=True,
)
