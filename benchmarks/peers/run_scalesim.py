"""Time and memory of SCALE-Sim on the layers of ResNet-18 and ResNet-50, each in a process of its own.

    python benchmarks/peers/run_scalesim.py --python PEER/bin/python [--network resnet18] [--whole] [--out FILE.csv]

PEER is a virtual environment with `requirements.txt`. Rows are written as they come; layers that the file holds already
are left out, so an interrupted run goes on. `--whole` runs a network as SCALE-Sim's own command does, all layers in
one process; `--tiny` one layer of a single weight, which shows what the process takes by itself. Traces are not
written to disk.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

from networks import NETWORKS, SHAPE, configuration, layers, topology_text

FIELDS = ("network", "layer", "times", *SHAPE, "compute_cycles", "wall_s", "cpu_s", "peak_rss_mib")
SCRIPT = """
import sys
from scalesim.scale_sim import scalesim
config, topology, out = sys.argv[1:]
scalesim(save_disk_space=True, verbose=False, config=config, topology=topology, layout=topology).run_scale(top_path=out)
"""


def run(python: Path, rows: list[dict]) -> tuple[list[int], float, float, float]:
    """(compute cycles of every layer, wall and CPU seconds, peak MiB) of one process that simulates `rows`."""
    with tempfile.TemporaryDirectory() as folder:
        config, topology, reports = Path(folder, "scale.cfg"), Path(folder, "topology.csv"), Path(folder, "reports")
        config.write_text(configuration())
        topology.write_text(topology_text(rows))
        reports.mkdir()
        begin = time.perf_counter()
        command = [str(python), "-c", SCRIPT, str(config), str(topology), str(reports)]
        actions = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
        pid = os.posix_spawn(str(python), command, dict(os.environ, OMP_NUM_THREADS="1"), file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - begin
        if status:
            raise SystemExit(f"SCALE-Sim ended with status {status} on {[row['layer'] for row in rows]}")
        (report,) = reports.rglob("COMPUTE_REPORT.csv")
        with report.open(newline="") as file:
            found = list(csv.DictReader(file, skipinitialspace=True))
    # Its "Total Cycles" are one less than the compute cycles, plus stalls.
    cycles = [int(float(row["Total Cycles"])) + 1 - int(float(row["Stall Cycles"])) for row in found]
    return cycles, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", type=Path, required=True, help="of the environment that has SCALE-Sim")
    parser.add_argument("--network", choices=NETWORKS, action="append")
    parser.add_argument("--whole", action="store_true", help="all layers of a network in one process")
    parser.add_argument("--tiny", action="store_true", help="a layer of a single weight")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "scalesim.csv")
    options = parser.parse_args()
    done = set()
    if options.out.exists():
        with options.out.open(newline="") as file:
            done = {(row["network"], row["layer"]) for row in csv.DictReader(file)}
    with options.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not done:
            writer.writeheader()
        for network in options.network or NETWORKS:
            rows = list(layers(network))
            every = [row for row in rows for _ in range(row["times"])]
            jobs = [(row, [row]) for row in rows]
            if options.whole:
                jobs = [({"network": network, "layer": "(whole)", "times": 1}, every)]
            if options.tiny:
                jobs = [
                    (
                        {"network": network, "layer": "(tiny)", "times": 1},
                        [{"layer": "tiny", **dict.fromkeys(SHAPE, 1)}],
                    )
                ]
            for row, simulated in jobs:
                if (network, row["layer"]) in done:
                    continue
                cycles, wall, cpu, peak = run(options.python, simulated)
                measured = {"wall_s": f"{wall:.3f}", "cpu_s": f"{cpu:.3f}", "peak_rss_mib": f"{peak:.1f}"}
                writer.writerow({**row, "compute_cycles": sum(cycles), **measured})
                file.flush()
                print(network, row["layer"], sum(cycles), measured, flush=True)


if __name__ == "__main__":
    main()
