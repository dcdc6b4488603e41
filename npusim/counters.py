"""Counters of work per operation: engines and lowering count, energy multiplies.

An array of counts is int64 `[ops, len(COUNTERS)]`, columns in the order of `COUNTERS`.

| counter                | unit    | meaning                                                                    |
|------------------------|---------|----------------------------------------------------------------------------|
| macs_done              | MACs    | multiply-accumulates whose result is used                                  |
| macs_gated             | MACs    | slots of a running fold whose result no mask wants: clock-gated, no work   |
| macs_skipped           | MACs    | MACs of the dense operation that never occupied the array (no energy)      |
| register_bytes         | bytes   | operand and partial-sum bytes written into PE registers                    |
| adder_tree_adds        | adds    | additions in the adder tree of the reduction-spatial mode                  |
| a_read_bytes           | bytes   | read from buffer A towards the array                                       |
| a_write_bytes          | bytes   | written into buffer A by DMA or vector unit                                |
| b_read_bytes           | bytes   | read from buffer B                                                         |
| b_write_bytes          | bytes   | written into buffer B                                                      |
| accumulator_read_bytes | bytes   | read from the accumulator buffer (partial sums, results leaving)           |
| accumulator_write_bytes| bytes   | written into the accumulator buffer                                        |
| mask_read_bytes        | bytes   | read from the mask buffer                                                  |
| mask_write_bytes       | bytes   | written into the mask buffer                                               |
| dram_read_bytes        | bytes   | bytes of DRAM bursts read (whole bursts)                                   |
| dram_write_bytes       | bytes   | bytes of DRAM bursts written                                               |
| vector_lane_ops        | ops     | elementwise operations of the vector unit, one per lane and cycle          |
| index_decodes          | ops     | positions of selected elements decoded from mask words                     |
| mux_words              | words   | operand words through one 2:1 stage of a selection network                 |
| mac_passes             | MACs    | further passes of MACs whose operands are wider than the multiplier        |
| macs_crossbar          | MACs    | multiply-accumulates in ReRAM cells (their energy is in the next five)     |
| cell_reads             | cells   | cells sensed, once per read of their crossbar                              |
| dac_drives             | rows    | rows driven, once per read                                                 |
| adc_samples            | samples | column currents converted                                                  |
| shift_adds             | adds    | shifts and additions behind the converters, column masks among them        |
| cell_writes            | cells   | cells programmed (every pulse of one programming together)                 |
"""

from __future__ import annotations

COUNTERS = (
    "macs_done", "macs_gated", "macs_skipped", "register_bytes", "adder_tree_adds",
    "a_read_bytes", "a_write_bytes", "b_read_bytes", "b_write_bytes",
    "accumulator_read_bytes", "accumulator_write_bytes", "mask_read_bytes", "mask_write_bytes",
    "dram_read_bytes", "dram_write_bytes", "vector_lane_ops", "index_decodes", "mux_words", "mac_passes",
    "macs_crossbar", "cell_reads", "dac_drives", "adc_samples", "shift_adds", "cell_writes",
)  # fmt: skip


def index(name: str) -> int:
    """Column of the counter `name`."""
    return COUNTERS.index(name)
