"""How good the mapping search is: against every tiling of small problems, and against a wider search of real layers.

    python benchmarks/mapping.py [--problems 200] [--seed 0]

Small problems: random layers, phases, dataflows and machines; every tiling that fits (all extents, both loop orders) is
simulated. Real layers: the search with ten times the candidates priced exactly and a hundred times the simulated tasks.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from npusim import catalogue, npu
from npusim.graph import MAC_KINDS
from npusim.mapping import lower, search
from npusim.mapping.problem import problems
from npusim.trace import read
from npusim.trace.reshape import reshape

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "mapping"))
from mapping_cases import every_tiling, random_problem


def cycles(problem, tiling, dataflow, hw) -> int:
    return lower._cycles_alone(lower._map(problem, tiling, dataflow, hw, None), hw)


def report(what: str, ratios: np.ndarray, more: str = "") -> None:
    print(
        f"{what}: {ratios.size} problems{more}; equal to the best {100 * (ratios <= 1).mean():.1f} %, within 1 % "
        f"{100 * (ratios <= 1.01).mean():.1f} %, mean {ratios.mean():.5f}, largest {ratios.max():.4f}",
        flush=True,
    )


def small(count: int, seed: int) -> None:
    rng, ratios, simulated = np.random.default_rng(seed), [], 0
    for _ in range(count):
        problem, dataflow, hw = random_problem(rng)
        found, swap = every_tiling(problem, hw)
        classes = search.tile_classes(problem, dataflow, hw, found)
        every, _ = search.simulate(problem, hw, found, swap, classes.busy, np.zeros(swap.size, np.int64), 10**12)
        simulated += swap.size
        ratios.append(cycles(problem, search.best(problem, dataflow, hw), dataflow, hw) / every.min())
    report("small random problems", np.array(ratios), f", {simulated:,} tilings simulated")


def real(workload: str, hardware: str, dataflow: str) -> None:
    graph, hw = reshape(read(catalogue.find("workloads", workload)), 224, None), npu.load(hardware)
    flow = catalogue.load_dataflow(dataflow)
    parts = (problem for op in graph.ops if op.kind in MAC_KINDS for problem in problems(op, graph.tensors))
    different = list(dict.fromkeys(parts))
    own = [search.best(problem, flow, hw) for problem in different]
    kept = search.SHORTLIST, search.BUDGET
    search.SHORTLIST, search.BUDGET = 10 * kept[0], 100 * kept[1]
    search._best.cache_clear()
    wide = [search.best(problem, flow, hw) for problem in different]
    search.SHORTLIST, search.BUDGET = kept
    search._best.cache_clear()
    spent = partial(cycles, dataflow=flow, hw=hw)
    ratios = [spent(p, a) / spent(p, b) for p, a, b in zip(different, own, wide, strict=True)]
    report(f"{workload} 224 px on {hardware}, {dataflow}, against a wider search", np.array(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    small(options.problems, options.seed)
    for workload in ("resnet18", "resnet50", "mobilenetv2"):
        for hardware, dataflow in (("edge-16x16", "dense-os"), ("mcu-8x8", "dense-is")):
            real(workload, hardware, dataflow)


if __name__ == "__main__":
    main()
