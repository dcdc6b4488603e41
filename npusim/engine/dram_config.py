"""Description of a command-level memory system: organisation, address map, constraints, controller policy, currents.

Times are clocks of the command bus (`tck_ns`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npusim.engine import _dram_state as st

# The number by which the kernels know a command. A controller that precharges with its reads and writes issues no
# others, one that refreshes banks no ranks.
COMMANDS = {"ACT": st.ACT, "PRE": st.PRE, "RD": st.RD, "WR": st.WR, "REF": st.REF, "REFB": st.REF, "PREA": st.PREA,
            "RDA": st.RD, "WRA": st.WR}  # fmt: skip
POLICIES = ("bank_queues", "pools", "bank_machines")
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
        each, interval = self._refreshes()
        if 0 < interval <= each:
            bad.append(f"a refresh is due every {interval} clocks and takes {each}: no time would be left")
        if self.refresh.per_bank and self.policy.kind != "bank_queues":
            bad.append(f"refresh.per_bank needs policy.kind = 'bank_queues', not {self.policy.kind!r}")
        if self.policy.kind not in POLICIES:
            bad.append(f"policy.kind = {self.policy.kind!r}; known: {', '.join(POLICIES)}")
        return bad

    def _refreshes(self) -> tuple[int, int]:
        """Clocks that a refresh takes, and clocks between two of one unit (a bank, a rank); 0 for never."""
        r = self.refresh
        scope, command, units = ("bank", "REFB", self.banks) if r.per_bank else ("rank", "REF", self.ranks)
        taken = self.delays().get((scope, command, "ACT"), 0)
        return taken, r.interval * (units if r.per_bank or r.all_ranks else 1) // r.batch

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
