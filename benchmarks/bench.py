"""Speed and memory of npusim on this machine: a table of measurements, printed and written as CSV.

    python benchmarks/bench.py [--out results/bench.csv] [--only PART ...]

Every row says what was measured and, where there is one, the target and how far it is: a distance of 2 is twice as good
as asked, of 0.5 half as good. Times are the least of several runs; wall-clock seconds, with CPU seconds beside them.
Warm: kernels are compiled and loaded. Mapped anew: nothing is cached from earlier steps.
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
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import loop_kernels
import measuring
import numpy as np

from npusim import catalogue, engine, npu
from npusim.engine.dram import Dram
from npusim.engine.dram_standards import load_standard
from npusim.mapping import candidates, search, vector
from npusim.mapping import lower as lowering
from npusim.program import UNIT_OF_KIND
from npusim.simulation import simulate
from npusim.structure import statistics
from npusim.trace import read
from npusim.trace.reshape import reshape
from npusim.validate import dram as validation


class Row(NamedTuple):
    """One measurement; `target`: at most so much, or at least so much when `more`."""

    what: str
    value: float
    unit: str
    target: float | None = None
    more: bool = False
    cpu_s: float | None = None

    @property
    def distance(self) -> float | None:
        if self.target is None:
            return None
        return self.value / self.target if self.more else self.target / self.value


def forget() -> None:
    """Drop everything that is cached of mappings."""
    caches = (lowering._lower_problem, candidates.table, candidates._image_sum, candidates._table_footprints,
              search._best, search.masked, vector._stream)  # fmt: skip
    for cached in caches:
        cached.cache_clear()


@cache
def step(workload: str, size: int | None, batch: int | None):
    return reshape(read(catalogue.find("workloads", workload)), size, batch)


def lowered(workload: str, size: int, batch: int, dataflow: str = "dense-os"):
    flow = catalogue.load_dataflow(dataflow)
    return lowering.lower(step(workload, size, batch), flow, npu.load("edge-16x16"), catalogue.load_dataflow)


def engines() -> Iterator[Row]:
    """Both engines and a bare loop on the step of ResNet-50, 224 px."""
    program = lowered("resnet50", 224, 1).program
    tasks, capacity = program.kind.size, engine.unit_capacity(npu.load("edge-16x16"))
    unit, columns = UNIT_OF_KIND[program.kind], (program.cycles, program.tail, program.dep_ptr, program.dep_idx)
    fast = measuring.best(lambda: engine.run(program, capacity), 50)
    results = [np.zeros(tasks, np.int64) for _ in range(3)]
    bare = measuring.best(lambda: loop_kernels.in_program_order(unit, *columns, capacity, *results), 50)
    slow = measuring.best(lambda: engine.run(program, capacity, "simpy"), 1)
    yield Row("tasks of the ResNet-50 step, 224 px", tasks, "tasks")
    yield Row("fast engine on them", tasks / fast.cpu_s, "tasks/s")
    yield Row("SimPy engine on them", tasks / slow.cpu_s, "tasks/s")
    yield Row("fast engine against SimPy", slow.cpu_s / fast.cpu_s, "times", 200, True)
    yield Row("bare loop over them, in program order", tasks / bare.cpu_s, "tasks/s")
    yield Row("fast engine's time over the bare loop's", fast.cpu_s / bare.cpu_s, "times", 3)


def mapping() -> Iterator[Row]:
    """Lowering alone."""
    for workload, dataflow in (
        ("resnet18", "dense-os"), ("resnet50", "dense-os"), ("mobilenetv2", "dense-os"),
        ("resnet18-swu", "reduction-spatial"), ("resnet18-swu", "reduction-window"),
    ):  # fmt: skip
        action = partial(lowered, workload, 224, 1, dataflow)
        anew, cached = measuring.best(action, 3, forget), measuring.best(action, 3)
        yield Row(f"lowering {workload} 224 px, {dataflow}, anew", anew.wall_s, "s", cpu_s=anew.cpu_s)
        yield Row(f"lowering {workload} 224 px, {dataflow}, cached", cached.wall_s, "s", cpu_s=cached.cpu_s)
    bits = (np.random.default_rng(0).random((2048, 12296)) < 0.2).astype(np.uint8)
    counted = measuring.best(lambda: statistics(bits, 16, 16), 5)
    yield Row(f"mask statistics of {bits.size / 1e6:.1f} M bits", counted.wall_s, "s", 0.05, cpu_s=counted.cpu_s)


def steps() -> Iterator[Row]:
    """Whole steps: lowering, engine, checks and energy."""
    hw = npu.load("edge-16x16")
    for workload, size in (("resnet50", 224), ("mobilenetv2", 224), ("vit-tiny", None)):
        if workload not in catalogue.names("workloads"):
            continue
        for batch in (1, 4, 16):
            action = partial(simulate, step(workload, size, batch), hw, "dense-os")
            anew, cached = measuring.best(action, 3, forget), measuring.best(action, 3)
            target = 0.5 if (workload, batch) == ("resnet50", 1) else None
            what = f"step of {workload}, {size or 'own'} px, batch {batch}"
            yield Row(f"{what}, warm, mapped anew", anew.wall_s, "s", target, cpu_s=anew.cpu_s)
            yield Row(f"{what}, warm, mappings cached", cached.wall_s, "s", cpu_s=cached.cpu_s)


TARGETS = {"streams": 3e6, "tile": 3e6, "gather": 3e6, "gemm": 3e6, "conv": 3e6, "random": 1e6}


def dram() -> Iterator[Row]:
    """The command-level DRAM kernel on streams that were measured with DRAM simulators and on longer ones, and the step
    of ResNet-50 with it behind the engine."""
    yield from measured_streams()
    yield from own_streams()
    for machine in ("edge-16x16", "edge-32x32"):
        hw = npu.load(machine).replace({"dram.model": "commands"})
        spent = measuring.best(partial(simulate, step("resnet50", 224, 1), hw, "dense-os"), 3)
        yield Row(f"step of resnet50, 224 px, batch 1, {machine}, DRAM commands, warm", spent.wall_s, "s", 5,
                  cpu_s=spent.cpu_s)  # fmt: skip


def measured_streams() -> Iterator[Row]:
    """Three configurations of validation/dram with one in-order injector: bursts per CPU second over all streams of a
    kind, and of the slowest one."""
    folder = Path(__file__).parents[1] / "validation" / "dram"
    rows = [row for row in validation.read_rows(folder / "measured.csv") if row.inject == "hol"]
    for name in ("lp4_3200_2x16_ch", "ddr4_3200_bg", "hbm2_8ch_bgch"):
        moved, spent, slowest = Counter(), Counter(), dict.fromkeys(TARGETS, np.inf)
        for row in rows:
            if row.config != name:
                continue
            config, address, write = validation.offered(row, folder / "configs")
            stream = address // config.burst_bytes, write, row.inject, row.per_clock
            seconds = measuring.best(partial(validation.run_stream, config, *stream), 2).cpu_s
            kind = row.params["kind"]
            moved[kind] += address.size
            spent[kind] += seconds
            slowest[kind] = min(slowest[kind], address.size / seconds)
        for kind in sorted(moved):
            yield Row(f"{name}, {kind}", moved[kind] / spent[kind], "bursts/s", TARGETS[kind], True)
            yield Row(f"{name}, {kind}, the slowest", slowest[kind], "bursts/s", TARGETS[kind], True)


def own_streams() -> Iterator[Row]:
    """Streams of a million bursts on the standards; 64 bytes at random places are what validation/dram calls random."""
    rng = np.random.default_rng(0)
    runs = 2**20
    patterns = {
        "streams": (np.arange(runs, dtype=np.int64), 3e6),
        "tiles of 512-byte rows": ((np.arange(runs) // 8 * 128 + np.arange(runs) % 8).astype(np.int64), 3e6),
        "64 bytes at random places": (np.repeat(rng.integers(0, 2**22, runs // 2), 2) * 2 + np.arange(runs) % 2, 1e6),
        "random bursts": (rng.integers(0, 2**23, runs), 1e6),
    }
    for device in ("lpddr4-3200", "ddr4-3200", "hbm2-2000"):
        for name, (places, target) in patterns.items():
            for written, kind in ((0.0, "reads"), (0.3, "30 % writes")):
                write = rng.random(runs) < written

                def action(device=device, places=places, write=write) -> None:
                    memory = Dram(load_standard(device))
                    memory.submit_bursts(0, 0, places, write)
                    memory.drain()

                spent = measuring.best(action, 2)
                yield Row(f"{device}, {name}, {kind}", runs / spent.cpu_s, "bursts/s", target, True)


def processes() -> Iterator[Row]:
    """What a user waits for: fresh processes."""
    run = measuring.process(["-m", "npusim", "run", "resnet50", "--input-size", "224"], 3)
    yield Row("npusim run resnet50 --input-size 224, cold process", run.wall_s, "s", 3, cpu_s=run.cpu_s)
    yield Row("its peak memory", run.peak_mib, "MiB", 1024)
    start = measuring.process(["-m", "npusim", "--help"], 5)
    yield Row("npusim --help", start.cpu_s, "s", 0.15, cpu_s=start.cpu_s)


SCALE = """
import sys
sys.path.insert(0, sys.argv[1])
from bench import lowered, measuring
from npusim import engine, npu
program = lowered("resnet50", 224, int(sys.argv[2])).program
engine.run(program, engine.unit_capacity(npu.load("edge-16x16")))
print(program.kind.size, measuring.peak_mib())
"""


def scale() -> Iterator[Row]:
    """Lowering and engine of ResNet-50 steps of growing batch, each in a fresh process."""
    for batch in (2, 19, 190):
        begin = time.perf_counter()
        command = [sys.executable, "-c", SCALE, str(Path(__file__).parent), str(batch)]
        tasks, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        wall = time.perf_counter() - begin
        yield Row(f"{int(tasks):,} tasks (batch {batch}): process from start to end", wall, "s")
        yield Row(f"{int(tasks):,} tasks (batch {batch}): its peak memory", float(peak), "MiB")


def sweeps(workers: int = 2) -> Iterator[Row]:
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
    yield Row(f"sweep of 1,000 machines, {workers} processes", wall, "s", 60, cpu_s=spent)
    yield Row("its points", 1000 / wall, "points/s", 1000 / 60, True)
    yield Row("share of their time that is not simulation", 1 - simulating / (workers * wall), "", 0.2)


def peers() -> Iterator[Row]:
    """Against SCALE-Sim, forward layers, 32x32, equal compute cycles; what it takes is read from benchmarks/peers."""
    sys.path.insert(0, str(Path(__file__).parent / "peers"))
    import compare

    for network in compare.NETWORKS:
        theirs = compare.peer(network, compare.SCALESIM)
        compare.same_cycles(theirs.rows)
        ours, cold = compare.times(network, theirs.rows), compare.command(network, sys.executable)
        for what in ("SCALE-Sim's cycles", "own simulation, same cycles", "own simulation, mapped anew"):
            spent = ours[what].cpu_s
            yield Row(f"{network}, time of SCALE-Sim / {what}", theirs.cpu_s / spent, "times", 1000, True, spent)
        used, grown = compare.memory(network, sys.executable)
        for what, their_mib, mib in (
            ("npusim as its command", theirs.whole_mib, cold.peak_mib),
            ("simulating", theirs.whole_mib, used),
            ("simulating, above tiny jobs", theirs.whole_mib - theirs.tiny_mib, grown),
        ):
            yield Row(f"{network}, memory of SCALE-Sim / {what}", their_mib / mib, "times", 50, True)


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "engines": engines, "mapping": mapping, "steps": steps, "dram": dram, "processes": processes, "sweeps": sweeps,
    "scale": scale, "peers": peers,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/bench.csv"))
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; repeatable")
    options = parser.parse_args()
    print(f"{measuring.machine()}; Python {platform.python_version()}, numba {version('numba')}\n")
    print(f"{'':62s} {'value':>10s} {'':8s} {'CPU s':>7s} {'target':>8s} {'distance':>8s}")
    rows = []
    for part in options.only or PARTS:
        for row in PARTS[part]():
            rows.append(row)
            cpu = "" if row.cpu_s is None else f"{row.cpu_s:.3g}"
            target = "" if row.target is None else f"{'>' if row.more else '<'} {row.target:g}"
            distance = "" if row.distance is None else f"{row.distance:.2f}"
            print(f"{row.what:62s} {row.value:10.4g} {row.unit:8s} {cpu:>7s} {target:>8s} {distance:>8s}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        environment = (measuring.machine(), platform.python_version(), *map(version, ("npusim", "numba", "numpy")))
        writer.writerow((*Row._fields, "distance", "machine", "python", "npusim", "numba", "numpy"))
        writer.writerows((*row, row.distance, *environment) for row in rows)
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
