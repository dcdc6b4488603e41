"""Scaling of energy and area between technology nodes (Stillmaker and Baas, 2017)."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

from npusim.errors import ConfigError

RULE = "stillmaker-baas"
DATA = Path(__file__).resolve().parents[1] / "data" / "energy" / "stillmaker_baas.csv"


def energy_factor(from_nm: float, to_nm: float) -> float:
    """Energy at `to_nm` over energy at `from_nm` for the same circuit, each at the supply the data file gives."""
    return _at(to_nm, _energy) / _at(from_nm, _energy)


def area_factor(from_nm: float, to_nm: float) -> float:
    """Area at `to_nm` over area at `from_nm` for the same circuit."""
    return _at(to_nm, _area) / _at(from_nm, _area)


def table(data: dict[str, Any], to_nm: float) -> tuple[dict[str, Any], str]:
    """An energy table as read from its file with the prices of logic scaled to another node, and what was done.

    Groups mac, adder, vector, register_byte, index_decode, mux_bit, clock and control; their sources say so and none
    keeps high confidence. Leakage per area, shares, SRAM rules, crossbars and DRAM stay as they are.
    """
    from_nm = data["node_nm"]
    energy, area = energy_factor(from_nm, to_nm), area_factor(from_nm, to_nm)
    done = f"x{energy:.3g} energy, x{area:.3g} area (Stillmaker-Baas 2017, {from_nm:g} to {to_nm:g} nm)"
    scaled = deepcopy(data)
    for row in _rows(scaled):
        for key, value in row.items():
            if isinstance(value, int | float):
                row[key] = value * (energy if "pj" in key else area if "um2" in key else 1)
        row["source"] = f"{done} of: {row['source']}"
        row["confidence"] = "medium" if row["confidence"] == "high" else row["confidence"]
    return scaled, f"logic scaled: {done}"


def _rows(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in ("mac", "adder", "vector"):
        yield from data.get(group, {}).values()
    for name in ("register_byte", "index_decode", "mux_bit", "clock", "control"):
        if name in data:
            yield data[name]


def _energy(row: dict[str, str]) -> float:
    volts = float(row["vdd_v"])
    return float(row["energy_a2"]) * volts**2 + float(row["energy_a1"]) * volts + float(row["energy_a0"])


def _area(row: dict[str, str]) -> float:
    return float(row["area_relative_to_45"])


def _at(node_nm: float, value: Callable[[dict[str, str]], float]) -> float:
    """`value` of the table's rows at a node, interpolated in log(node), log(value)."""
    with DATA.open(encoding="utf-8", newline="") as file:
        points = sorted((float(row["node_nm"]), value(row)) for row in csv.DictReader(file))
    if not points[0][0] <= node_nm <= points[-1][0]:
        raise ConfigError(
            f"node_nm = {node_nm:g}: Stillmaker-Baas scaling covers {points[0][0]:g} to {points[-1][0]:g} nm"
        )
    for (low, at_low), (high, at_high) in pairwise(points):
        if node_nm <= high:
            share = math.log(node_nm / low) / math.log(high / low)
            return math.exp((1 - share) * math.log(at_low) + share * math.log(at_high))
    raise AssertionError("unreachable")
