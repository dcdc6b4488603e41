"""Prices from an Accelergy energy reference table (ERT.yaml), in a user's energy table:

    base = "generic-45nm"
    [accelergy]
    file = "ERT.yaml"                        # beside this table
    source = "Accelergy 0.4, our plug-ins, 45 nm"
    confidence = "medium"
    [accelergy.prices]                       # key of npusim = an action of the ERT, and the bits that it moves
    'mac."int16+int32"' = { action = "mac.compute" }
    'register_byte' = { action = "pe_spad.write", bits = 16 }
    'sram.a.read' = { action = "shared_glb.read", bits = 64 }
    'sram.a.leak' = { action = "shared_glb.leak", ns = 1.0 }
    'dram.LPDDR4' = { action = "DRAM.read", bits = 64 }

A component is named by its last part or in full, with or without its range of instances. An action whose energy depends
on `arguments` needs them. Energies are pJ. What the table says itself wins over what it takes from the ERT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from npusim import config
from npusim.errors import ConfigError, closest

MAX_FILE_BYTES = 2**22
MAX_VALUES = 2**20
ACTIONS, ONE = ("mac", "adder", "vector"), ("register_byte", "index_decode", "mux_bit")
BUFFERS, WAYS = ("a", "b", "accumulator", "mask"), ("read", "write", "leak")
ALLOWED = (
    'mac."<format>", adder.<format>, vector.<format>, register_byte, index_decode, mux_bit, dram.<standard>, '
    "sram.<a, b, accumulator or mask>.<read, write or leak>"
)


class Reference(config.Model):
    """An action of the ERT. `bits`: what one action moves; `ns`: the cycle that a leakage energy is counted for."""

    action: Annotated[str, Field(min_length=3)]
    bits: Annotated[int, Field(ge=1, le=2**20)] = 0
    ns: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    arguments: dict[str, int | float | str] = Field(default_factory=dict)


class Section(config.Model):
    """The section [accelergy] of an energy table."""

    file: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    confidence: Literal["high", "medium", "low"]
    prices: dict[str, Reference]


def overlay(section: Any, path: Path) -> dict[str, Any]:
    """The part of an energy table that [accelergy] of the file `path` stands for; ConfigError lists what is wrong."""
    asked = config.validate(Section, section, f"{path}, section [accelergy]")
    ert = _tables(path.parent / asked.file)
    found: dict[str, Any] = {}
    problems = []
    for key, reference in asked.prices.items():
        try:
            component, pj = _energy(ert, reference)
            place, value = _placed(key, reference, pj)
        except ConfigError as error:
            problems.append(f"accelergy.prices.{key}: {error}")
            continue
        node = found
        for part in place[:-1]:
            node = node.setdefault(part, {})
        node[place[-1]] = value
        said = f"Accelergy ERT {asked.file}, {component}.{reference.action.rpartition('.')[2]}: {asked.source}"
        node["source"] = f"{node['source']}; {said}" if "source" in node else said
        node["confidence"] = asked.confidence
    if problems:
        raise ConfigError("\n  ".join([f"{path}: {len(problems)} problems with [accelergy]:", *problems]))
    return found


def _placed(key: str, reference: Reference, pj: float) -> tuple[list[str], float]:
    """Path in the energy table and value there, in its unit."""
    group, _, rest = key.partition(".")
    name = rest.strip("\"'")
    if group in ACTIONS and name:
        return [group, name, "pj"], pj
    if key in ONE:
        per_bit = 1 if key == "index_decode" else (8 if key == "register_byte" else 1) / _bits(reference)
        return [key, "pj"], pj * per_bit
    if group == "dram" and name:
        return ["dram", name, "pj_per_bit"], pj / _bits(reference)
    buffer, _, way = rest.partition(".")
    if group == "sram" and buffer in BUFFERS and way in WAYS:
        if way == "leak":
            if not reference.ns:
                raise ConfigError("leakage needs ns, the length of the cycle that its energy is for")
            return ["sram", "buffers", buffer, "leakage_mw"], pj / reference.ns
        return ["sram", "buffers", buffer, f"{way}_pj_per_byte"], 8 * pj / _bits(reference)
    raise ConfigError(f"is no price of npusim; known: {ALLOWED}")


def _bits(reference: Reference) -> int:
    if not reference.bits:
        raise ConfigError(f"{reference.action} needs bits, how many one action moves")
    return reference.bits


def _energy(ert: Mapping[str, list[Any]], reference: Reference) -> tuple[str, float]:
    """Component as the ERT names it, and pJ of the action; ConfigError lists what there is."""
    wanted, _, action = reference.action.rpartition(".")
    matches = [name for name in ert if wanted in (name, _bare(name), _bare(name).rpartition(".")[2])]
    if len(matches) != 1:
        names = [_bare(name).rpartition(".")[2] for name in ert]
        if matches:
            raise ConfigError(f"component {wanted!r} is ambiguous: {', '.join(matches)}")
        raise ConfigError(f"the ERT has no component {wanted!r}{closest(wanted, names)}; it has: {', '.join(ert)}")
    rows = [row for row in ert[matches[0]] if isinstance(row, Mapping) and row.get("name") == action]
    if not rows:
        names = list(dict.fromkeys(str(row.get("name")) for row in ert[matches[0]] if isinstance(row, Mapping)))
        raise ConfigError(f"{matches[0]} has no action {action!r}{closest(action, names)}; it has: {', '.join(names)}")
    fitting = [row for row in rows if _arguments(row).items() >= reference.arguments.items()]
    given = [row.get("energy") for row in fitting]
    if not all(isinstance(energy, (int, float, str, type(None))) for energy in given):
        raise ConfigError(f"{matches[0]}.{action}: energy must be a number of pJ, 0 or more")
    energies = set(given)
    if len(energies) != 1:
        options = "; ".join(f"{_arguments(row)} {row.get('energy')} pJ" for row in rows)
        raise ConfigError(f"{matches[0]}.{action} has several energies, choose by arguments: {options}")
    (energy,) = energies
    pj = _number(energy)
    if pj is None:
        raise ConfigError(f"{matches[0]}.{action}: energy = {energy!r} must be a number of pJ, 0 or more")
    return matches[0], pj


def _arguments(row: Mapping[str, Any]) -> dict[str, Any]:
    found = row.get("arguments")
    return dict(found) if isinstance(found, Mapping) else {}


def _number(value: Any) -> float | None:
    """A number of pJ; YAML takes 1e-05, without a point, for text."""
    try:
        found = float(value) if type(value) in (int, float, str) else -1.0
    except ValueError:
        return None
    return found if 0 <= found < 1e12 else None


def _bare(name: str) -> str:
    """A component's name without ranges of instances: 'system.PE[0..3].mac[1..2]' is 'system.PE.mac'."""
    return re.sub(r"\[[^\]]*\]", "", name)


def _at_most(data: Any, count: int) -> bool:
    """Whether `data` has at most so many values, those that aliases repeat counted every time."""
    waiting = [data]
    while waiting and count >= 0:
        value = waiting.pop()
        count -= 1
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, set, tuple)) else ()
        count -= len(inside) if len(inside) > count else 0
        waiting += inside if count >= 0 else ()
    return count >= 0


def _tables(path: Path) -> dict[str, list[Any]]:
    """Component -> its actions; ConfigError when `path` is no ERT."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigError('an Accelergy ERT needs PyYAML: pip install "npusim[accelergy]"') from None
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # a null character in its name
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes, the limit for an ERT")
    try:
        data = yaml.safe_load(raw)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not _at_most(data, MAX_VALUES):
        raise ConfigError(f"{path}: more than {MAX_VALUES} values when its aliases are followed, the limit for an ERT")
    tables = data.get("ERT", {}).get("tables") if isinstance(data, dict) and isinstance(data.get("ERT"), dict) else None
    if not isinstance(tables, list):
        raise ConfigError(f"{path}: not an Accelergy ERT: there is no list ERT.tables")
    found = {str(t["name"]): t.get("actions") for t in tables if isinstance(t, dict) and "name" in t}
    return {name: actions for name, actions in found.items() if isinstance(actions, list)}
