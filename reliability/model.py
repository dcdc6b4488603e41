"""The long run of model-based tests: numbered cases, one CSV row each, appended as they end.

Run again with the same file, it goes on behind the cases that are there; with `--seconds` it stops after that time.
"""

from __future__ import annotations

import csv
import time
import traceback
from pathlib import Path

from reliability import cases, laws

FIELDS = (
    "seed", "number", "dataflow", "method", "masked", "change", "outcome", "ops", "tasks", "cycles", "specified_tasks",
    "gradients", "fixed_ratio", "free_ratio", "extra_cycles", "milliseconds", "message",
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
        "masked": int(case.masked), "change": case.change, "outcome": found.outcome, "ops": found.ops,
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
