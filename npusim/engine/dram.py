"""Command-level DRAM: a memory system that accepts transfers and tells when they complete.

`Dram` owns the state and drives the kernel; a compiled engine may drive `Dram.state` through `_dram_kernels` itself.
Times are clocks of the command bus (`tck_ns`), energy is in picojoules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from npusim.engine import _dram_kernels as kernels
from npusim.engine import _dram_state as st
from npusim.engine.dram_config import DramConfig
from npusim.engine.dram_layout import allocate
from npusim.errors import ConfigError


@dataclass
class DramRun:
    """What a run counted; `energy_pj` is None when the configuration has no currents."""

    cycles: int
    counts: dict[str, int]
    row_hits: int
    mean_read_latency: float
    energy_pj: dict[str, float] | None = field(default=None)


class Dram:
    """One memory system with `requesters` in-order injectors, each with at most `outstanding` bursts in flight."""

    def __init__(
        self, config: DramConfig, requesters: int = 1, outstanding: int = 0, per_clock: int = 0, transfers: int = 1024
    ) -> None:
        bad = config.verify()
        if bad:
            raise ConfigError(f"DRAM {config.name}: " + "; ".join(bad))
        self.config = config
        per_clock = per_clock or config.policy.per_clock
        self.state = allocate(config, requesters, outstanding or st.FAR, per_clock, transfers)

    def submit(self, requester: int, order: int, addr: int, n_bytes: int, rows: int = 1, stride: int = 0,
               write: bool = False) -> int:  # fmt: skip
        """Hand over a transfer at the current clock; returns its id. See `_dram_kernels.submit`."""
        x = kernels.submit(self.state, requester, order, addr, n_bytes, rows, stride, int(write))
        if x < 0:
            raise ConfigError(f"DRAM {self.config.name}: more than {self.state.xfer.shape[0]} transfers")
        return int(x)

    def submit_bursts(self, requester: int, order: int, bursts: np.ndarray, write: np.ndarray) -> int:
        """Hand over a list of burst numbers as one transfer; may be called before the first `advance` only."""
        packed = (bursts.astype(np.int64) << 1) | write.astype(np.int64)
        first = self.state.lists.size
        self.state = self.state._replace(lists=np.concatenate([self.state.lists, packed]))
        return int(kernels.submit_list(self.state, requester, order, first, packed.size))

    def next_event(self) -> int:
        """Clock before which nothing completes."""
        return int(kernels.next_event(self.state))

    def advance(self, until: int) -> list[tuple[int, int]]:
        """Run to clock `until`; returns (transfer, completion clock) of what finished, in order of time."""
        kernels.run(self.state, until, kernels.TO_TIME)
        return self._take_done()

    def drain(self) -> list[tuple[int, int]]:
        """Run until nothing is left; returns what finished."""
        kernels.run(self.state, st.FAR - 1, kernels.TO_REST)
        return self._take_done()

    def _take_done(self) -> list[tuple[int, int]]:
        s = self.state
        done = [(int(x), int(s.xfer[x, st.X_DONE])) for x in s.done[: s.clock[st.N_DONE]]]
        s.clock[st.N_DONE] = 0
        return done

    def result(self) -> DramRun:
        """Counters and energy up to the current clock."""
        s = self.state
        cycles = int(s.clock[st.NOW])
        names = {"ACT": st.C_ACT, "PRE": st.C_PRE, "RD": st.C_RD, "WR": st.C_WR, "REF": st.C_REF, "REFB": st.C_REFB}
        counts = {n: self._total(i) for n, i in names.items()}
        reads = self._total(st.C_READS)
        latency = self._total(st.C_LATENCY) / reads if reads else 0.0
        energy = energy_pj(self.config, counts, cycles, self.idle_clocks()) if self.config.currents else None
        return DramRun(cycles, counts, self._total(st.C_HIT), latency, energy)

    def _total(self, statistic: int) -> int:
        return int(self.state.val[:, statistic].sum())

    def idle_clocks(self) -> int:
        """Clocks, summed over all ranks, in which a rank had no open bank."""
        return int(kernels.idle_clocks(self.state))


def energy_pj(config: DramConfig, counts: dict[str, int], cycles: int, idle: int) -> dict[str, float]:
    """IDD-based energy of the command counts: mA * V * ns = pJ, for all devices of a rank.

    Activates are charged above active and precharged standby, bursts and refreshes above active standby (Micron
    TN-40-07).
    """
    c = config.currents
    assert c is not None
    per = c.vdd * c.devices * config.tck_ns
    active = config.channels * config.ranks * cycles - idle
    return {
        "act": counts["ACT"] * per * (c.idd0 * c.t_rc - c.idd3n * c.t_ras - c.idd2n * c.t_rp),
        "read": counts["RD"] * per * (c.idd4r - c.idd3n) * c.burst,
        "write": counts["WR"] * per * (c.idd4w - c.idd3n) * c.burst,
        "refresh": per * (counts["REF"] * (c.idd5ab - c.idd3n) * c.t_rfc
                          + counts["REFB"] * (c.idd5pb - c.idd3n) * c.t_rfcb),
        "background": per * (active * c.idd3n + idle * c.idd2n),
    }  # fmt: skip
