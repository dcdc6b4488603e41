"""Command-level DRAM: configurations, and one memory system that accepts transfers and tells when they complete.

A `DramConfig` is a frozen description: organisation, address map, table of constraints, controller policy, currents.
`Dram` owns the state and drives the kernel; a compiled engine may drive `Dram.state` through `_dram_kernels` itself.
Times are clocks of the command bus (`tck_ns`), energy is in picojoules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from npusim.engine import _dram_kernels as kernels
from npusim.engine import _dram_state as st
from npusim.engine.dram_layout import COMMANDS, POLICIES, allocate
from npusim.errors import ConfigError

SCOPES = ("bank", "group", "rank", "other_rank", "other_bank")
FIELDS = ("channel", "rank", "group", "bank", "row", "column")


@dataclass(frozen=True)
class Constraint:
    """`after` may follow `before` no earlier than `cycles` later, when both go to the same `scope`.

    The scope other_bank, another bank of the rank, is known after REFB only.
    """

    scope: str
    before: str
    after: str
    cycles: int


@dataclass(frozen=True)
class Policy:
    """What a controller does with requests.

    `kind` bank_queues: transactions move one per clock into per-bank queues of `bank_entries`, issued round robin;
    pools: oldest ready command of one read and one write buffer; bank_machines: one request per bank in flight, oldest
    first. `hit_cap`: accesses after which a waiting conflict may close the row in spite of waiting hits. Writes drain
    from `drain_high` waiting on (or more than `drain_low` while reads are idle, for bank_queues; down to `drain_low`
    for pools).
    """

    kind: str = "bank_queues"
    read_entries: int = 32
    write_entries: int = 32
    bank_entries: int = 8
    hit_cap: int = 4
    drain_high: int = 32
    drain_low: int = 8
    unified: bool = False
    close_page: bool = False
    per_clock: int = 1
    forward: str = "after_room"
    merge_reads: bool = True
    write_done: str = "accept"
    split_activate: bool = False
    act_deadline: int = 0
    wck_read: int = 0
    wck_write: int = 0
    split_pools: bool = False
    room: str = "own"
    dual_bus: bool = False
    command_cycles: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Refresh:
    """One refresh command per `interval` clocks from clock `first` on, `batch` at a time; 0 = never."""

    interval: int = 0
    first: int = 0
    batch: int = 1
    per_bank: bool = False
    all_ranks: bool = True


@dataclass(frozen=True)
class Currents:
    """Supply voltage and currents in mA per device; `devices` work together in a rank."""

    vdd: float = 0.0
    idd0: float = 0.0
    idd2n: float = 0.0
    idd3n: float = 0.0
    idd4r: float = 0.0
    idd4w: float = 0.0
    idd5ab: float = 0.0
    idd5pb: float = 0.0
    devices: int = 0
    t_rc: int = 0
    t_ras: int = 0
    t_rp: int = 0
    t_rfc: int = 0
    t_rfcb: int = 0
    burst: int = 0


@dataclass(frozen=True)
class DramConfig:
    """One memory system. `address_map`: (field, bits) from the least significant bit of the burst number upwards."""

    name: str
    tck_ns: float
    burst_bytes: int
    channels: int
    ranks: int
    groups: int
    banks_per_group: int
    address_map: tuple[tuple[str, int], ...]
    constraints: tuple[Constraint, ...]
    faw: int
    faw_window: int
    read_latency: int
    write_latency: int
    refresh: Refresh
    policy: Policy
    currents: Currents | None = None
    xor: tuple[tuple[str, int], ...] = ()
    source: str = ""

    @property
    def banks(self) -> int:
        """Banks of one channel."""
        return self.ranks * self.groups * self.banks_per_group

    def verify(self) -> list[str]:
        """Every contradiction, naming the keys; empty when there is none."""
        bad = []
        for key in ("burst_bytes", "channels", "ranks", "groups", "banks_per_group"):
            v = getattr(self, key)
            if v < 1 or v & (v - 1):
                bad.append(f"{key} = {v}: the address map needs a power of two")
        sizes = {"channel": self.channels, "rank": self.ranks, "group": self.groups, "bank": self.banks_per_group}
        for name, size in sizes.items():
            bits = sum(b for f, b in self.address_map if f == name)
            if bits > 62 or 1 << bits != size:
                bad.append(f"address_map gives field {name} {bits} bits, but there are {size}")
        if sum(b for _, b in self.address_map) > 62:
            bad.append("address_map has more than 62 bits")
        for f, _ in self.address_map:
            if f not in FIELDS:
                bad.append(f"address_map: unknown field {f!r}; known: {', '.join(FIELDS)}")
        for f in set(FIELDS):
            if sum(1 for g, b in self.address_map if g == f and b) > 2:
                bad.append(f"address_map: field {f} is in more than two pieces")
        d = self.delays()
        trc, tras, trp = (d.get(("bank", *pair), 0) for pair in (("ACT", "ACT"), ("ACT", "PRE"), ("PRE", "ACT")))
        if 0 < trc < tras + trp - 1 and tras > 0 and trp > 0:
            bad.append(f"tRC = {trc} is less than tRAS = {tras} + tRP = {trp}")
        bad += [
            f"constraint {c}: the scope other_bank is known after REFB only"
            for c in self.constraints
            if c.scope == "other_bank" and c.before != "REFB"
        ]
        if self.refresh.per_bank and self.policy.kind != "bank_queues":
            bad.append(f"refresh.per_bank needs policy.kind = 'bank_queues', not {self.policy.kind!r}")
        if self.policy.kind not in POLICIES:
            bad.append(f"policy.kind = {self.policy.kind!r}; known: {', '.join(POLICIES)}")
        return bad

    def delays(self) -> dict[tuple[str, str, str], int]:
        """(scope, before, after) -> earliest distance, where anything is constrained."""
        table: dict[tuple[str, str, str], int] = {}
        for c in self.constraints:
            key = c.scope, c.before, c.after
            table[key] = max(table.get(key, c.cycles), c.cycles)
        return table

    def issued(self) -> tuple[str, ...]:
        """The commands that the controller issues."""
        if self.policy.kind != "bank_queues":
            return ("ACT", "PRE", "RD", "WR", "REF", "PREA")
        refresh = "REFB" if self.refresh.per_bank else "REF"
        return ("ACT", "PRE", refresh, *(("RDA", "WRA") if self.policy.close_page else ("RD", "WR")))

    def rules(self) -> list[tuple[int, int, int, int]]:
        """What each command of the kernels forbids: (command, scope, command after it, cycles).

        Left out: commands that are not issued, the own bank and group of REF and PREA, which hold for ranks, and what a
        wider scope forbids for as long.
        """
        delays, issued = self.delays(), self.issued()
        found = []
        for (scope, before, after), cycles in delays.items():
            whole = before in ("REF", "PREA") and scope in ("bank", "group")
            wider = {"bank": ("group", "rank"), "group": ("rank",)}.get(scope, ())
            longest = max((delays.get((w, before, after), st.NEVER) for w in wider), default=st.NEVER)
            if before in issued and after in issued and not whole and cycles > longest:
                found.append((COMMANDS[before], SCOPES.index(scope), COMMANDS[after], cycles))
        return found

    def map_table(self) -> np.ndarray:
        """The address map as the kernel reads it."""
        table = np.zeros((len(FIELDS), 6), np.int64)
        table[:, 5] = -1
        pieces = dict.fromkeys(FIELDS, 0)
        shift = 0
        for name, bits in self.address_map:
            f = FIELDS.index(name)
            if bits and pieces[name] == 0:
                table[f, :2] = shift, (1 << bits) - 1
                pieces[name] = bits
            elif bits:
                table[f, 2:5] = shift, (1 << bits) - 1, pieces[name]
            shift += bits
        rows = FIELDS.index("row")
        for name, offset in self.xor:
            table[FIELDS.index(name), 5] = table[rows, 0] + offset
        return table


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
