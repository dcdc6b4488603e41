"""Compiles the benches with Icarus Verilog and runs points through them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

RTL = Path(__file__).resolve().parents[2] / "rtl"
SYSTOLIC = ("systolic_tb", "systolic_array", "fold_sequencer", "fold_decoder", "pe", "skew")
REDUCTION = (
    "reduction_tb",
    "reduction_array",
    "reduction_sequencer",
    "column_decoder",
    "reduction_group",
    "reduction_pe",
)


def require(tool: str) -> None:
    """Skip without the tool, or fail when NPUSIM_REQUIRE_RTL=1 (as in CI)."""
    if shutil.which(tool):
        return
    reason = f"{tool} is not installed (apt-get install iverilog verilator)"
    if os.environ.get("NPUSIM_REQUIRE_RTL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Measured:
    """What a bench counts for one point; `errors` are wrong, missing, repeated or unknown results.

    Left is A (dY, or what streams in operand-stationary mode), right is B. `extra` is what only one bench counts.
    """

    cycles: int
    left_reads: int
    right_reads: int
    writes: int
    errors: int
    extra: tuple[int, ...] = ()


def run(folder: Path, sources: tuple[str, ...], parameters: dict[str, int], points: list[str]) -> list[Measured]:
    """Compile the bench (first source) once for these parameters and run all points, whose ids are their positions."""
    require("iverilog")
    folder.mkdir(parents=True, exist_ok=True)
    program, file = folder / "bench.vvp", folder / "points.txt"
    file.write_text("\n".join([str(len(points)), *points, ""]))
    top = sources[0]
    command = ["iverilog", "-g2012", "-o", str(program), "-s", top]
    command += [f"-P{top}.{name}={value}" for name, value in parameters.items()]
    subprocess.run([*command, *(str(RTL / f"{name}.sv") for name in sources)], check=True, timeout=120)
    done = subprocess.run(
        ["vvp", "-n", str(program), f"+points={file}"], check=True, timeout=3600, capture_output=True, text=True
    )
    results = []
    for line in done.stdout.splitlines():
        word, *fields = line.split()
        if word == "RESULT":
            ident, cycles, left, right, writes, errors, _decode_cycles, *extra = map(int, fields)
            assert ident == len(results)
            results.append(Measured(cycles, left, right, writes, errors, tuple(extra)))
    assert len(results) == len(points), done.stdout + done.stderr
    return results


def mismatches(tiles: list, simulated: list[Measured], measured: list[Measured]) -> list[str]:
    """One line per point where RTL and simulation differ."""
    return [
        f"point {i} {tile}: simulated {a}, RTL {b}"
        for i, (tile, a, b) in enumerate(zip(tiles, simulated, measured, strict=True))
        if a != b
    ]
