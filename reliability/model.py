"""The long run of model-based tests: numbered cases, one CSV row each, appended as they end.

Run again with the same file, it goes on behind the cases that are there; with `--seconds` it stops after that time.
Rows of cases that failed can be moved to a second file (`once_failed`); then the next run tries them again.
"""

from __future__ import annotations

import csv
import io
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path

from npusim import atomic
from reliability import cases, laws

FIELDS = (
    "seed", "number", "dataflow", "method", "memory", "masked", "change", "outcome", "ops", "tasks", "cycles",
    "specified_tasks", "gradients", "fixed_ratio", "free_ratio", "extra_cycles", "milliseconds", "message",
)  # fmt: skip
FAILED = "FAILED"


def run(out: Path, seed: int, count: int, seconds: float) -> int:
    """Check the cases 0..count-1 of `seed` that `out` does not have; returns how many are missing still."""
    _drop_torn_row(out)
    done = _done(out, seed)
    missing = [number for number in range(count) if number not in done]
    deadline = time.monotonic() + seconds
    new = not out.exists() or not out.stat().st_size
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        for position, number in enumerate(missing):
            if time.monotonic() > deadline:
                return len(missing) - position
            writer.writerow(row(seed, number))
            file.flush()
    return 0


def once_failed(out: Path) -> Path:
    """Where the rows are that failed before npusim was mended."""
    return out.with_name(f"{out.stem}-failed.csv")


def move_failed(out: Path) -> int:
    """Move the rows of `out` that failed to `once_failed(out)`; returns how many."""
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    failed = [line for line in rows if line["outcome"] == FAILED]
    aside = once_failed(out)
    new = not aside.exists()
    with aside.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerows(failed)
    atomic.write(out, _text(line for line in rows if line["outcome"] != FAILED))
    return len(failed)


def _text(rows: Iterable[Mapping[str, str]]) -> str:
    content = io.StringIO()
    writer = csv.DictWriter(content, FIELDS)
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue()


def row(seed: int, number: int) -> dict[str, object]:
    """What case `number` came to; a failure is a row with its traceback."""
    begin = time.monotonic()
    flow, method = cases.pairs()[number % len(cases.pairs())]
    base = {"seed": seed, "number": number, "dataflow": flow, "method": method}
    try:
        case = cases.numbered(seed, number)
        found = laws.check(case)
    except Exception:
        lines = traceback.format_exc(limit=-3).strip().splitlines()
        return base | {"outcome": FAILED, "message": " | ".join(line.strip() for line in lines)[-600:]}
    return base | {
        "memory": case.hardware.dram.model, "masked": int(case.masked), "change": case.change,
        "outcome": found.outcome, "ops": found.ops,
        "tasks": found.tasks, "cycles": found.cycles, "specified_tasks": found.specified,
        "gradients": found.gradients, "fixed_ratio": _ratio(found.fixed), "free_ratio": _ratio(found.free),
        "extra_cycles": found.extra_cycles, "milliseconds": round(1000 * (time.monotonic() - begin)),
        "message": found.message.replace("\n", " ")[:200],
    }  # fmt: skip


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _drop_torn_row(out: Path) -> None:
    """Cut what a killed run left behind the last whole line."""
    if out.exists():
        content = out.read_bytes()
        out.write_bytes(content[: content.rfind(b"\n") + 1])


def _done(out: Path, seed: int) -> set[int]:
    if not out.exists():
        return set()
    with out.open(newline="", encoding="utf-8") as file:
        return {int(line["number"]) for line in csv.DictReader(file) if line["seed"] == str(seed)}
