"""npusim against SCALE-Sim on the forward layers of ResNet-18 and ResNet-50, 32x32 array, output stationary.

    python benchmarks/peers/compare.py [--scalesim scalesim.csv] [--python LEAN/bin/python]

SCALE-Sim's side was measured by `run_scalesim.py`, a process for each layer. Two of npusim's answers are timed here, in
this process and warm: its closed forms of SCALE-Sim's model (cycles and SRAM words; with DRAM words they take longer);
and its own simulation of all forward operations, task by task, with buffers, DMA, DRAM and energy. Both give the same
compute cycles, asserted layer by layer: the second with every layer as one tile (`npusim run --mapping` does it), which
is what SCALE-Sim assumes; it is timed with the mapping searched anew as well.

Memory is the peak of a fresh process that does all layers, with the Python that runs this script or LEAN (an
environment with npusim and no development packages), beside SCALE-Sim's for its largest layer and for all layers; and
for both simulators what that is above a tiny job, so that the interpreter and its libraries cancel out. Beside them
stand a process in which numba, which compiles npusim's kernels, sums four numbers, and npusim as a replacement for
SCALE-Sim's command: its configuration (InterfaceBandwidth = USER, so that nothing is replayed) and topology in, its
reports out.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from networks import COLS, NETWORKS, ROWS, SHAPE, configuration, layers, shape_of, topology_text

sys.path.insert(0, str(Path(__file__).parents[1]))
import measuring
from bench import forget, step

from npusim import npu
from npusim.graph import Conv, StepGraph
from npusim.mapping.choice import Choice
from npusim.mapping.problem import problems
from npusim.mapping.tiling import Tiling
from npusim.scalesim import config, model, report, topology
from npusim.simulation import Run, simulate

SCALESIM = Path(__file__).parent / "scalesim.csv"


def same_cycles(rows: list[dict]) -> int:
    """Compute cycles of all layers of a network, asserted to be those that SCALE-Sim gave for every shape."""
    total = 0
    for row in rows:
        size = [int(row[key]) for key in SHAPE]
        layer = topology.Layer(row["layer"], *size, size[-1])
        cycles = model.counts("os", layer.m, layer.k, layer.n, ROWS, COLS).cycles
        assert cycles == int(row["compute_cycles"]), (row, cycles)
        total += cycles * int(row["times"])
    return total


def whole_tiles(graph: StepGraph) -> Choice:
    """Every product as one tile."""
    fixed = []
    for op in graph.ops:
        if isinstance(op.dims, Conv):
            (p,) = problems(op)
            fixed.append(((op.name, op.phase, 0, ""), Tiling(1, p.m, p.c, p.n, p.p, p.q, False)))
    return Choice(fixed=tuple(fixed))


def assert_same(run: Run, rows: list[dict]) -> None:
    """Array cycles of every layer are SCALE-Sim's compute cycles."""
    known = {tuple(int(row[key]) for key in SHAPE): int(row["compute_cycles"]) for row in rows}
    for op, cycles in zip(run.graph.ops, run.array_cycles, strict=True):
        if isinstance(op.dims, Conv):
            assert cycles == known[shape_of(op.dims)], (op, cycles)


MEMORY = """
import gc, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from compare import forward, npu, simulate
def status(key):
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024
simulate(forward("tiny-cnn"), npu.load("scalesim-32x32"), "dense-os")
graph = forward(sys.argv[3])
gc.collect()
until_now = status("VmHWM")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = status("VmRSS")
simulate(graph, npu.load("scalesim-32x32"), "dense-os")
print(max(until_now, status("VmHWM")), status("VmHWM") - before)
"""


def memory(network: str, python: str) -> tuple[float, float]:
    """Peak MiB of a process that simulates all layers, and its peak meanwhile above what it took before (Linux)."""
    here = Path(__file__).parent
    command = [python, "-c", MEMORY, str(here), str(here.parent), network]
    peak, grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(peak), float(grown)


NUMBA = """
import numba, numpy, sys
sys.path.insert(0, sys.argv[1])
import trivial
trivial.total(numpy.zeros(4))
"""
TRIVIAL = """
import numba
@numba.njit(cache=True)
def total(values):
    return values.sum()
"""


def numba_memory(python: str) -> float:
    """Peak MiB of a process that calls one compiled function, which it finds in numba's cache."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "trivial.py").write_text(TRIVIAL)
        return measuring.process(["-c", NUMBA, folder], 3, python).peak_mib


def command(network: str, python: str) -> measuring.Spent:
    """`npusim run` with SCALE-Sim's own files for all layers of a network."""
    with tempfile.TemporaryDirectory() as folder:
        settings, shapes = Path(folder, "scale.cfg"), Path(folder, "topology.csv")
        settings.write_text(configuration().replace("CALC", "USER"))
        shapes.write_text(topology_text(row for row in layers(network) for _ in range(row["times"])))
        given = ("--scalesim-config", settings, "--topology", shapes, "--out", Path(folder, "reports"))
        return measuring.process(["-m", "npusim", "run", *map(str, given)], 3, python)


def forward(network: str) -> StepGraph:
    """The step's forward operations."""
    graph = step(network, None, None)
    return replace(graph, ops=graph.phase("forward"))


class Peer(NamedTuple):
    """What `run_scalesim.py` measured of a network: a row per different layer; CPU seconds of all layers; peak MiB of
    the largest layer's process, of a process with all layers and of one with a single weight."""

    rows: list[dict]
    cpu_s: float
    largest_mib: float
    whole_mib: float
    tiny_mib: float


def peer(network: str, path: Path) -> Peer:
    with path.open(newline="") as file:
        everything = [row for row in csv.DictReader(file) if row["network"] == network]
    rows = [row for row in everything if not row["layer"].startswith("(")]
    wanted = {row["layer"] for row in layers(network)} | {"(whole)", "(tiny)"}
    if missing := wanted - {row["layer"] for row in everything}:
        raise SystemExit(f"{path} lacks {', '.join(sorted(missing))} of {network}; run run_scalesim.py")
    spent = sum(int(row["times"]) * float(row["cpu_s"]) for row in rows)
    mib = {row["layer"]: float(row["peak_rss_mib"]) for row in everything}
    return Peer(rows, spent, max(mib[row["layer"]] for row in rows), mib["(whole)"], mib["(tiny)"])


def times(network: str, rows: list[dict]) -> dict[str, measuring.Spent]:
    """npusim on all forward layers of a network, warm; its simulations give the compute cycles of `rows`."""
    every = [[int(row[key]) for key in SHAPE] for row in rows for _ in range(int(row["times"]))]
    shown = [topology.Layer("", *shape, shape[-1]) for shape in every]
    settings = config.Config("peers", ROWS, COLS, 64, 64, 64, "os", limited=False)
    graph, hw = forward(network), npu.load("scalesim-32x32")
    large = hw.replace({f"buffers.{name}.bytes": 2**25 for name in ("a", "b", "accumulator")})
    one_tile = whole_tiles(graph)
    assert_same(simulate(graph, large, "dense-os", choice=one_tile), rows)
    return {
        "SCALE-Sim's cycles": measuring.best(
            lambda: [model.counts("os", one.m, one.k, one.n, ROWS, COLS) for one in shown], 9
        ),
        "SCALE-Sim's cycles and words": measuring.best(lambda: report.simulate(settings, shown), 3),
        "own simulation, same cycles": measuring.best(lambda: simulate(graph, large, "dense-os", choice=one_tile), 5),
        "own simulation, mapped anew": measuring.best(lambda: simulate(graph, hw, "dense-os"), 3, forget),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scalesim", type=Path, default=SCALESIM)
    parser.add_argument("--python", default=sys.executable, help="measures npusim's memory")
    options = parser.parse_args()
    print(measuring.machine())
    print(f"numba and a compiled function that sums four numbers: {numba_memory(options.python):.1f} MiB")
    for network in NETWORKS:
        theirs = peer(network, options.scalesim)
        cycles, replaced = same_cycles(theirs.rows), command(network, options.python)
        count = sum(int(row["times"]) for row in theirs.rows)
        print(
            f"{network}: {count} layers, {len(theirs.rows)} different; {cycles:,} compute cycles, equal layer by layer"
        )
        print(f"  {'SCALE-Sim':30s} {theirs.cpu_s:11.2f} CPU s")
        spent = times(network, theirs.rows) | {"as its command: a cold process": replaced}
        for what, ours in spent.items():
            print(f"  {what:30s} {ours.cpu_s:11.5f} CPU s, {theirs.cpu_s / ours.cpu_s:12,.0f} times faster")
        used, grown = memory(network, options.python)
        print(f"  {'MiB':30s} {'SCALE-Sim':>11s} {'npusim':>11s} {'times less':>11s}")
        for what, their_mib, mib in (
            ("largest layer's process", theirs.largest_mib, used),
            ("all layers' process", theirs.whole_mib, used),
            ("largest layer, above tiny job", theirs.largest_mib - theirs.tiny_mib, grown),
            ("all layers, above tiny job", theirs.whole_mib - theirs.tiny_mib, grown),
            ("all layers, as its command", theirs.whole_mib, replaced.peak_mib),
        ):
            print(f"  {what:30s} {their_mib:11,.1f} {mib:11.1f} {their_mib / mib:11,.1f}")


if __name__ == "__main__":
    main()
