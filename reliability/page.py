"""The figures of docs/reliability.md, from the results of the long runs."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from npusim import provenance
from reliability import model

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "reliability" / "results"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def summarise_model(path: Path) -> dict[str, Any]:
    """Counts of a long run of cases, and how often and how much a better machine was slower."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    whole = [row for row in rows if row["outcome"] == "ok"]
    changes: dict[str, dict[str, Any]] = {}
    for kind in ("fixed_ratio", "free_ratio"):
        for row in whole:
            if row[kind]:
                name = kind if kind == "fixed_ratio" else f"{kind} {row['memory']}"
                found = changes.setdefault(f"{row['change']}:{name}", {"cases": 0, "slower": 0, "most": 0.0})
                ratio = float(row[kind])
                found["cases"] += 1
                found["slower"] += ratio > 1
                found["most"] = max(found["most"], ratio)
    aside = model.once_failed(path)
    mended = sum(1 for _ in csv.DictReader(io.StringIO(aside.read_text()))) if aside.exists() else 0
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(path.stat().st_mtime)),
        "versions": provenance.versions(), "seeds": sorted({row["seed"] for row in rows}), "cases": len(rows),
        "mended": mended, "milliseconds": sum(int(row["milliseconds"] or 0) for row in rows),
        "outcomes": dict(Counter(row["outcome"] for row in rows)),
        "pairs": len({(row["dataflow"], row["method"]) for row in whole}),
        "tasks": sum(int(row["tasks"]) for row in whole),
        "specified_tasks": sum(int(row["specified_tasks"]) for row in whole),
        "gradients": sum(int(row["gradients"]) for row in whole), "changes": changes,
    }  # fmt: skip


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    header = list(header)
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join('---' for _ in header)}|"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
    yield ""


def model_lines(found: dict[str, Any]) -> Iterator[str]:
    refused = sum(n for name, n in found["outcomes"].items() if name.startswith("refused"))
    failed = found["outcomes"].get("FAILED", 0)
    yield from (
        "### Random cases", "",
        f"{found['cases']:,} cases (seeds {', '.join(found['seeds'])}): {found['outcomes'].get('ok', 0):,} kept every "
        f"law, {refused:,} were refused by a message, {failed} failed ({found['mended']} failed before npusim was "
        f"mended, and were run again). {found['pairs']} pairs of dataflow and method; "
        f"{found['tasks']:,} tasks simulated, {found['specified_tasks']:,} of them by both engines with equal times; "
        f"{found['gradients']:,} weight gradients executed on numbers and equal to the reference. "
        f"{found['milliseconds'] / 3.6e6:.1f} hours.", "",
    )  # fmt: skip
    names = dict.fromkeys(key.split(":")[0] for key in found["changes"])
    rows = []
    for name in names:
        cells: list[object] = [name]
        for kind in ("fixed_ratio", "free_ratio ideal", "free_ratio commands"):
            entry = found["changes"].get(f"{name}:{kind}")
            cells += [entry["cases"], entry["slower"], f"{entry['most']:.3f}"] if entry else ["", "", ""]
        rows.append(cells)
    head = ("doubled", "same tasks: cases", "slower", "most", "mapped anew, ideal memory: cases", "slower", "most",
            "mapped anew, command-level memory: cases", "slower", "most")  # fmt: skip
    yield from table(head, rows)


def kept_lines(path: Path) -> Iterator[str]:
    yield from ("### Worst cases mapped anew: the mapping from before on the better machine", "")
    rows = ((f["change"], f["memory"], f["cases"], f["kept_faster"], f"{f['most']:.3f}")
            for f in json.loads(path.read_text()))  # fmt: skip
    yield from table(("doubled", "memory", "cases", "kept is faster", "cycles anew / kept, most"), rows)


def fuzz_lines(path: Path) -> Iterator[str]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    yield from ("### Fuzzing", "")
    lines = []
    for name in dict.fromkeys(row["target"] for row in rows):
        mine = [row for row in rows if row["target"] == name]
        total = {
            key: sum(float(row[key]) for row in mine) for key in ("seconds", "cpu_seconds", "executions", "crashes")
        }
        lines.append((name, f"{total['seconds'] / 60:.1f}", f"{total['cpu_seconds'] / 60:.1f}",
                      f"{total['executions']:,.0f}", mine[-1]["corpus"], f"{total['crashes']:.0f}"))  # fmt: skip
    yield from table(("target", "minutes", "CPU minutes", "inputs", "corpus", "faults found"), lines)


def fault_lines(path: Path) -> Iterator[str]:
    yield from ("### kill -9", "")
    found = json.loads(path.read_text()).values()
    yield from table(
        ("killed while writing", "kills", "of them between old and new", "files or rows looked at", "torn or lost"),
        ((f["work"], f["kills"], f["during"], f["files"], len(f["torn"])) for f in found),
    )


def large_lines(path: Path) -> Iterator[str]:
    yield from ("### Long and large", "")
    rows = []
    for f in json.loads(path.read_text()):
        known = ("what", "size", "seconds", "cpu_seconds", "peak_mb")
        rest = "; ".join(f"{key} {value:,}" if type(value) is int else f"{key} {value}"
                         for key, value in f.items() if key not in known)  # fmt: skip
        rows.append((f["what"], f"{f['size']:,}", f["seconds"], f["cpu_seconds"], f["peak_mb"], rest))
    yield from table(("what", "size", "seconds", "CPU seconds", "peak MB", "result"), rows)


def write(work: Path) -> None:
    """Take the results of `work` over, where there are new ones, and put the tables of all into the page."""
    lines: list[str] = []
    summary = RESULTS / "model.json"
    if (work / "model.csv").exists():
        summary.write_text(json.dumps(summarise_model(work / "model.csv"), indent=1) + "\n")
    for name in ("fuzz.csv", "faults.json", "large.json", "kept.json"):
        if (work / name).exists():
            shutil.copyfile(work / name, RESULTS / name)
    if summary.exists():
        found = json.loads(summary.read_text())
        lines += [f"Measured on {found['date'][:10]} with {_versions(found['versions'])}.", ""]
        lines += model_lines(found)
    for name, make in (
        ("kept.json", kept_lines),
        ("fuzz.csv", fuzz_lines),
        ("faults.json", fault_lines),
        ("large.json", large_lines),
    ):
        if (RESULTS / name).exists():
            lines += make(RESULTS / name)
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"{END}{after}", encoding="utf-8")


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in ("npusim", "python", "numba", "numpy") if name in versions)
