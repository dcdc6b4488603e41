"""Compare the DRAM model with measured rows of DRAMsim3, Ramulator 2 and DRAMSys.

A row names a stream by `params` and `seed`, a configuration by `config`, and how the stream was offered: `hol`, one
in-order injector of `inj_per_clk` bursts per clock that waits whenever its next burst has no room; `perch`, one such
injector per channel. The first burst is offered in clock 1, as the measuring programs did.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npusim.engine.dram import Dram, DramRun
from npusim.engine.dram_config import DramConfig
from npusim.errors import ConfigError
from npusim.validate import dram_readers, dram_streams
from npusim.validate.result import Bound, Cells, Row, Validation, read

if TYPE_CHECKING:
    import pandas as pd

FIRST_CLOCK = 1
# What a configuration may have at most: clocks between events, clocks in flight, entries of a channel's queue, banks of
# a channel, entries of a bank's queue, channels.
MAX_CLOCKS, MAX_FLIGHT, MAX_ENTRIES, MAX_BANKS, MAX_BANK_ENTRIES, MAX_CHANNELS = 2**24, 2**14, 2**12, 2**10, 2**8, 2**6
MAX_PER_CLOCK = 64
MOST_MIB = 4096
# Metric -> column of the file.
MEASURED = {"cycles": "cycles", "acts": "acts", "row_hit_rate": "row_hit_rate", "latency": "avg_read_latency_cyc",
            "energy": "E_total_nJ", "refs": "refs", "col_cmds": "col_cmds"}  # fmt: skip
COLUMNS = ("sim", "config", "map_lsb_to_msb", "inject", "inj_per_clk", "trace", "params", "seed", "target_MiB",
           "burst_bytes", "n_bursts", *MEASURED.values())  # fmt: skip
METRICS = ("cycles", "acts", "row_hit_rate", "latency", "energy")
BOUNDS = {
    "cycles": Bound(0.5, 3),
    "acts": Bound(3, 3),
    "row hit rate": Bound(1, 1),
    "latency": Bound(2, float("inf")),
    "energy": Bound(3, 3),
}


def find_config(name: str, address_map: str, folder: Path) -> DramConfig:
    """The configuration `name` from the files of `folder`.

    `name`.ini is DRAMsim3's; a .yaml whose name starts `name` is Ramulator's (the rest of the name is free, the map
    comes from the row); `dramsys_..._<suffix>` takes dramsys_mcconfig_<suffix>.json with the memory specification and
    address mapping whose last word occurs in `name` when its separators and data rate are left out.
    """
    try:
        config = _find_config(name, address_map, folder)
        bad = _out_of_range(config)
    except (AttributeError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"[:200]
        raise ConfigError(f"the configuration {name!r} in {folder} is not of its simulator's form: {problem}") from None
    if bad:
        raise ConfigError("\n  ".join([f"the configuration {name!r} in {folder}: {len(bad)} problem(s)", *bad]))
    return config


def _out_of_range(config: DramConfig) -> list[str]:
    """Clocks with which the model would find no end, and sizes that it could not hold."""
    far = max((abs(c.cycles) for c in config.constraints), default=0)
    policy = config.policy
    allowed = (
        (0, MAX_CLOCKS, {"refresh interval": config.refresh.interval, "first refresh": config.refresh.first,
                         "tFAW": config.faw, "distance": far, "activate deadline": policy.act_deadline}),
        (0, MAX_FLIGHT, {"read latency": config.read_latency, "write latency": config.write_latency,
                         "WCK of reads": policy.wck_read, "WCK of writes": policy.wck_write}),
        (1, MAX_ENTRIES, {"read queue": policy.read_entries, "write queue": policy.write_entries,
                          "burst bytes": config.burst_bytes}),
        (0, MAX_ENTRIES, {"high watermark": policy.drain_high, "low watermark": policy.drain_low,
                          "activate window": config.faw_window}),
        (1, MAX_BANKS, {"banks": config.banks}),
        (0 if policy.kind == "pools" else 1, MAX_BANK_ENTRIES, {"bank queue": policy.bank_entries}),
        (1, MAX_CHANNELS, {"channels": config.channels}),
    )  # fmt: skip
    return [f"{key} = {str(n)[:20]}: must be a whole number from {least} to {most}"
            for least, most, values in allowed for key, n in values.items()
            if not isinstance(n, int) or not least <= n <= most]  # fmt: skip


def _find_config(name: str, address_map: str, folder: Path) -> DramConfig:
    if not re.fullmatch(r"[\w.+-]{1,200}", name):
        raise ConfigError(f"config = {name[:40]!r}: must be letters, digits and _ . + -, at most 200")
    ini = folder / f"{name}.ini"
    if ini.exists():
        return dram_readers.read_dramsim3(ini)
    if name.startswith("dramsys"):
        controller = folder / f"dramsys_mcconfig_{name.rsplit('_', 1)[-1]}.json"
        files = [_dramsys_file(folder, kind, name) for kind in ("memspec", "addressmapping")]
        if controller.exists() and all(files):
            return dram_readers.read_dramsys(files[0], controller, files[1])  # type: ignore[arg-type]
    yamls = [p for p in folder.glob("*.yaml") if name.startswith(p.stem)]
    if yamls:
        return dram_readers.read_ramulator(max(yamls, key=lambda p: len(p.stem)), address_map)
    known = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
    raise ConfigError(f"no configuration file for {name!r} in {folder}; it has: {known}")


def _dramsys_file(folder: Path, kind: str, name: str) -> Path | None:
    """The dramsys_<kind>_*.json whose letter-number words all occur in `name`; the most specific one."""
    words = set(re.findall(r"[a-z]+\d+", name))
    fits = []
    for p in folder.glob(f"dramsys_{kind}_*.json"):
        own = re.findall(r"[a-z]+\d+", p.stem.removeprefix(f"dramsys_{kind}_"))
        if own and set(own) <= words:
            fits.append((len(own), p))
    return max(fits)[1] if fits else None


def run_stream(config: DramConfig, burst: np.ndarray, write: np.ndarray, inject: str, per_clock: int) -> DramRun:
    """Offer the burst numbers to a fresh memory system and run until nothing is left."""
    config = replace(config, policy=replace(config.policy, per_clock=per_clock * config.channels))
    perch = inject == "perch"
    dram = Dram(config, config.channels if perch else 1, per_clock=per_clock, transfers=config.channels)
    dram.advance(FIRST_CLOCK)
    if perch:
        shift, mask = config.map_table()[0, :2]
        channel = (burst >> shift) & mask
        for c in range(config.channels):
            if (channel == c).any():
                dram.submit_bursts(c, 0, burst[channel == c], write[channel == c])
    else:
        dram.submit_bursts(0, 0, burst, write)
    dram.drain()
    return dram.result()


@dataclass(frozen=True)
class Measured:
    """One line of a file of measurements; `numbers` are NaN where a cell is empty or the column absent."""

    line: int
    sim: str
    config: str
    address_map: str
    inject: str
    per_clock: int
    trace: str
    cls: str
    params: dict[str, Any]
    seed: int
    target_bytes: int
    burst_bytes: int
    digest: str
    numbers: dict[str, float]

    @property
    def merged(self) -> bool:
        """Whether the simulator issued fewer column commands than there were bursts."""
        return self.numbers["col_cmds"] < self.numbers["n_bursts"]


def read_rows(path: str | Path) -> list[Measured]:
    """The rows of a file; ConfigError lists missing columns and every wrong cell with its line."""
    return [_measured(cells) for cells in read(path, COLUMNS)]


def _measured(cells: Cells) -> Measured:
    try:
        params = json.loads(cells.text("params"))
        dram_streams.check(params)
    except (ValueError, ConfigError) as error:
        cells.problem(f"params = {cells.text('params')!r}: {error}")
        params = {}
    if not 0 < (target := cells.number("target_MiB")) <= MOST_MIB:
        cells.problem(f"target_MiB = {target:g}: must be {MOST_MIB} or less")
        target = 1
    numbers = {}
    for column in ("n_bursts", *MEASURED.values()):
        text = cells.text(column)
        try:
            numbers[column] = float(text) if text else np.nan
        except ValueError:
            cells.problem(f"{column} = {text!r}: must be a number or empty")
            numbers[column] = np.nan
    if np.isnan(numbers["cycles"]):
        cells.problem("cycles: missing")
    per_clock = cells.integer("inj_per_clk", 1)
    if per_clock > MAX_PER_CLOCK:
        cells.problem(f"inj_per_clk = {per_clock}: must be {MAX_PER_CLOCK} or less")
        per_clock = 1
    return Measured(
        cells.line, cells.text("sim"), cells.text("config"), cells.text("map_lsb_to_msb"),
        cells.choice("inject", ("hol", "perch")), per_clock, cells.text("trace"),
        cells.text("cls"), params, cells.integer("seed"), int(target * dram_streams.MIB),
        cells.integer("burst_bytes", 1), cells.text("trace_sha256_16"), numbers,
    )  # fmt: skip


def offered(row: Measured, folder: Path) -> tuple[DramConfig, np.ndarray, np.ndarray]:
    """The configuration of a row, and its stream: byte address of every burst, and whether it writes."""
    config = find_config(row.config, row.address_map, folder)
    if config.burst_bytes != row.burst_bytes:
        raise ConfigError(f"{row.config}: bursts of {config.burst_bytes} bytes, but burst_bytes = {row.burst_bytes}")
    return config, *dram_streams.bursts(row.params, row.seed, row.target_bytes, config.burst_bytes)


def simulate_row(row: Measured, folder: Path) -> dict[str, float]:
    """Simulated columns of one row; what the model does not know is NaN."""
    try:
        config, address, write = offered(row, folder)
        run = run_stream(config, address // config.burst_bytes, write, row.inject, row.per_clock)
    except ConfigError as error:
        raise ConfigError(f"line {row.line}: {error}") from None
    columns = run.counts["RD"] + run.counts["WR"]
    energy = sum(run.energy_pj.values()) / 1000 if run.energy_pj else np.nan
    return {
        "cycles": run.cycles, "acts": run.counts["ACT"], "refs": run.counts["REF"] + run.counts["REFB"],
        "col_cmds": columns, "row_hit_rate": run.row_hits / columns if columns else np.nan,
        "latency": run.mean_read_latency, "energy": energy,
        "trace_ok": row.digest in ("", dram_streams.digest(address, write)),
    }  # fmt: skip


def validate(path: Path, configs: Path | None = None) -> Validation:
    """Every measured number of a file as a row; rows in which a simulator merged requests are left out of the errors.

    ConfigError when the folder of configurations is not given.
    """
    if configs is None:
        raise ConfigError(f"{path}: its rows name DRAM configurations; give their folder with --configs")
    table = validate_dram(path, configs)
    rows = [row for metric in BOUNDS for row in _rows(table, metric)]
    bounds = {row.group: BOUNDS[row.group.split(" ", 1)[1]] for row in rows}
    return Validation("dram", rows, bounds, ("rows with fewer column commands than bursts (merged requests)",))


def _rows(table: pd.DataFrame, metric: str) -> Iterator[Row]:
    key = metric.replace(" ", "_")
    for row in table.to_dict("records"):
        measured = row[f"{key}_measured"]
        if np.isnan(row[f"{key}_error"]):
            continue
        simulated = row[f"{key}_simulated"] if row["counted"] else None
        note = "" if row["counted"] else "requests merged by the simulator"
        note = note if row["trace_ok"] else f"{note or 'simulated'}; the stream is not that of trace_sha256_16"
        case = f"{row['config']} {row['inject']} {row['trace']}"
        reference = 1.0 if metric == "row hit rate" else None
        yield Row(row["line"], f"{row['sim']} {metric}", case, measured, simulated, note, reference=reference)


def validate_dram(csv_path: str | Path, configs_dir: str | Path, select: str = "") -> pd.DataFrame:
    """Per row of `csv_path`: measured, simulated and error of every metric; `counted` is false where requests were
    merged.

    Errors are relative, of the row-hit rate absolute; NaN where the row has no measurement. `select` is a regular
    expression that config or trace must match.
    """
    import pandas as pd

    out = []
    for row in read_rows(csv_path):
        if not (re.search(select, row.config) or re.search(select, row.trace)):
            continue
        sim = simulate_row(row, Path(configs_dir))
        record: dict[str, object] = {"line": row.line, "sim": row.sim, "config": row.config, "inject": row.inject,
                                     "trace": row.trace, "cls": row.cls, "trace_ok": sim.pop("trace_ok"),
                                     "counted": not row.merged}  # fmt: skip
        for key, column in MEASURED.items():
            m = row.numbers[column]
            record |= {f"{key}_measured": m, f"{key}_simulated": sim[key], f"{key}_error": _error(key, sim[key], m)}
        out.append(record)
    return pd.DataFrame(out)


def _error(metric: str, simulated: float, measured: float) -> float:
    """Simulated against measured; NaN when nothing was measured (or no read, for the latency)."""
    if metric == "row_hit_rate":
        return simulated - measured
    return simulated / measured - 1 if measured else np.nan


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Rows, mean and largest absolute error of every metric by simulator, over the rows that count."""
    import pandas as pd

    records = []
    for sim, rows in table[table.counted].groupby("sim"):
        record: dict[str, object] = {"sim": sim, "rows": len(rows)}
        for metric in METRICS:
            error = rows[f"{metric}_error"].abs().dropna()
            record[f"{metric}_mean"] = error.mean() if len(error) else np.nan
            record[f"{metric}_max"] = error.max() if len(error) else np.nan
        records.append(record)
    return pd.DataFrame(records)
