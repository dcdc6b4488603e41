"""DRAM standards and controller presets from TOML files, as `DramConfig`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from npusim.config import read_toml
from npusim.engine.dram_config import Constraint, Currents, DramConfig, Policy, Refresh
from npusim.errors import ConfigError, closest, unknown

ORGANISATION = ("channels", "ranks", "bank_groups", "banks_per_group", "rows", "columns", "bus_bits", "device_bits",
                "burst_length", "burst_clocks")  # fmt: skip
TIMING = ("cl", "cwl", "ccd_s", "ccd_l", "rcd_rd", "rcd_wr", "rp", "rp_all", "ras", "rtp", "wr", "rrd_s", "rrd_l",
          "wtr_s", "wtr_l", "faw", "rtrs", "ppd", "rfc", "rfc_bank", "refi")  # fmt: skip
CURRENTS = ("vdd", "idd0", "idd2n", "idd3n", "idd4r", "idd4w", "idd5ab")
FLAGS = ("dual_bus", "split_activate")
OPTIONAL = (*FLAGS, "act_deadline", "wck_post", "row_command_clocks")
OPTIONAL_TIMING = ("rc",)
SECTIONS = ("organisation", "timing", "currents", "commands", "energy")
KEYS = ("name", "source", "tck_ns", "address_map", *SECTIONS)
FIELD_NAMES = {"ch": "channel", "ra": "rank", "pc": "rank", "bg": "group", "ba": "bank", "ro": "row", "co": "column"}


def data_files() -> dict[str, Path]:
    """Built-in files by name: standards, and controller presets as `controller-<name>`."""
    folder = Path(str(resources.files("npusim") / "data" / "dram"))
    return {p.stem: p for p in sorted(folder.glob("*.toml"))}


def standards() -> list[str]:
    """Names of the built-in standards."""
    return [n for n in data_files() if not n.startswith("controller-")]


def load_standard(
    name: str, controller: str = "dramsim3-like", channels: int = 0, ranks: int = 0, address_map: str = "",
    per_bank_refresh: bool = False, xor: tuple[tuple[str, int], ...] = (), bus_bits: int = 0,
) -> DramConfig:  # fmt: skip
    """A built-in standard, or the TOML file `name`, with a controller preset.

    `address_map` orders the fields from the least significant bit upwards, for example `bg-co-ba-ra-ch-ro`; `xor` XORs
    a field with the row's bits from the given one on. `channels`, `ranks` and `bus_bits` (of a channel) replace the
    file's.
    """
    files = data_files()
    path = files.get(name) or Path(name)
    if not path.is_file():
        raise unknown("DRAM standard", name, standards())
    raw = read_toml(path)
    _check(raw, path.name)
    org, t = dict(raw["organisation"]), raw["timing"]
    t = {**t, "rc": t.get("rc", t["ras"] + t["rp"])}
    org["channels"] = channels or org["channels"]
    org["ranks"] = ranks or org["ranks"]
    org["bus_bits"] = bus_bits or org["bus_bits"]
    if org["bus_bits"] % org["device_bits"]:
        raise ConfigError(f"{path.name}: bus_bits = {org['bus_bits']} is no multiple of organisation.device_bits = "
                          f"{org['device_bits']}")  # fmt: skip
    preset = files.get(f"controller-{controller}")
    if preset is None:
        known = [n.removeprefix("controller-") for n in files if n.startswith("controller-")]
        raise unknown("DRAM controller", controller, known)
    policy = dict(tomllib.loads(preset.read_text())["policy"])
    extra = raw.get("commands", {})
    policy |= {k: extra[k] for k in ("dual_bus", "split_activate", "act_deadline") if k in extra}
    if policy["kind"] == "pools":
        wck = extra.get("wck_post", 0) and extra["wck_post"] + org["burst_clocks"]
        policy |= {"wck_read": wck and t["cl"] + wck, "wck_write": wck and t["cwl"] + wck}
    else:
        policy["split_activate"] = False
    policy["per_clock"] = org["channels"] * (org["ranks"] if policy.get("dual_bus") else 1)
    interval = t["refi"] // org["ranks"]
    if per_bank_refresh:
        interval = t["refi"] // (org["ranks"] * org["bank_groups"] * org["banks_per_group"])
    devices = org["bus_bits"] // org["device_bits"]
    currents = None
    if "currents" in raw:
        idd3n, banks = raw["currents"]["idd3n"], org["bank_groups"] * org["banks_per_group"]
        one_bank = (raw["currents"]["idd5ab"] - idd3n) * t["rfc"] / (max(t["rfc_bank"], 1) * banks)
        currents = Currents(
            idd5pb=idd3n + one_bank, **{k: float(raw["currents"][k]) for k in CURRENTS}, devices=devices, t_rc=t["rc"],
            t_ras=t["ras"], t_rp=t["rp"], t_rfc=t["rfc"], t_rfcb=t["rfc_bank"], burst=org["burst_clocks"],
        )  # fmt: skip
    config = DramConfig(
        raw["name"], raw["tck_ns"], org["bus_bits"] // 8 * org["burst_length"], org["channels"], org["ranks"],
        org["bank_groups"], org["banks_per_group"], _order(address_map, raw, org, path),
        tuple(jedec_constraints(t | {"burst": org["burst_clocks"]}, org["bank_groups"])
              + _row_bus(extra.get("row_command_clocks", 1))),
        t["faw"], 4, t["cl"] + org["burst_clocks"], t["cwl"] + org["burst_clocks"],
        Refresh(interval, interval, 1, per_bank_refresh), Policy(**policy), currents, xor, raw["source"],
    )  # fmt: skip
    bad = config.verify()
    if bad:
        raise ConfigError(f"{path.name}: " + "; ".join(bad))
    return config


def _check(raw: Mapping[str, Any], file: str) -> None:
    """Report every missing, unknown and mistyped key, and every contradiction, together."""
    bad = [
        f"{k} is missing" for k in ("name", "source", "tck_ns", "address_map", "organisation", "timing") if k not in raw
    ]
    bad += [f"{k} is not a key{closest(k, KEYS)}" for k in raw if k not in KEYS]
    bad += [f"{k} = {raw[k]!r} must be a table" for k in SECTIONS if not isinstance(raw.get(k, {}), Mapping)]
    bad += [
        f"{k} = {raw[k]!r} must be text"
        for k in ("name", "source", "address_map")
        if not isinstance(raw.get(k, ""), str)
    ]
    if "tck_ns" in raw and (type(raw["tck_ns"]) not in (int, float) or not 0 < raw["tck_ns"] < 1e6):
        bad.append(f"tck_ns = {raw['tck_ns']!r} must be a number of nanoseconds, more than 0")
    for section, keys in (("organisation", ORGANISATION), ("timing", TIMING), ("currents", CURRENTS)):
        have = raw.get(section, {})
        if section not in raw or not isinstance(have, Mapping):
            continue
        bad += [f"{section}.{k} is missing" for k in keys if k not in have]
        allowed = (*keys, *OPTIONAL_TIMING) if section == "timing" else keys
        bad += [f"{section}.{k} is not a key{closest(k, allowed)}" for k in have if k not in allowed]
        number = (int, float) if section == "currents" else (int,)
        bad += [f"{section}.{k} = {v!r} must be a {'' if section == 'currents' else 'whole '}number, 0 or more"
                for k, v in have.items() if type(v) not in number or not 0 <= v < 2**31]  # fmt: skip
    commands = raw.get("commands", {})
    if isinstance(commands, Mapping):
        bad += [f"commands.{k} is not a key{closest(k, OPTIONAL)}" for k in commands if k not in OPTIONAL]
        for k, v in commands.items():
            if k in OPTIONAL and (type(v) is not (bool if k in FLAGS else int) or v < 0):
                what = "true or false" if k in FLAGS else "a whole number, 0 or more"
                bad.append(f"commands.{k} = {v!r} must be {what}")
    if not bad:
        bad = [*_organisation(raw), *_timing(raw), *_currents(raw)]
    if bad:
        raise ConfigError(f"{file}: " + "; ".join(bad))


def _organisation(raw: Mapping[str, Any]) -> list[str]:
    """Contradictions between sizes, the address map and the burst; each names both keys."""
    org = raw["organisation"]
    mapped = ("channels", "ranks", "bank_groups", "banks_per_group", "rows", "columns", "burst_length")
    bad = [
        f"organisation.{k} = {org[k]} is not a power of two, but address_map = {raw['address_map']!r} cuts addresses "
        "into fields of bits"
        for k in mapped
        if org[k] < 1 or org[k] & (org[k] - 1)
    ]
    if org["burst_length"] > org["columns"]:
        bad.append(f"organisation.burst_length = {org['burst_length']} is longer than a row of organisation.columns"
                   f" = {org['columns']}")  # fmt: skip
    if org["bus_bits"] < 8 or org["bus_bits"] & (org["bus_bits"] - 1):
        bad.append(f"organisation.bus_bits = {org['bus_bits']} must be a power of two, 8 or more")
    if not 1 <= org["device_bits"] <= org["bus_bits"] or org["bus_bits"] % max(org["device_bits"], 1):
        bad.append(f"organisation.bus_bits = {org['bus_bits']} is no multiple of organisation.device_bits"
                   f" = {org['device_bits']}")  # fmt: skip
    if not 1 <= org["burst_clocks"] <= org["burst_length"]:
        bad.append(f"organisation.burst_clocks = {org['burst_clocks']} must be from 1 to organisation.burst_length"
                   f" = {org['burst_length']}")  # fmt: skip
    return bad


def _timing(raw: Mapping[str, Any]) -> list[str]:
    """Contradictions between timings; each names both keys. 0 leaves tFAW, tRFC and tREFI out."""
    org, t = raw["organisation"], raw["timing"]
    bad = [
        f"timing.{low} = {t[low]} is less than timing.{high} = {t[high]}"
        for low, high in (
            ("ccd_l", "ccd_s"),
            ("rrd_l", "rrd_s"),
            ("wtr_l", "wtr_s"),
            ("ras", "rcd_rd"),
            ("rp_all", "rp"),
        )
        if t[low] < t[high]
    ]
    if "rc" in t and t["rc"] < t["ras"] + t["rp"]:
        bad.append(f"timing.rc = {t['rc']} is less than timing.ras = {t['ras']} + timing.rp = {t['rp']}")
    if t["ccd_s"] < org["burst_clocks"]:
        bad.append(f"timing.ccd_s = {t['ccd_s']} is less than organisation.burst_clocks = {org['burst_clocks']}: "
                   "bursts would overlap")  # fmt: skip
    if 0 < t["faw"] < t["rrd_s"]:
        bad.append(f"timing.faw = {t['faw']} is less than timing.rrd_s = {t['rrd_s']}")
    if 0 < t["refi"] <= t["rfc"]:
        bad.append(f"timing.refi = {t['refi']} is not more than timing.rfc = {t['rfc']}: no time would be left")
    return bad


def _currents(raw: Mapping[str, Any]) -> list[str]:
    """Currents by which an action would give energy back."""
    if "currents" not in raw:
        return []
    i, t = raw["currents"], raw["timing"]
    bad = [
        f"currents.{high} = {i[high]:g} is less than currents.{low} = {i[low]:g}"
        for high, low in (("idd3n", "idd2n"), ("idd4r", "idd3n"), ("idd4w", "idd3n"), ("idd5ab", "idd3n"))
        if i[high] < i[low]
    ]
    rc = t.get("rc", t["ras"] + t["rp"])
    if i["idd0"] * rc < i["idd3n"] * t["ras"] + i["idd2n"] * (rc - t["ras"]):
        bad.append(f"currents.idd0 = {i['idd0']:g} is less than the standby within it, currents.idd3n = {i['idd3n']:g} "
                   f"for timing.ras and currents.idd2n = {i['idd2n']:g} for timing.rp")  # fmt: skip
    return bad


def _order(given: str, raw: Mapping[str, Any], org: Mapping[str, int], path: Path) -> tuple[tuple[str, int], ...]:
    """The address map that was `given`, or the file's own."""
    try:
        return map_order(given or raw["address_map"], org)
    except ConfigError as error:
        raise ConfigError(str(error) if given else f"{path.name}: {error}") from None


def map_order(order: str, org: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """`co-bg-ba-ra-ch-ro` (least significant first) as (field, bits); `co3` gives a piece of 3 bits of a field."""
    sizes = {
        "channel": org["channels"], "rank": org["ranks"], "group": org["bank_groups"], "bank": org["banks_per_group"],
        "row": org["rows"], "column": org["columns"] // org["burst_length"],
    }  # fmt: skip
    left = {f: n.bit_length() - 1 for f, n in sizes.items()}
    out = []
    for part in order.split("-"):
        name, digits = part[:2], part[2:]
        if name not in FIELD_NAMES or (digits and not re.fullmatch("[0-9]{1,2}", digits)):
            known = ", ".join(FIELD_NAMES)
            raise ConfigError(f"address_map {order!r}: {part!r} is none of {known} (with bits, if split)")
        field = FIELD_NAMES[name]
        n = int(digits) if digits else left[field]
        left[field] -= n
        out.append((field, n))
    missing = [f for f, n in left.items() if n]
    if missing:
        raise ConfigError(f"address_map {order!r} does not hold all bits of {', '.join(missing)}")
    return tuple(out)


def _row_bus(clocks: int) -> list[Constraint]:
    """An activate that takes several clocks of the row command bus keeps every other row command off it."""
    rows = ("ACT", "PRE", "PREA", "REF", "REFB")
    return [Constraint(s, "ACT", a, clocks) for s in ("rank", "other_rank") for a in rows] if clocks > 1 else []


def jedec_constraints(t: Mapping[str, int], groups: int) -> list[Constraint]:
    """Command distances that follow from a data sheet's timing parameters, all in clocks.

    `burst` is the length of a burst; `rp_all` precharges all banks; `ppd` separates precharges, 0 if unconstrained.
    With one bank group the _S parameters hold everywhere. Read to write: the write burst starts `rtrs` after the
    read's end.
    """
    out: list[Constraint] = []
    both = {"RD": ("RD", "RDA"), "WR": ("WR", "WRA")}

    def add(scope: str, before: str, after: str, cycles: int) -> None:
        for b in both.get(before, (before,)):
            for a in both.get(after, (after,)):
                if not (b in ("RDA", "WRA") and a in ("PRE", "PREA")):
                    out.append(Constraint(scope, b, a, cycles))

    burst, rl, wl = t["burst"], t["cl"], t["cwl"]
    rc = t.get("rc", t["ras"] + t["rp"])
    long = "s" if groups == 1 else "l"
    for scope, s in (("bank", long), ("group", long), ("rank", "s")):
        add(scope, "RD", "RD", max(burst, t[f"ccd_{s}"]))
        add(scope, "WR", "WR", max(burst, t[f"ccd_{s}"]))
        add(scope, "RD", "WR", rl + burst - wl + t["rtrs"])
        add(scope, "WR", "RD", wl + burst + t[f"wtr_{s}"])
    add("other_rank", "RD", "RD", burst + t["rtrs"])
    add("other_rank", "WR", "WR", burst)
    add("other_rank", "RD", "WR", rl + burst + t["rtrs"] - wl)
    add("other_rank", "WR", "RD", wl + burst + t["rtrs"] - rl)
    write_pre = wl + burst + t["wr"]
    for scope, pre in (("bank", "PRE"), ("rank", "PREA")):
        add(scope, "RD", pre, t["rtp"])
        add(scope, "WR", pre, write_pre)
        add(scope, "ACT", pre, t["ras"])
    add("bank", "ACT", "ACT", rc)
    add("bank", "ACT", "RD", t["rcd_rd"])
    add("bank", "ACT", "WR", t["rcd_wr"])
    add("group", "ACT", "ACT", t[f"rrd_{long}"])
    add("rank", "ACT", "ACT", t["rrd_s"])
    for after in ("ACT", "REF", "REFB"):
        add("bank", "PRE", after, t["rp"])
        add("rank", "PREA", after, t["rp_all"])
        out.append(Constraint("bank", "RDA", after, t["rtp"] + t["rp"] + (burst if after == "ACT" else 0)))
        out.append(Constraint("bank", "WRA", after, write_pre + t["rp"]))
    if t["ppd"]:
        add("rank", "PRE", "PRE", t["ppd"])
        add("rank", "PRE", "PREA", t["ppd"])
    for after in ("ACT", "REF"):
        add("rank", "REF", after, t["rfc"])
    if t["rfc_bank"]:
        add("rank", "ACT", "REFB", t["rrd_s"])
        add("rank", "REFB", "ACT", t["rrd_s"])
        add("rank", "REFB", "REFB", t["rfc_bank"])
        add("rank", "REFB", "REF", t["rfc_bank"])
        add("bank", "REFB", "ACT", t["rfc_bank"])
    return out
