"""Speed and memory of npusim on this machine: a table of measurements, printed and written as CSV.

    python benchmarks/bench.py [--out results/bench.csv]

Every row says what was measured, how often, and the target where there is one. Warm means that kernels are compiled
and loaded; times are wall-clock seconds of one process on a possibly shared machine.
"""

from __future__ import annotations

import argparse
import csv
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numba
import numpy as np

from npusim import catalogue, engine, npu
from npusim.mapping import candidates, search
from npusim.mapping import lower as lowering
from npusim.simulation import simulate
from npusim.trace import read
from npusim.trace.reshape import reshape

FIELDS = ("what", "value", "unit", "target", "runs")


def timed(action: Callable[[], object], runs: int = 3) -> float:
    """Median wall-clock seconds of `action` after one warm-up."""
    action()
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def forget() -> None:
    """Drop cached mappings, so that a repeated simulation lowers again."""
    lowering._lower_problem.cache_clear()
    candidates.table.cache_clear()
    search.masked.cache_clear()


def simulate_afresh(*arguments) -> None:
    forget()
    simulate(*arguments)


def measure() -> Iterator[tuple[str, float, str, str, int]]:
    step = reshape(read(catalogue.find("workloads", "resnet18-swu")), 224)
    hw = npu.load("edge-16x16")
    for dataflow in ("dense-os", "reduction-spatial"):
        what = f"ResNet-18 224 px step, {dataflow}"
        seconds = timed(partial(simulate_afresh, step, hw, dataflow))
        yield f"{what}, fast engine, warm, mapped anew", seconds, "s", "< 1", 3
        yield f"{what}, mappings cached", timed(partial(simulate, step, hw, dataflow)), "s", "", 3
    lowered = lowering.lower(step, catalogue.load_dataflow("dense-os"), hw, catalogue.load_dataflow)
    capacity, tasks = engine.unit_capacity(hw), lowered.program.kind.size
    fast = timed(lambda: engine.run(lowered.program, capacity), 5)
    slow = timed(lambda: engine.run(lowered.program, capacity, "simpy"), 1)
    yield "tasks of that step", tasks, "tasks", "", 1
    yield "fast engine", tasks / fast, "tasks/s", "", 5
    yield "SimPy engine, same program", slow, "s", "< 60", 1
    yield "fast engine against SimPy", slow / fast, "times", "", 1
    yield "peak memory of all this", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB", "< 1024", 1
    yield "npusim --help, CPU", start_up(), "s", "< 0.3", 5
    yield from sweep_of_machines()


def sweep_of_machines(workers: int = 2) -> Iterator[tuple[str, float, str, str, int]]:
    """A sweep of 1,000 arrays and buffers on the step of ResNet-18: wall clock, CPU time, overhead."""
    from npusim.sweep import sweep

    buffers = [f"{size}KiB" for size in (64, 80, 96, 128, 160, 192, 256, 384, 512, 1024)]
    grid = {"array.rows": "4..40 step 4", "array.cols": "4..40 step 4", "buffers.a.bytes": buffers}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "sweep.sqlite"
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        sweep({"name": "bench", "fixed": {"workload": "resnet18"}, "grid": grid}, store, workers=workers)
        wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        with sqlite3.connect(store) as connection:
            simulating = connection.execute("SELECT sum(seconds) FROM attempts").fetchone()[0]
        connection.close()
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    yield f"sweep of 1,000 machines, {workers} processes", wall, "s", "< 60", 1
    yield "CPU time of its processes", spent, "s", "", 1
    yield "share of their time that is not simulation", 1 - simulating / (workers * wall), "", "< 0.2", 1


def start_up(runs: int = 5) -> float:
    """Median CPU seconds of `npusim --help`."""
    seconds = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "npusim", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/bench.csv"))
    out = parser.parse_args().out
    rows = []
    for row in measure():
        rows.append(row)
        what, value, unit, target, _ = row
        print(f"{what:70s} {value:14.4g} {unit:8s} {'target ' + target if target else ''}", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*FIELDS, "machine", "python", "numba"))
        machine = (platform.processor() or platform.machine(), platform.python_version(), numba.__version__)
        writer.writerows((*row, *machine) for row in rows)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
