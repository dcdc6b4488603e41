"""Command-level memory behind the DMA channels: which device, how its clock meets the core's, what it counted.

Every DMA channel is one in-order requester with at most `outstanding` bursts in flight. In core cycle t a transfer is
handed over at DRAM clock ceil(t * clocks); what the DRAM completes at clock r is seen in core cycle ceil(r / clocks).
Reads end with their last burst of data, writes as the controller's preset says (both presets post them: when the
controller has accepted them, or issued them). Writes that are still queued when a step ends are drained and counted,
not timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from npusim.engine import _dram_kernels as kernels
from npusim.engine import _dram_state as st
from npusim.engine.dram_config import DramConfig
from npusim.engine.dram_layout import allocate
from npusim.engine.dram_standards import load_standard
from npusim.errors import ConfigError

if TYPE_CHECKING:
    from npusim.npu import Hardware

# What a snapshot of the memory holds: DRAM commands, column commands that hit an open row, clocks summed over the
# latencies of reads, reads answered, reads served from queued writes, requests merged, clocks summed over all ranks in
# which a rank had no open row, and in which it had one; of RD and WR those issued after the end of the step.
COUNTED = (
    "ACT", "PRE", "RD", "WR", "REF", "REFB", "hits", "read_clocks", "reads", "forwarded", "merged", "closed_clocks",
    "open_clocks", "after_end",
)  # fmt: skip
STATS = np.array([st.C_ACT, st.C_PRE, st.C_RD, st.C_WR, st.C_REF, st.C_REFB, st.C_HIT, st.C_LATENCY, st.C_READS,
                  st.C_FORWARDED, st.C_MERGED])  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """A device and its surroundings; `clocks` DRAM clocks per core cycle."""

    config: DramConfig
    clocks: Fraction
    outstanding: int

    def entering(self, cycle: int) -> int:
        """DRAM clock at which a transfer of core cycle `cycle` is handed over."""
        return -(-cycle * self.clocks.numerator // self.clocks.denominator)

    def visible(self, cycle: int) -> int:
        """Last DRAM clock whose completions are seen in core cycle `cycle`."""
        return cycle * self.clocks.numerator // self.clocks.denominator

    def cycle(self, clock: int) -> int:
        """Core cycle in which a completion of DRAM clock `clock` is seen."""
        return -(-clock * self.clocks.denominator // self.clocks.numerator)

    @property
    def buses(self) -> int:
        """Data buses that work side by side: channels, or their pseudo-channels."""
        return self.config.channels * (self.config.ranks if self.config.policy.dual_bus else 1)

    @property
    def burst_clocks(self) -> int:
        """Clocks for which a burst holds a data bus: the closest distance of two reads of a rank."""
        reads = [c for c in self.config.constraints if (c.scope, c.before, c.after) == ("rank", "RD", "RD")]
        return min(c.cycles for c in reads)

    @property
    def bytes_per_second(self) -> float:
        """Peak bandwidth."""
        return self.buses * self.config.burst_bytes / (self.burst_clocks * self.config.tck_ns * 1e-9)

    def bus_cycles(self, counted: np.ndarray) -> np.ndarray:
        """Core cycles for which the data buses were taken, spread evenly, rounded down; counted [..., COUNTED].

        One column command of each bus is left out: it may have been issued at the very end.
        """
        read, written, after_end = (counted[..., COUNTED.index(name)] for name in ("RD", "WR", "after_end"))
        bursts = read + written - after_end
        clocks = np.maximum(bursts // self.buses - 1, 0) * self.burst_clocks
        return clocks * self.clocks.denominator // self.clocks.numerator

    def fresh(self, channels: int, segments: np.ndarray) -> st.DramState:
        """A DRAM with closed banks at clock 0 and one requester per DMA channel."""
        state = allocate(self.config, channels, self.outstanding, self.config.policy.per_clock, channels)
        return state._replace(segments=segments)


def memory(hw: Hardware) -> Memory | None:
    """The command-level memory of a machine; None when its memory is `ideal`. ConfigError names what does not fit."""
    keys = hw.dram.commands
    if hw.dram.model != "commands" or keys is None:
        return None
    config = load_standard(keys.device, keys.controller, keys.channels, keys.ranks, keys.address_map,
                           bus_bits=keys.bus_bits)  # fmt: skip
    if config.burst_bytes != hw.dram.burst_bytes:
        raise ConfigError(
            f"hardware {hw.name!r}: dram.burst_bytes = {hw.dram.burst_bytes}, but a burst of dram.commands.device = "
            f"{keys.device!r} has {config.burst_bytes} bytes; with model = 'commands' they must agree"
        )
    clocks = Fraction(10**9) / (Fraction(str(config.tck_ns)) * hw.clock_hz)
    return Memory(config, clocks, keys.outstanding)


def snapshot(state: st.DramState) -> np.ndarray:
    """COUNTED up to the present clock, int64[len(COUNTED)]."""
    found = np.zeros(len(COUNTED), np.int64)
    kernels.count(state, STATS, found)
    return found


def final_counts(state: st.DramState, snapshots: np.ndarray, clock: int) -> np.ndarray:
    """COUNTED of every operation, int64 [operations, COUNTED], from the snapshots at their beginnings.

    The step ends at DRAM clock `clock`. What is still queued then is drained, and goes to the last operation.
    """
    kernels.run(state, clock, kernels.TO_TIME)
    ended = snapshot(state)
    kernels.run(state, st.FAR - 1, kernels.TO_REST)
    last = snapshot(state)
    columns = [COUNTED.index("RD"), COUNTED.index("WR")]
    last[COUNTED.index("after_end")] = (last - ended)[columns].sum()
    return np.diff(snapshots, axis=0, append=last[None])
