"""Read the configuration files of DRAMsim3 (.ini), Ramulator 2 (.yaml) and DRAMSys (.json) into a `DramConfig`.

Only what the files say is used, with each tool's own defaults for what they leave out; a feature the model does not
have is an error that names the key.
"""

from __future__ import annotations

import configparser
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from npusim.engine.dram_config import Constraint, Currents, DramConfig, Policy, Refresh
from npusim.engine.dram_standards import FIELD_NAMES, jedec_constraints
from npusim.errors import ConfigError

MIB = 1 << 20


def bits(n: int) -> int:
    """log2 of a power of two."""
    return n.bit_length() - 1


class _Ini:
    """Typed access to an .ini with DRAMsim3's defaults; comments start with # or ;. A key without a value is absent."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.parser = configparser.ConfigParser(inline_comment_prefixes=("#", ";"), interpolation=None)
        try:
            self.parser.read_string(path.read_text(encoding="utf-8"))
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{path.name}: {str(error).splitlines()[0]}") from None

    def get(self, section: str, key: str, default: str = "") -> str:
        return self.parser.get(section, key, fallback="") or default

    def wrong(self, section: str, key: str, allowed: str) -> ConfigError:
        return ConfigError(f"{self.name}, [{section}]: {key} = {self.get(section, key)} {allowed}")

    def integer(self, section: str, key: str, default: int, least: int = 0) -> int:
        text = self.get(section, key, str(default))
        if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < least:
            raise self.wrong(section, key, f"must be a whole number, {least} or more")
        return int(text)

    def power_of_two(self, section: str, key: str, default: int) -> int:
        value = self.integer(section, key, default, 1)
        if value & (value - 1):
            raise self.wrong(section, key, "must be a power of two: the address map cuts addresses into bits")
        return value

    def real(self, section: str, key: str, default: float) -> float:
        try:
            value = float(self.get(section, key, str(default)))
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e9:
            raise self.wrong(section, key, "must be a number, 0 or more")
        return value

    def flag(self, section: str, key: str, default: bool) -> bool:
        return self.choice(section, key, str(default).lower(), _TRUE + _FALSE, str.lower) in _TRUE

    def choice(
        self, section: str, key: str, default: str, known: tuple[str, ...], form: Callable[[str], str] = str
    ) -> str:
        value = form(self.get(section, key, default))
        if value not in known:
            raise self.wrong(section, key, f"is not modelled; only {', '.join(known)}")
        return value


_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_PROTOCOLS = ("DDR3", "DDR4", "LPDDR", "LPDDR3", "LPDDR4", "HBM", "HBM2")
_REFRESHES = ("RANK_LEVEL_STAGGERED", "RANK_LEVEL_SIMULTANEOUS", "BANK_LEVEL_STAGGERED")
_TIMING_DEFAULTS = {
    "AL": 0, "CL": 12, "CWL": 12, "tCCD_L": 6, "tCCD_S": 4, "tRTRS": 2, "tRTP": 5, "tWTR_L": 5, "tWTR_S": 5, "tWR": 10,
    "tRP": 10, "tRRD_L": 4, "tRRD_S": 4, "tRAS": 24, "tRCD": 10, "tRFC": 74, "tRFCb": 20, "tREFI": 7800, "tREFIb": 1950,
    "tFAW": 50, "tPPD": 0, "tRCDRD": 24, "tRCDWR": 20,
}  # fmt: skip


def read_dramsim3(path: Path) -> DramConfig:
    """A DRAMsim3 .ini with its controller: per-bank command queues, row-hit cap 4, write drain, staggered refresh.

    Keys that DRAMsim3 does not use are passed over, as it does; ConfigError names the key of what is not modelled.
    """
    ini = _Ini(path)
    protocol = ini.choice("dram_structure", "protocol", "DDR3", _PROTOCOLS)
    hbm = protocol.startswith("HBM")
    ini.choice("system", "queue_structure", "PER_BANK", ("PER_BANK",))
    ini.choice("system", "enable_self_refresh", "false", _FALSE, str.lower)
    groups = ini.power_of_two("dram_structure", "bankgroups", 2)
    per_group = ini.power_of_two("dram_structure", "banks_per_group", 2)
    if not ini.flag("dram_structure", "bankgroup_enable", True):
        groups, per_group = 1, groups * per_group
    rows = ini.power_of_two("dram_structure", "rows", 1 << 16)
    columns = ini.power_of_two("dram_structure", "columns", 1 << 10) * (2 if hbm else 1)
    width = ini.power_of_two("dram_structure", "device_width", 8)
    bl = ini.power_of_two("dram_structure", "BL", 8)
    if bl < 2 or bl > columns:
        raise ini.wrong("dram_structure", "BL", f"must be from 2 to the columns of a row, columns = {columns}")
    bus = ini.power_of_two("system", "bus_width", 64)
    if bus < max(width, 8):
        raise ini.wrong("system", "bus_width", f"must be 8 or more and at least device_width = {width}")
    channels = ini.power_of_two("system", "channels", 1)
    devices = bus // width
    mib_per_rank = columns * width // 8 * (rows // 1024) // 1024 * groups * per_group * devices
    size = ini.integer("system", "channel_size", 1024)
    ranks = 1 if mib_per_rank > size else size // max(mib_per_rank, 1)
    if mib_per_rank == 0 or ranks & (ranks - 1):
        raise ini.wrong(
            "system", "channel_size", f"must be a power of two of ranks; a rank has {mib_per_rank} MiB (rows, columns)"
        )
    t = _dramsim3_timing(ini, groups)
    t["burst"] = bl // 2
    widths = {"ch": bits(channels), "ra": bits(ranks), "bg": bits(groups), "ba": bits(per_group), "ro": bits(rows),
              "co": bits(columns) - bits(bl)}  # fmt: skip
    order = re.findall("..", ini.get("system", "address_mapping", "chrobabgraco"))
    if sorted(order) != sorted(widths):
        raise ini.wrong("system", "address_mapping", f"must hold each of {', '.join(widths)} once")
    ref = ini.choice("system", "refresh_policy", _REFRESHES[0], _REFRESHES)
    intervals = {"RANK_LEVEL_STAGGERED": t["tREFI"] // ranks, "RANK_LEVEL_SIMULTANEOUS": t["tREFI"]}
    interval = intervals.get(ref, t["tREFIb"])
    if interval < 1:
        raise ini.wrong("timing", "tREFIb" if ref not in intervals else "tREFI", f"leaves no time between refreshes "
                        f"({ranks} ranks)")  # fmt: skip
    trans = ini.integer("system", "trans_queue_size", 32, 1)
    policy = Policy(
        "bank_queues", trans, trans, ini.integer("system", "cmd_queue_size", 16, 1), 4, trans, 8,
        ini.flag("system", "unified_queue", False),
        ini.choice("system", "row_buf_policy", "OPEN_PAGE", ("OPEN_PAGE", "CLOSE_PAGE")) == "CLOSE_PAGE",
        dual_bus=hbm and ini.flag("dram_structure", "hbm_dual_cmd", True),
    )  # fmt: skip
    return DramConfig(
        path.stem, ini.real("timing", "tCK", 1.0), bus // 8 * bl, channels, ranks, groups, per_group,
        tuple((FIELD_NAMES[f], widths[f]) for f in reversed(order)), tuple(_dramsim3_constraints(t, hbm, groups,
        protocol)), t["tFAW"], 4, t["AL"] + t["CL"] + t["burst"], t["AL"] + t["CWL"] + t["burst"],
        Refresh(interval, interval, 1, ref == "BANK_LEVEL_STAGGERED", ref == "RANK_LEVEL_STAGGERED"),
        policy, _dramsim3_currents(ini, t, devices), (), f"{path.name}, DRAMsim3",
    )  # fmt: skip


def _dramsim3_timing(ini: _Ini, groups: int) -> dict[str, int]:
    """The [timing] section; ConfigError when a distance within a bank group is less than one between groups."""
    t = {k: ini.integer("timing", k, v) for k, v in _TIMING_DEFAULTS.items()}
    for key in ("tCCD", "tRRD", "tWTR"):
        if groups > 1 and t[f"{key}_L"] < t[f"{key}_S"]:
            raise ini.wrong("timing", f"{key}_L", f"must not be less than {key}_S = {t[f'{key}_S']}")
    if t["tRCD"] < t["AL"]:
        raise ini.wrong("timing", "tRCD", f"must not be less than AL = {t['AL']}")
    return t


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
    """The YAML that Ramulator writes: block mappings and sequences, lists of numbers also in brackets; nothing else."""
    lines = [(len(r) - len(r.lstrip(" ")), r.strip()) for r in text.splitlines() if r.strip() and r.strip()[0] != "#"]
    value, end = _yaml_block(lines, 0)
    if end != len(lines):
        raise ConfigError(f"YAML line {end + 1} of {len(lines)}: unexpected indentation")
    return value


def _yaml_scalar(word: str) -> Any:
    if word.startswith("["):
        return json.loads(word)
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
_RAMULATOR_CONTROLLERS = {"DDR4": ("GenericDDR",), "LPDDR5": ("LPDDR5",), "HBM2": ("HBM12", "GenericDDR")}
_RAMULATOR_REFI = {"DDR4": 18, "LPDDR5": 24, "HBM2": 21}
_RAMULATOR_RFC = {"DDR4": 17, "LPDDR5": 22, "HBM2": 18}
_PREFETCH = {"DDR4": 8, "LPDDR5": 16, "HBM2": 4}


def map_fields(text: str) -> tuple[tuple[str, int], ...]:
    """`bg2-co7-ba2-ro16` (least significant first) as (field, bits)."""
    pairs = [re.fullmatch(r"([a-z]+)(\d+)", part) for part in text.split("-")]
    if any(p is None or p[1] not in FIELD_NAMES for p in pairs):
        raise ConfigError(f"address map {text!r}: fields are {', '.join(FIELD_NAMES)} with their number of bits")
    return tuple((FIELD_NAMES[p[1]], int(p[2])) for p in pairs if p)


def read_ramulator(path: Path, address_map: str) -> DramConfig:
    """A Ramulator 2.1 system description; the address map is not part of it (the front end applies it)."""
    try:
        return _ramulator(path, address_map)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"{path.name}: not a system description of Ramulator 2.1: {error!r}") from None


def _ramulator(path: Path, address_map: str) -> DramConfig:
    memory = read_yaml(path.read_text(encoding="utf-8"))["memory_system"]
    controllers = memory["controllers"]
    c = controllers[0]
    dram = c["dram"]
    standard = dram["impl"]
    if standard not in _RAMULATOR_REFI:
        raise ConfigError(f"{path.name}: dram impl {standard!r}; known: {', '.join(_RAMULATOR_REFI)}")
    _ramulator_known(path.name, standard, controllers, memory["channel_mapper"]["impl"])
    names = _RAMULATOR_COMMANDS[standard]
    count = dram["org"]["count"]
    timing = dram["timing"]
    constraints, window = _ramulator_constraints(dram["timing_constraints"], names)
    tx = _PREFETCH[standard] * dram["channel_width"] // 8
    lpddr = standard == "LPDDR5"
    sync = lpddr and c.get("wck_sync_mode", "need_sync") == "need_sync"
    reads, writes = c["read_buffer_size"], c["write_buffer_size"]
    refi = timing[_RAMULATOR_REFI[standard]]
    # Ramulator multiplies in single precision: 0.15 of 200 entries are more than 30.
    low, high = (float(np.float32(c[f"wr_{end}_watermark"]) * np.float32(writes)) for end in ("low", "high"))
    policy = Policy(
        "pools", reads, writes, 0, 0, math.floor(high) + 1, math.ceil(low), forward="before_room", merge_reads=False,
        write_done="issue", split_activate=lpddr, act_deadline=timing[28] if lpddr else 0,
        wck_read=timing[3] + timing[1] + timing[26] if sync else 0,
        wck_write=timing[11] + timing[1] + timing[26] if sync else 0,
        dual_bus=c["impl"] == "HBM12", split_pools=True,
    )  # fmt: skip
    return DramConfig(
        path.stem, timing[{"DDR4": 20, "LPDDR5": 30, "HBM2": 23}[standard]] / 1000, tx, len(controllers), count[1],
        count[2], count[3], map_fields(address_map), tuple(constraints), window[0], window[1], dram["read_latency"] + 1,
        timing[{"DDR4": 9, "LPDDR5": 11, "HBM2": 10}[standard]] + timing[1] + 1,
        Refresh(refi, refi - 1, count[1]), policy, None, (), f"{path.name}, Ramulator 2.1",
    )  # fmt: skip


def _ramulator_known(name: str, standard: str, controllers: list[dict[str, Any]], channel_mapper: str) -> None:
    """ConfigError for what would change Ramulator's run and is not modelled."""
    c = controllers[0]
    for key, found, want in (
        ("controller", c["impl"], _RAMULATOR_CONTROLLERS[standard]), ("channel_mapper", channel_mapper,
        ("PassThroughChannelMapper",)), ("addr_mapper", c["addr_mapper"]["impl"], ("PassThroughAddrMapper",)),
        ("scheduler", c["scheduler"]["impl"], ("FRFCFS-RowHit",)), ("row_policy", c["row_policy"]["impl"], ("Open",)),
        ("refresh_manager", c["refresh_manager"]["impl"], ("AllBank",)),
        ("scatter_interval", c["refresh_manager"].get("scatter_interval", 0), (0,)),
        ("wck_sync_mode", c.get("wck_sync_mode", "need_sync"), ("need_sync", "always_on")),
        ("controller_plugins", c.get("controller_plugins") or None, (None,)),
    ):  # fmt: skip
        if found not in want:
            raise ConfigError(f"{name}: {key} {found!r} is not modelled; only {' and '.join(map(str, want))}")
    if any(other != c for other in controllers[1:]):
        raise ConfigError(f"{name}: controllers that differ from each other are not modelled")
    if not 0 < c["wr_low_watermark"] <= c["wr_high_watermark"]:
        low, high = c["wr_low_watermark"], c["wr_high_watermark"]
        raise ConfigError(f"{name}: wr_low_watermark = {low}: must be above 0, at most wr_high_watermark = {high}")
    refi, rfc = (c["dram"]["timing"][place[standard]] for place in (_RAMULATOR_REFI, _RAMULATOR_RFC))
    if refi <= rfc:
        raise ConfigError(f"{name}: nREFI = {refi}: must be more than nRFC = {rfc}, or only refreshes would issue")
    names = _RAMULATOR_COMMANDS[standard]
    for _, before, _, cycles, *_ in c["dram"]["timing_constraints"]:
        if cycles > 1 and any(names[b] in ("CAS_RD", "CAS_WR", "ACT2") for b in before):
            raise ConfigError(f"{name}: {cycles} clocks after a {names[before[0]]} are not modelled; at most 1")


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
    try:
        return _dramsys(spec, controller, mapping)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        names = ", ".join(path.name for path in (spec, controller, mapping))
        raise ConfigError(f"one of {names} is not a configuration of DRAMSys 5: {error!r}") from None


def _dramsys(spec: Path, controller: Path, mapping: Path) -> DramConfig:
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
