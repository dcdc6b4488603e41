"""DRAM energy from command counts: access, activates, background and refresh.

    access      bursts x (current of a burst above active standby + I/O per bit)
    activate    activates x (current of activate and precharge above standby)
    background  refreshes x (refresh current above standby) + time x standby current, open rows and closed ones apart

Currents are those of the standard's file (`npusim/data/dram/<standard>.toml`, section [currents]); the formula is that
of `npusim.engine.dram.energy_pj`, which equals DRAMsim3's. Its section [energy] says where they come from, how far to
trust them, and what the interface costs per bit where the currents do not hold it. A user's energy table may give all
prices instead (`[dram_command."<standard>"]`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from npusim import config as checked
from npusim.energy.table import Amount, Confidence, EnergyTable
from npusim.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from npusim.engine.dram_config import DramConfig

# Columns of `Use.work`, int64 per operation. The last two are rank-clocks: command-bus clocks, summed over all ranks,
# in which a rank had an open row, and in which it had none.
WORK = ("activates", "read_bursts", "write_bursts", "refreshes", "bank_refreshes", "open_clocks", "closed_clocks")


class Source(checked.Model):
    """Section [energy] of a standard's file."""

    source: Annotated[str, Field(min_length=1)]
    confidence: Confidence
    io_pj_per_bit: Amount
    io_source: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class CommandPrices:
    """pJ per unit of each column of WORK; the access term in its two parts."""

    standard: str
    activate_pj: float
    read_core_pj: float
    write_core_pj: float
    io_pj: float
    refresh_pj: float
    bank_refresh_pj: float
    open_pj: float
    closed_pj: float
    sources: dict[str, str]
    confidence: str
    notes: tuple[str, ...] = ()

    def actions(self) -> Iterable[tuple[str, str, str, float]]:
        """(component, action, column of WORK, pJ): core and I/O of a burst are two actions."""
        yield "dram_access", "read_core", "read_bursts", self.read_core_pj
        yield "dram_access", "read_io", "read_bursts", self.io_pj
        yield "dram_access", "write_core", "write_bursts", self.write_core_pj
        yield "dram_access", "write_io", "write_bursts", self.io_pj
        yield "dram_activate", "activate", "activates", self.activate_pj
        yield "dram_background", "refresh", "refreshes", self.refresh_pj
        yield "dram_background", "bank_refresh", "bank_refreshes", self.bank_refresh_pj
        yield "dram_background", "open_rows", "open_clocks", self.open_pj
        yield "dram_background", "closed_rows", "closed_clocks", self.closed_pj


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """What a DRAM did, int64 `[ops, WORK]`, and its prices."""

    work: np.ndarray
    prices: CommandPrices


def dram_energy(use: Use) -> np.ndarray:
    """float64 pJ `[ops, 3]`: access, activates, background with refresh."""
    import numpy as np

    names = ("dram_access", "dram_activate", "dram_background")
    pj = np.zeros((len(use.work), 3))
    for component, _, work, price in use.prices.actions():
        pj[:, names.index(component)] += use.work[:, WORK.index(work)] * price
    return pj


def command_prices(config: DramConfig, standard: str, table: EnergyTable) -> CommandPrices:
    """Prices of the commands of `config`, loaded from `standard` (a built-in name or a file).

    `table.dram_command[standard]` wins where it exists. ConfigError when neither has figures.
    """
    row = table.dram_command.get(standard)
    if row is not None:
        bits = 8 * config.burst_bytes
        ranks = config.channels * config.ranks
        sources = dict.fromkeys(("dram_access", "dram_activate", "dram_background"), row.source)
        return CommandPrices(
            standard, row.activate_pj, row.read_pj_per_bit * bits, row.write_pj_per_bit * bits,
            row.io_pj_per_bit * bits, row.refresh_pj, row.bank_refresh_pj, row.open_mw / ranks * config.tck_ns,
            row.closed_mw / ranks * config.tck_ns, sources, row.confidence,
        )  # fmt: skip
    return _from_currents(config, standard)


def _from_currents(config: DramConfig, standard: str) -> CommandPrices:
    from npusim.engine.dram import energy_pj
    from npusim.engine.dram_standards import data_files

    path = data_files().get(standard) or Path(standard)
    currents = config.currents
    if currents is None:
        raise ConfigError(
            f"DRAM {standard}: {path.name} has no section [currents], so its commands have no price; "
            f'add one, or [dram_command."{standard}"] to the energy table'
        )
    counts = {"ACT": 1, "RD": 1, "WR": 1, "REF": 1, "REFB": 0}
    one = energy_pj(config, counts, 0, 0)
    bank_refresh = energy_pj(config, {**counts, "REF": 0, "REFB": 1}, 0, 0)["refresh"]
    standby = currents.vdd * currents.devices * config.tck_ns
    source = _source(path)
    core = f"[currents] of {path.name}: {source.source}"
    doubt = f"DRAM {standard}: low confidence, {source.source}"
    return CommandPrices(
        standard, one["act"], one["read"], one["write"], source.io_pj_per_bit * 8 * config.burst_bytes, one["refresh"],
        bank_refresh, standby * currents.idd3n, standby * currents.idd2n,
        {"dram_access": f"{core}; I/O: {source.io_source}", "dram_activate": core, "dram_background": core},
        source.confidence, (doubt,) if source.confidence == "low" else (),
    )  # fmt: skip


def _source(path: Path) -> Source:
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    if "energy" not in raw:
        raise ConfigError(f"{path}: section [energy] is missing: source, confidence, io_pj_per_bit and io_source")
    return checked.validate(Source, raw["energy"], f"{path}, section [energy]")
