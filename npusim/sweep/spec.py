"""The description of a sweep: what is fixed, what varies, what is allowed, what counts.

    name = "pe-buffer"                       objectives = ["cycles", "energy_pj", "area_mm2"]
    [fixed]        one value for every point
    [grid]         every combination of these axes
    [[linked]]     axes of one such table move together
    [random]       samples = 100, seed = 0, and [random.keys]: draws, combined with the grid
    [[points]]     single points besides
    [constraints]  "<= 5", ">= 64KiB": points outside are left out

Keys: those of a run (workload, hardware, dataflow, method, input_size, batch, energy, engine, objective, mapping),
every key of a machine.
Values: see `npusim.sweep.axes`. All mistakes of a file are reported together.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from random import Random
from typing import Annotated, Any

from pydantic import Field

from npusim import config
from npusim.config import Model
from npusim.errors import ConfigError, closest
from npusim.sweep import axes
from npusim.sweep.axes import Axis, Interval
from npusim.sweep.metrics import METRICS

MAX_POINTS = 1_000_000
DEFAULTS = {"hardware": "edge-16x16", "dataflow": "dense-os", "engine": "fast"}
# What a constraint may limit, and the unit its numbers may carry.
LIMITS = {"area_mm2": "", "sram_bytes": "bytes", "pes": "", "peak_macs_per_s": ""}
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq,
}  # fmt: skip


class _Random(Model):
    """Points drawn at random, each combined with the whole grid.

    samples  how many draws
    seed     the same seed draws the same points
    keys     key and interval of everything that is drawn
    """

    samples: Annotated[int, Field(ge=1, le=MAX_POINTS)]
    seed: Annotated[int, Field(ge=0)] = 0
    keys: dict[str, Any]


class _File(Model):
    """The description of a sweep.

    name         of the store and the pages
    description  in a few words
    objectives   what the Pareto front is of, one to three
    baseline     the dataflow that speedups are held against, at otherwise equal keys
    timeout_s    of one point, in seconds
    fixed        key and value, for every point
    grid         key and values; every combination becomes a point
    linked       tables of keys and value lists of equal length, which move together
    points       single points besides, as tables of keys and values
    constraints  quantity and limit, such as area_mm2 = "<= 8"; machines outside are left out
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    description: str = ""
    objectives: list[str] = Field(default=["cycles", "energy_pj", "area_mm2"])
    baseline: str = "dense-os"
    timeout_s: Annotated[float, Field(gt=0, le=10**7)] = 600.0
    fixed: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Any] = Field(default_factory=dict)
    linked: list[dict[str, Any]] = Field(default_factory=list)
    random: _Random | None = None
    points: list[dict[str, Any]] = Field(default_factory=list)
    constraints: dict[str, str | list[str]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Limit:
    """`quantity` of a machine compared with a number."""

    quantity: str
    sign: str
    number: float

    def holds(self, value: float) -> bool:
        return _OPERATORS[self.sign](value, self.number)

    def __str__(self) -> str:
        return f"{self.quantity} {self.sign} {self.number:.12g}"


@dataclass(frozen=True)
class Spec:
    """A sweep, understood. `axes` are combined; `intervals` are drawn `samples` times, or searched."""

    name: str
    fixed: Mapping[str, Any]
    axes: tuple[Axis, ...] = ()
    intervals: tuple[Interval | Axis, ...] = ()
    samples: int = 0
    seed: int = 0
    points: tuple[Mapping[str, Any], ...] = ()
    limits: tuple[Limit, ...] = ()
    objectives: tuple[str, ...] = ("cycles", "energy_pj", "area_mm2")
    baseline: str = "dense-os"
    timeout_s: float = 600.0
    description: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that varies, in the order of the description."""
        named = [key for axis in self.axes for key in axis.keys]
        for item in self.intervals:
            named += item.keys if isinstance(item, Axis) else [item.key]
        named += [key for point in self.points for key in point]
        return tuple(dict.fromkeys(named))

    def count(self) -> int:
        """How many points there are, before constraints."""
        total = 1
        for axis in self.axes:
            total *= len(axis)
        combined = bool(self.axes or self.intervals)
        return (total * (self.samples if self.intervals else 1) if combined or not self.points else 0) + len(
            self.points
        )

    def all_points(self) -> Iterable[dict[str, Any]]:
        """Every point as full key -> value, fixed keys included; the same order every time."""
        base = {**DEFAULTS, **self.fixed}
        if self.axes or self.intervals or not self.points:
            for drawn in self._draws():
                for combination in product(*(axis.values for axis in self.axes)):
                    point = {**base, **drawn}
                    for axis, entry in zip(self.axes, combination, strict=True):
                        point.update(zip(axis.keys, entry, strict=True))
                    yield point
        for extra in self.points:
            yield {**base, **extra}

    def _draws(self) -> Iterable[dict[str, Any]]:
        random = Random(self.seed)
        for _ in range(self.samples if self.intervals else 1):
            drawn: dict[str, Any] = {}
            for item in self.intervals:
                if isinstance(item, Axis):
                    drawn.update(zip(item.keys, random.choice(item.values), strict=True))
                else:
                    drawn[item.key] = item.draw(random)
            yield drawn


def load(path: str | Path) -> Spec:
    """The sweep that a TOML file describes."""
    return parse(config.read_toml(path), str(path))


def parse(data: Mapping[str, Any], where: str = "sweep") -> Spec:
    """The sweep that `data` (the tables of such a file) describes; one ConfigError lists every mistake."""
    file = config.validate(_File, data, where)
    reader = _Reader()
    fixed = {key: value for key, value in reader.single("fixed", file.fixed).items()}
    found = [axis for key, written in _flat(file.grid) if (axis := reader.axis("grid", key, written))]
    found += [axis for i, group in enumerate(file.linked) if (axis := reader.linked(f"linked.{i + 1}", group))]
    drawn: list[Interval | Axis] = []
    if file.random is not None:
        drawn = [item for key, written in _flat(file.random.keys) if (item := reader.drawn(key, written))]
        if not file.random.keys:
            reader.problems.append("random.keys: no key is drawn")
    points = tuple(reader.single(f"points.{i + 1}", table) for i, table in enumerate(file.points))
    limits = tuple(limit for key, texts in file.constraints.items() for limit in reader.limits(key, texts))
    reader.objectives(file.objectives)
    reader.once(found, drawn, fixed)
    sweep = Spec(
        file.name, fixed, tuple(found), tuple(drawn), file.random.samples if file.random else 0,
        file.random.seed if file.random else 0, points, limits, tuple(file.objectives), file.baseline,
        file.timeout_s, file.description, dict(data),
    )  # fmt: skip
    if "workload" not in {*fixed, *sweep.keys} and not reader.problems:
        reader.problems.append("workload: missing; name one in [fixed] or [grid]")
    if not reader.problems and sweep.count() > MAX_POINTS:
        reader.problems.append(f"{sweep.count():,} points are more than {MAX_POINTS:,}; use [random] or --search")
    if reader.problems:
        count = "1 problem" if len(reader.problems) == 1 else f"{len(reader.problems)} problems"
        raise ConfigError("\n  ".join([f"{where}: {count}", *reader.problems]))
    return sweep


class _Reader:
    """Reads tables of keys; problems are collected, not raised."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def single(self, where: str, table: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for key, written in _flat(table):
            try:
                full = axes.full_key(key)
                found[full] = axes.value(full, written)
            except ConfigError as error:
                self.problems.append(f"{where}: {error}")
        return found

    def axis(self, where: str, key: str, written: Any) -> Axis | None:
        try:
            full = axes.full_key(key)
            return Axis((full,), tuple((value,) for value in axes.values(full, written)))
        except ConfigError as error:
            self.problems.append(f"{where}: {error}")
            return None

    def drawn(self, key: str, written: Any) -> Interval | Axis | None:
        try:
            full = axes.full_key(key)
            parsed = axes.parse(full, written)
        except ConfigError as error:
            self.problems.append(f"random.keys: {error}")
            return None
        return parsed if isinstance(parsed, Interval) else Axis((full,), tuple((value,) for value in parsed))

    def linked(self, where: str, table: Mapping[str, Any]) -> Axis | None:
        parts = [self.axis(where, key, written) for key, written in _flat(table)]
        known = [part for part in parts if part is not None]
        if len(known) != len(parts) or not parts:
            return None
        if len({len(part) for part in known}) != 1:
            lengths = ", ".join(f"{part.keys[0]} has {len(part)}" for part in known)
            self.problems.append(f"{where}: keys that move together need equally many values: {lengths}")
            return None
        keys = tuple(part.keys[0] for part in known)
        return Axis(
            keys, tuple(tuple(entry[0] for entry in row) for row in zip(*(p.values for p in known), strict=True))
        )

    def limits(self, key: str, texts: str | list[str]) -> list[Limit]:
        found = []
        for text in [texts] if isinstance(texts, str) else texts:
            match = re.fullmatch(r"\s*(<=|>=|==|<|>)\s*(.+?)\s*", text)
            if key not in LIMITS:
                self.problems.append(
                    f"constraints.{key}: unknown{closest(key, list(LIMITS))}; allowed: {', '.join(LIMITS)}"
                )
            elif match is None:
                self.problems.append(f'constraints.{key} = {text!r}: write a comparison, for example "<= 5"')
            else:
                try:
                    found.append(Limit(key, match[1], _amount(match[2], LIMITS[key])))
                except ValueError as error:
                    self.problems.append(f"constraints.{key} = {text!r}: {error}")
        return found

    def objectives(self, names: list[str]) -> None:
        if not 1 <= len(names) <= 3:
            self.problems.append(f"objectives: one to three, not {len(names)}")
        for name in names:
            if name not in METRICS:
                self.problems.append(
                    f"objectives: unknown {name!r}{closest(name, list(METRICS))}; known: {', '.join(METRICS)}"
                )

    def once(self, found: list[Axis], drawn: list[Interval | Axis], fixed: Mapping[str, Any]) -> None:
        keys = [key for axis in found for key in axis.keys]
        keys += [key for item in drawn for key in (item.keys if isinstance(item, Axis) else (item.key,))]
        keys += list(fixed)
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            self.problems.append(f"{key}: given in more than one place")


def _amount(text: str, unit: str) -> float:
    if unit and not re.fullmatch(r"[\d.]+", text):
        return config.quantity(text, unit)
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number") from None


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested tables: `array.rows` may be written with or without quotes."""
    found: list[tuple[str, Any]] = []
    for key, written in table.items():
        found += _flat(written, f"{prefix}{key}.") if isinstance(written, Mapping) else [(prefix + key, written)]
    return found
