"""Read the configuration files of DRAMsim3 (.ini), Ramulator 2 (.yaml) and DRAMSys (.json) into a `DramConfig`.

Only what the files say is used, with each tool's own defaults for what they leave out; a feature the model does not
have is an error that names the key.
"""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

from npusim.engine.dram import Constraint, Currents, DramConfig, Policy, Refresh
from npusim.engine.dram_standards import FIELD_NAMES, jedec_constraints
from npusim.errors import ConfigError

MIB = 1 << 20


def bits(n: int) -> int:
    """log2 of a power of two."""
    return n.bit_length() - 1


class _Ini:
    """Typed access to an .ini with DRAMsim3's defaults; comments start with # or ;."""

    def __init__(self, path: Path) -> None:
        self.parser = configparser.ConfigParser(inline_comment_prefixes=("#", ";"), strict=False)
        self.parser.optionxform = str  # type: ignore[assignment,method-assign]
        self.parser.read(path)

    def get(self, section: str, key: str, default: str = "") -> str:
        return self.parser.get(section, key, fallback=default)

    def integer(self, section: str, key: str, default: int) -> int:
        return int(self.get(section, key, str(default)))

    def real(self, section: str, key: str, default: float) -> float:
        return float(self.get(section, key, str(default)))

    def flag(self, section: str, key: str, default: bool) -> bool:
        return self.get(section, key, str(default)).lower() in ("true", "yes", "on", "1")


_TIMING_DEFAULTS = {
    "AL": 0, "CL": 12, "CWL": 12, "tCCD_L": 6, "tCCD_S": 4, "tRTRS": 2, "tRTP": 5, "tWTR_L": 5, "tWTR_S": 5, "tWR": 10,
    "tRP": 10, "tRRD_L": 4, "tRRD_S": 4, "tRAS": 24, "tRCD": 10, "tRFC": 74, "tRFCb": 20, "tREFI": 7800, "tREFIb": 1950,
    "tFAW": 50, "tPPD": 0, "tRCDRD": 24, "tRCDWR": 20,
}  # fmt: skip


def read_dramsim3(path: Path) -> DramConfig:
    """A DRAMsim3 .ini with its controller: per-bank command queues, row-hit cap 4, write drain, staggered refresh."""
    ini = _Ini(path)
    protocol = ini.get("dram_structure", "protocol", "DDR3")
    hbm = protocol.startswith("HBM") and protocol != "HMC"
    if protocol.startswith("GDDR") or protocol == "HMC":
        raise ConfigError(f"{path.name}: protocol = {protocol} is not modelled; use DDR3, DDR4, LPDDR*, HBM or HBM2")
    if ini.get("system", "queue_structure", "PER_BANK") != "PER_BANK":
        raise ConfigError(f"{path.name}: queue_structure must be PER_BANK")
    if ini.flag("system", "enable_self_refresh", False):
        raise ConfigError(f"{path.name}: enable_self_refresh is not modelled")
    groups = ini.integer("dram_structure", "bankgroups", 2)
    per_group = ini.integer("dram_structure", "banks_per_group", 2)
    if not ini.flag("dram_structure", "bankgroup_enable", True):
        groups, per_group = 1, groups * per_group
    rows = ini.integer("dram_structure", "rows", 1 << 16)
    columns = ini.integer("dram_structure", "columns", 1 << 10) * (2 if hbm else 1)
    width = ini.integer("dram_structure", "device_width", 8)
    bl = ini.integer("dram_structure", "BL", 8)
    bus = ini.integer("system", "bus_width", 64)
    channels = ini.integer("system", "channels", 1)
    devices = bus // width
    mib_per_rank = columns * width // 8 * (rows // 1024) // 1024 * groups * per_group * devices
    size = ini.integer("system", "channel_size", 1024)
    ranks = 1 if mib_per_rank > size else size // mib_per_rank
    t = {k: ini.integer("timing", k, v) for k, v in _TIMING_DEFAULTS.items()}
    t["burst"] = bl // 2
    widths = {"ch": bits(channels), "ra": bits(ranks), "bg": bits(groups), "ba": bits(per_group), "ro": bits(rows),
              "co": bits(columns) - bits(bl)}  # fmt: skip
    order = re.findall("..", ini.get("system", "address_mapping", "chrobabgraco"))
    ref = ini.get("system", "refresh_policy", "RANK_LEVEL_STAGGERED")
    intervals = {"RANK_LEVEL_STAGGERED": t["tREFI"] // ranks, "RANK_LEVEL_SIMULTANEOUS": t["tREFI"]}
    interval = intervals.get(ref, t["tREFIb"])
    trans = ini.integer("system", "trans_queue_size", 32)
    policy = Policy(
        "bank_queues", trans, trans, ini.integer("system", "cmd_queue_size", 16), 4, trans, 8,
        ini.flag("system", "unified_queue", False), ini.get("system", "row_buf_policy", "OPEN_PAGE") == "CLOSE_PAGE",
        dual_bus=hbm and ini.flag("dram_structure", "hbm_dual_cmd", True),
    )  # fmt: skip
    return DramConfig(
        path.stem, ini.real("timing", "tCK", 1.0), bus // 8 * bl, channels, ranks, groups, per_group,
        tuple((FIELD_NAMES[f], widths[f]) for f in reversed(order)), tuple(_dramsim3_constraints(t, hbm, groups,
        protocol)), t["tFAW"], 4, t["AL"] + t["CL"] + t["burst"], t["AL"] + t["CWL"] + t["burst"],
        Refresh(interval, interval, 1, ref == "BANK_LEVEL_STAGGERED", ref == "RANK_LEVEL_STAGGERED"),
        policy, _dramsim3_currents(ini, t, devices), (), f"{path.name}, DRAMsim3",
    )  # fmt: skip


def _dramsim3_currents(ini: _Ini, t: dict[str, int], devices: int) -> Currents:
    """The [power] section; per-device mA and V, with DRAMsim3's defaults."""
    defaults = {"VDD": 1.2, "IDD0": 48, "IDD2N": 34, "IDD3N": 43, "IDD4R": 135, "IDD4W": 123, "IDD5AB": 250,
                "IDD5PB": 5}  # fmt: skip
    v = {k.lower(): ini.real("power", k, d) for k, d in defaults.items()}
    return Currents(
        vdd=v["vdd"], idd0=v["idd0"], idd2n=v["idd2n"], idd3n=v["idd3n"], idd4r=v["idd4r"], idd4w=v["idd4w"],
        idd5ab=v["idd5ab"], idd5pb=v["idd5pb"], devices=devices, t_rc=t["tRAS"] + t["tRP"], t_ras=t["tRAS"],
        t_rp=t["tRP"], t_rfc=t["tRFC"], t_rfcb=t["tRFCb"], burst=t["burst"],
    )  # fmt: skip


def _dramsim3_constraints(t: dict[str, int], hbm: bool, groups: int, protocol: str) -> list[Constraint]:
    """Command distances as DRAMsim3 derives them from the [timing] section."""
    rcd_rd, rcd_wr = (t["tRCDRD"], t["tRCDWR"]) if hbm else (t["tRCD"] - t["AL"], t["tRCD"] - t["AL"])
    own = {"cl": t["AL"] + t["CL"], "cwl": t["AL"] + t["CWL"], "rtp": t["AL"] + t["tRTP"], "rcd_rd": rcd_rd,
           "rcd_wr": rcd_wr, "burst": t["burst"], "rp_all": t["tRP"], "ppd": t["tPPD"] if protocol == "LPDDR4" else 0,
           "rfc_bank": 0}  # fmt: skip
    same = {k[1:].lower(): v for k, v in t.items() if k.startswith("t")}
    rc = t["tRAS"] + t["tRP"]
    # A per-bank refresh leaves its own bank free and keeps the others waiting (src/timing.cc, src/channel_state.cc).
    refresh_bank = [("rank", "ACT", "REFB", rc), ("other_bank", "REFB", "ACT", t["tRFC"]),
                    ("other_bank", "REFB", "REFB", t["tREFI"])]  # fmt: skip
    return jedec_constraints(same | own, groups) + [Constraint(*row) for row in refresh_bank]


def read_yaml(text: str) -> Any:
    """The YAML that Ramulator writes: block mappings and block sequences of scalars, nothing else."""
    lines = [(len(r) - len(r.lstrip(" ")), r.strip()) for r in text.splitlines() if r.strip() and r.strip()[0] != "#"]
    value, end = _yaml_block(lines, 0)
    if end != len(lines):
        raise ConfigError(f"YAML line {end + 1} of {len(lines)}: unexpected indentation")
    return value


def _yaml_scalar(word: str) -> Any:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return {"true": True, "false": False, "null": None}.get(word, word.strip("'\""))


def _yaml_block(lines: list[tuple[int, str]], i: int) -> tuple[Any, int]:
    """The value that starts at line `i`, and the line after it."""
    indent, word = lines[i]
    if word.startswith("- ") or word == "-":
        items = []
        while i < len(lines) and lines[i][0] == indent and lines[i][1].startswith("-"):
            rest = lines[i][1][1:].strip()
            inner = indent + len(lines[i][1]) - len(rest)
            if not rest:
                value, i = _yaml_block(lines, i + 1)
            elif rest.startswith("- ") or re.match(r"^[\w.]+:( |$)", rest):
                lines[i] = (inner, rest)
                value, i = _yaml_block(lines, i)
            else:
                value, i = _yaml_scalar(rest), i + 1
            items.append(value)
        return items, i
    mapping: dict[str, Any] = {}
    while i < len(lines) and lines[i][0] == indent and not lines[i][1].startswith("- "):
        key, _, rest = lines[i][1].partition(":")
        i += 1
        if rest.strip():
            mapping[key] = _yaml_scalar(rest.strip())
        elif i < len(lines) and (lines[i][0] > indent or (lines[i][0] == indent and lines[i][1].startswith("-"))):
            mapping[key], i = _yaml_block(lines, i)
        else:
            mapping[key] = None
    return mapping, i


_RAMULATOR_COMMANDS = {
    "DDR4": ["ACT", "PRE", "PREA", "RD", "WR", "RDA", "WRA", "REF"],
    "LPDDR5": ["ACT", "ACT2", "PRE", "PREA", "CAS_RD", "CAS_WR", "RD", "WR", "RDA", "WRA", "REF", "REFB"],
    "HBM2": ["ACT", "PRE", "PREA", "RD", "WR", "RDA", "WRA", "REF", "REFB"],
}
_RAMULATOR_COMMANDS["DDR3"] = _RAMULATOR_COMMANDS["DDR4"]
_RAMULATOR_COMMANDS["HBM1"] = _RAMULATOR_COMMANDS["HBM2"]
_RAMULATOR_REFI = {"DDR4": 18, "LPDDR5": 24, "HBM2": 21}
_PREFETCH = {"DDR3": 8, "DDR4": 8, "LPDDR5": 16, "HBM1": 2, "HBM2": 4}


def map_fields(text: str) -> tuple[tuple[str, int], ...]:
    """`bg2-co7-ba2-ro16` (least significant first) as (field, bits)."""
    pairs = [re.fullmatch(r"([a-z]+)(\d+)", part) for part in text.split("-")]
    if any(p is None or p[1] not in FIELD_NAMES for p in pairs):
        raise ConfigError(f"address map {text!r}: fields are {', '.join(FIELD_NAMES)} with their number of bits")
    return tuple((FIELD_NAMES[p[1]], int(p[2])) for p in pairs if p)


def read_ramulator(path: Path, address_map: str) -> DramConfig:
    """A Ramulator 2.1 system description; the address map is not part of it (the front end applies it)."""
    controllers = read_yaml(path.read_text())["memory_system"]["controllers"]
    c = controllers[0]
    dram = c["dram"]
    standard = dram["impl"]
    if standard not in _RAMULATOR_REFI:
        raise ConfigError(f"{path.name}: dram impl {standard!r}; known: {', '.join(_RAMULATOR_REFI)}")
    for key, want in (("scheduler", "FRFCFS-RowHit"), ("row_policy", "Open"), ("refresh_manager", "AllBank")):
        if c[key]["impl"] != want:
            raise ConfigError(f"{path.name}: {key} {c[key]['impl']!r} is not modelled; only {want}")
    names = _RAMULATOR_COMMANDS[standard]
    count = dram["org"]["count"]
    timing = dram["timing"]
    constraints, window = _ramulator_constraints(dram["timing_constraints"], names)
    tx = _PREFETCH[standard] * dram["channel_width"] // 8
    lpddr = standard == "LPDDR5"
    sync = lpddr and c.get("wck_sync_mode", "need_sync") == "need_sync"
    reads, writes = c["read_buffer_size"], c["write_buffer_size"]
    refi = timing[_RAMULATOR_REFI[standard]]
    policy = Policy(
        "pools", reads, writes, 0, 0, int(c["wr_high_watermark"] * writes + 1e-6) + 1,
        -int(-(c["wr_low_watermark"] * writes - 1e-6) // 1), forward="before_room", merge_reads=False,
        write_done="issue", split_activate=lpddr, act_deadline=timing[28] if lpddr else 0,
        wck_read=timing[3] + timing[1] + timing[26] if sync else 0,
        wck_write=timing[11] + timing[1] + timing[26] if sync else 0,
        dual_bus=standard == "HBM2", split_pools=True,
    )  # fmt: skip
    return DramConfig(
        path.stem, timing[{"DDR4": 20, "LPDDR5": 30, "HBM2": 23}[standard]] / 1000, tx, len(controllers), count[1],
        count[2], count[3], map_fields(address_map), tuple(constraints), window[0], window[1], dram["read_latency"] + 1,
        timing[{"DDR4": 9, "LPDDR5": 11, "HBM2": 10}[standard]] + timing[1] + 1,
        Refresh(refi, refi - 1, count[1]), policy, None, (), f"{path.name}, Ramulator 2.1",
    )  # fmt: skip


def _ramulator_constraints(rows: list[list[Any]], names: list[str]) -> tuple[list[Constraint], tuple[int, int]]:
    """The constraint table by scope, and the activate window (clocks, activates).

    Levels: channel, rank or pseudo-channel, bank group, bank. A level constrains everything below it; a sibling
    constraint constrains the other units of its level. Distances of 0 or 1 hold by themselves: one command per clock.
    """
    out: list[Constraint] = []
    window = (0, 0)
    scopes = {0: ("rank", "other_rank"), 1: ("rank",), 2: ("group",), 3: ("bank",)}
    for level, before, after, cycles, *rest in rows:
        if rest and rest[0] > 1:
            window = (cycles, rest[0])
            continue
        where = ("other_rank",) if len(rest) > 1 and rest[1] else scopes[level]
        for b in before:
            for a in after:
                if cycles <= 1 and (names[b] in ("CAS_RD", "CAS_WR", "ACT2") or cycles <= 0):
                    continue
                at = ("rank",) if names[b] in ("REF", "PREA") and where[0] in ("group", "bank") else where
                out.extend(Constraint(s, names[b], names[a], cycles) for s in at)
    return out, window


# Clocks each command occupies the command bus (JESD209-4: ACT is two two-clock commands, so are column commands).
_LPDDR4_COMMAND_CYCLES = (("ACT", 4), ("PRE", 2), ("PREA", 2), ("RD", 4), ("WR", 4), ("REF", 2))


def read_dramsys(spec: Path, controller: Path, mapping: Path) -> DramConfig:
    """A DRAMSys memory specification, controller configuration and address mapping (LPDDR4)."""
    memory = json.loads(spec.read_text())["memspec"]
    mc = json.loads(controller.read_text())["mcconfig"]
    if memory["memoryType"] != "LPDDR4":
        raise ConfigError(f"{spec.name}: memoryType = {memory['memoryType']} is not modelled; only LPDDR4")
    arch, t = memory["memarchitecturespec"], memory["memtimingspec"]
    want = {"PagePolicy": ("Open",), "CmdMux": ("Oldest",), "RefreshPolicy": ("AllBank", "NoRefresh"),
            "PowerDownPolicy": ("NoPowerDown",), "Scheduler": ("FrFcfs", "GrpFrFcfsWm"),
            "SchedulerBuffer": ("Bankwise", "ReadWrite", "Shared"), 
            "RefreshMaxPostponed": (0,), "RefreshMaxPulledin": (0,)}  # fmt: skip
    for key, known in want.items():
        if key in mc and mc[key] not in known:
            listing = ", ".join(map(str, known))
            raise ConfigError(f"{controller.name}: {key} = {mc[key]!r} is not modelled; only {listing}")
    grouped = mc["Scheduler"] == "GrpFrFcfsWm"
    size = mc.get("RequestBufferSize", 8)
    kind = mc["SchedulerBuffer"]
    reads, writes = (mc.get(f"RequestBufferSize{d}", 8) if kind == "ReadWrite" else size for d in ("Read", "Write"))
    burst = arch["burstLength"] // arch["dataRate"]
    banks = arch["nbrOfBanks"]
    bytes_ = arch["burstLength"] * arch["width"] * arch["nbrOfDevices"] // 8
    policy = Policy(
        "bank_machines", reads, writes, size, 1 << 40, mc.get("HighWatermark", 0), mc.get("LowWatermark", 0),
        forward="never", merge_reads=False, write_done="data", split_pools=grouped,
        room={"Bankwise": "last_bank", "ReadWrite": "both",
        "Shared": "sum"}[kind], command_cycles=_LPDDR4_COMMAND_CYCLES,
    )  # fmt: skip
    refresh = Refresh(0 if mc["RefreshPolicy"] == "NoRefresh" else t["REFI"], t["REFI"], arch["nbrOfRanks"])
    return DramConfig(
        spec.stem, t["tCK"] / 1000, bytes_, arch["nbrOfChannels"], arch["nbrOfRanks"], 1, banks,
        _dramsys_map(json.loads(mapping.read_text())["addressmapping"], bits(bytes_)),
        tuple(_dramsys_constraints(t, burst)), t["FAW"], 4, t["RL"] + t["DQSCK"] + burst + 3,
        t["WL"] + t["DQSS"] + burst + 3, refresh, policy, None, (), f"{spec.name}, DRAMSys",
    )  # fmt: skip


def _dramsys_map(mapping: dict[str, list[int]], low: int) -> tuple[tuple[str, int], ...]:
    """Runs of address bits of one field, from bit `low` (the bits of a burst) upwards."""
    owner = {b: name for name, positions in mapping.items() for b in positions}
    names = {"COLUMN_BIT": "column", "BANK_BIT": "bank", "BANKGROUP_BIT": "group", "ROW_BIT": "row", "RANK_BIT": "rank",
             "CHANNEL_BIT": "channel", "BYTE_BIT": "byte"}  # fmt: skip
    runs: list[list[Any]] = []
    for b in range(low, max(owner) + 1):
        field = names[owner[b]]
        if runs and runs[-1][0] == field:
            runs[-1][1] += 1
        else:
            runs.append([field, 1])
    return tuple((f, n) for f, n in runs)


def _dramsys_constraints(t: dict[str, int], burst: int) -> list[Constraint]:
    """LPDDR4 command distances as DRAMSys counts them: from the end of one command's transmission where it does."""
    c = dict(_LPDDR4_COMMAND_CYCLES)
    read_pre = t["RTP"] + burst - 6
    write_pre = 2 + t["WL"] + 1 + burst + t["WR"]
    rows = [
        ("bank", "RD", "PRE", t["RRD"] + 2), ("rank", "RD", "PREA", read_pre), ("rank", "RD", "RD", t["CCD"]),
        ("rank", "RD", "WR", t["RL"] + t["DQSCK"] + burst - t["WL"] + t["WPRE"] + t["RPST"]),
        ("other_rank", "RD", "RD", burst + t["RTRS"]),
        ("other_rank", "RD", "WR", t["RL"] + burst + t["RTRS"] - t["WL"]),
        ("bank", "WR", "PRE", write_pre), ("rank", "WR", "PREA", write_pre), ("rank", "WR", "WR", t["CCD"]),
        ("rank", "WR", "RD", t["WL"] + 1 + burst + t["WTR"]), ("other_rank", "WR", "WR", burst + t["RTRS"]),
        ("other_rank", "WR", "RD", t["WL"] + burst + t["RTRS"] - t["RL"]),
        ("bank", "ACT", "PRE", t["RAS"] + 2), ("bank", "ACT", "RD", t["RCD"]), ("bank", "ACT", "WR", t["RCD"]),
        ("bank", "ACT", "ACT", t["RCPB"]), ("rank", "ACT", "PREA", t["RAS"] + 2), ("rank", "ACT", "ACT", t["RRD"]),
        ("rank", "ACT", "REF", t["RCPB"] + 2), ("bank", "PRE", "ACT", t["RPPB"] - 2), ("rank", "PRE", "PRE", t["PPD"]),
        ("rank", "PRE", "PREA", t["PPD"]), ("rank", "PRE", "REF", t["RPPB"]), ("rank", "PREA", "ACT", t["RPAB"] - 2),
        ("rank", "PREA", "REF", t["RPAB"]), ("rank", "REF", "ACT", t["RFCAB"] - 2), ("rank", "REF", "REF", t["RFCAB"]),
    ]  # fmt: skip
    bus = [(s, b, a, n) for s in ("rank", "other_rank") for b, n in c.items() for a in c]
    return [Constraint(*row) for row in rows + bus]
