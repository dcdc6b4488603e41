"""Measured against simulated, row by row: what every validation returns, and how a table of measurements is read.

A validation is a module of this package with `validate(path, configs) -> Validation`. `configs` is the folder of the
measurement's configuration files, for the kinds that need one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npusim.errors import ConfigError, closest

MAX_FILE_BYTES = 2**26


@dataclass(frozen=True)
class Row:
    """One row of a measurement file. `simulated` is None when the row is not modelled, and `note` says why.

    `group`: rows with the same one are summed up together. `others`: further numbers, name -> (measured, simulated).
    `reference`: what errors are relative to, when that is not the measured number (a rate: 1).
    """

    line: int
    group: str
    case: str
    measured: float
    simulated: float | None
    note: str = ""
    others: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    reference: float | None = None

    @property
    def difference(self) -> float | None:
        return None if self.simulated is None else self.simulated - self.measured

    @property
    def error_pct(self) -> float | None:
        """Simulated above measured, in percent; infinite where 0 was measured and something else simulated."""
        if self.difference is None:
            return None
        reference = self.measured if self.reference is None else self.reference
        if reference == 0:
            return 0.0 if self.difference == 0 else float("inf")
        return 100 * self.difference / reference

    @property
    def differing(self) -> list[str]:
        """Names of the other numbers that are not as measured."""
        return [name for name, (measured, simulated) in self.others.items() if measured != simulated]


@dataclass(frozen=True)
class Bound:
    """What a group of rows must hold: mean and largest absolute error in percent; 0 and 0 mean equality."""

    mean_pct: float
    max_pct: float

    def __str__(self) -> str:
        if self.max_pct == 0:
            return "equal"
        each = "" if self.max_pct == float("inf") else f", each <= {self.max_pct:g} %"
        return f"mean <= {self.mean_pct:g} %{each}"


EQUAL = Bound(0, 0)


@dataclass(frozen=True)
class Summary:
    """One group: how many rows, how many of them simulated and equal in every number, errors, and whether it holds."""

    group: str
    rows: int
    simulated: int
    equal: int
    mean_pct: float
    max_pct: float
    bound: Bound | None

    @property
    def held(self) -> bool:
        if self.bound is None or self.simulated == 0:
            return True
        if self.bound == EQUAL:
            return self.equal == self.simulated
        return self.mean_pct <= self.bound.mean_pct and self.max_pct <= self.bound.max_pct


@dataclass(frozen=True)
class Validation:
    """All rows of a file, and the bounds stated for their groups."""

    kind: str
    rows: Sequence[Row]
    bounds: Mapping[str, Bound]
    not_modelled: Sequence[str] = ()

    @property
    def summaries(self) -> list[Summary]:
        return [self._summary(group) for group in dict.fromkeys(row.group for row in self.rows)]

    @property
    def held(self) -> bool:
        """Whether every stated bound holds."""
        return all(summary.held for summary in self.summaries)

    def _summary(self, group: str) -> Summary:
        rows = [row for row in self.rows if row.group == group]
        errors = [abs(row.error_pct) for row in rows if row.error_pct is not None]
        equal = sum(row.difference == 0 and not row.differing for row in rows)
        mean = sum(errors) / len(errors) if errors else 0.0
        bound = self.bounds.get(group)
        return Summary(group, len(rows), len(errors), equal, mean, max(errors, default=0.0), bound)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kind": self.kind,
            "held": self.held,
            "summary": [
                {
                    "group": s.group, "rows": s.rows, "simulated": s.simulated, "equal": s.equal,
                    "mean_error_pct": _finite(s.mean_pct), "max_error_pct": _finite(s.max_pct),
                    "bound": None if s.bound is None else str(s.bound), "held": s.held,
                }
                for s in self.summaries
            ],
            "rows": [
                {
                    "line": r.line, "group": r.group, "case": r.case, "measured": r.measured, "simulated": r.simulated,
                    "difference": r.difference, "error_pct": _finite(r.error_pct), "note": r.note,
                    "others": {name: list(pair) for name, pair in r.others.items()},
                }
                for r in self.rows
            ],
            "not_modelled": list(self.not_modelled),
        }  # fmt: skip


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return None if value is None or value == float("inf") else value


class Cells:
    """One line of a measurement file; wrong cells are collected in `problems`, shared by all lines of the file."""

    def __init__(self, line: int, cells: Mapping[str, str], problems: list[str]) -> None:
        self.line = line
        self.cells = cells
        self.problems = problems

    def text(self, column: str) -> str:
        return (self.cells.get(column) or "").strip()

    def integer(self, column: str, low: int = 0) -> int:
        """A whole number, written as 16 or 16.0; `low` stands for one that is wrong."""
        value = self.text(column)
        match = re.fullmatch(r"(\d{1,18})(?:\.0*)?", value)
        if match and int(match[1]) >= low:
            return int(match[1])
        self.problem(f"{column} = {value!r}: must be a whole number of {low} or more")
        return low

    def number(self, column: str) -> float:
        """A number above 0; 1 stands for one that is wrong."""
        try:
            value = float(self.text(column))
        except ValueError:
            value = 0.0
        if 0 < value < 1e15:
            return value
        self.problem(f"{column} = {self.text(column)!r}: must be a number, more than 0")
        return 1.0

    def choice(self, column: str, allowed: Sequence[str]) -> str:
        """One of `allowed`; the first of them stands for a wrong one."""
        value = self.text(column)
        if value in allowed:
            return value
        self.problem(f"{column} = {value!r}: must be {' or '.join(allowed)}{closest(value, list(allowed))}")
        return allowed[0]

    def array(self, column: str) -> tuple[int, int]:
        """'16x8' as (rows, columns)."""
        value = self.text(column)
        match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", value)
        if match:
            return int(match[1]), int(match[2])
        self.problem(f"{column} = {value!r}: must be ROWSxCOLUMNS, for example 16x16")
        return 1, 1

    def problem(self, what: str) -> None:
        self.problems.append(f"line {self.line}: {what}")


def read(path: str | Path, columns: Sequence[str]) -> Iterator[Cells]:
    """The lines of a CSV file that has at least `columns`; ConfigError lists what is wrong, wrong cells at the end."""
    path = Path(path)
    rows = csv.DictReader(io.StringIO(_text(path)))
    try:
        header = list(rows.fieldnames or [])
        missing = [f"column {name}: missing{closest(name, header)}" for name in columns if name not in header]
        if missing:
            raise ConfigError(_listed(path, missing))
        problems: list[str] = []
        count = 0
        for cells in rows:
            count += 1
            yield Cells(rows.line_num, cells, problems)
    except csv.Error as error:
        raise ConfigError(f"{path}: line {rows.line_num}: not CSV: {error}") from None
    if not count:
        problems.append("no rows")
    if problems:
        raise ConfigError(_listed(path, problems))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes, the limit for a measurement file")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None


def _listed(path: Path, problems: Sequence[str]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
    return "\n  ".join([f"{path}: {count}", *problems[:20], *more])
