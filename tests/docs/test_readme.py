"""The table of validation in the README says what docs/validation.md, which `make validate` writes, says."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "validation.md").read_text()


def groups(section: str) -> dict[str, list[str]]:
    """Group -> cells (rows, simulated, equal, mean, largest, ...) of the first table of a section."""
    text = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    table = re.search(r"^\| group \|.*?\n\n", text, re.M | re.S)
    assert table, section
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:] if line]
    return {row[0]: row[1:] for row in rows}


def row(start: str) -> tuple[int, str]:
    """Count and result of the README's row that begins so."""
    line = next(line for line in README.splitlines() if line.startswith(f"| {start}"))
    *_, count, result = [cell.strip() for cell in line.strip("|").split("|")]
    return int(count), result


def test_equal_ones():
    exact = [cells for name, cells in groups("Other people's RTL").items() if name.endswith(" exact")]
    assert all(cells[0] == cells[2] for cells in exact)
    assert row("other people's RTL") == (sum(int(cells[0]) for cells in exact), "cycles equal")
    scalesim = groups("SCALE-Sim").values()
    assert all(cells[0] == cells[2] for cells in scalesim)
    assert row("SCALE-Sim compute cycles") == (sum(int(cells[0]) for cells in scalesim), "equal")
    cycles = [int(cells[1]) for name, cells in groups("DRAM simulators").items() if name.endswith(" cycles")]
    assert row("DRAMsim3, Ramulator 2.1") == (sum(cycles), "within one clock")


def test_errors():
    rows, _, _, mean, largest, *_ = groups("Other people's RTL")["gemmini_rtl data"]
    expected = f"mean error {float(mean):.1f} %, largest {float(largest):.1f} %"
    assert row("Gemmini end to end") == (int(rows), expected)
    rows, _, _, mean, *_ = groups("Gemmini on FPGAs, whole layers")["layers"]
    spearman = re.search(r"Spearman (\d\.\d+)", PAGE)
    assert spearman
    expected = f"mean error {float(mean):.1f} %, rank correlation {float(spearman[1]):.3f}"
    assert row("Gemmini on FPGAs") == (int(rows), expected)
    eyeriss = groups("Eyeriss silicon")
    means = [float(eyeriss[f"{name} latency (ms)"][3]) for name in ("processing", "total")]
    assert row("Eyeriss silicon") == (5, f"mean error {means[0]:.1f} %; {means[1]:.1f} %")
