"""Scaling of energy and area between technology nodes (Stillmaker and Baas, 2017)."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from npusim.errors import ConfigError

RULE = "stillmaker-baas"
DATA = Path(__file__).resolve().parents[1] / "data" / "energy" / "stillmaker_baas.csv"


def energy_factor(from_nm: float, to_nm: float) -> float:
    """Energy at `to_nm` over energy at `from_nm` for the same circuit, each at the supply the data file gives."""
    return _at(to_nm, _energy) / _at(from_nm, _energy)


def area_factor(from_nm: float, to_nm: float) -> float:
    """Area at `to_nm` over area at `from_nm` for the same circuit."""
    return _at(to_nm, _area) / _at(from_nm, _area)


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
