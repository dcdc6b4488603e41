"""Published numbers of training methods beside npusim's: writes docs/reproduction.md and the tables behind it.

    python experiments/reproduce_methods/run.py            expected.csv, measured.csv and docs/reproduction.md
    python experiments/reproduce_methods/run.py --check    holds the tables to the stored ones, writes nothing

Three kinds of row: recomputed (the authors' rule or file is public: the difference is given), measured (their board
beside this machine: only the order can agree) and headline (conditions are not public: no match is claimed).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from headlines import headlines

from npusim import atomic, catalogue, method, npu, rewrite, trace
from npusim.graph import Conv, StepGraph
from npusim.methods import elastic_trainer, fractrain, gradient_filtering, mcunetv3, packnet, sltt, sparcl
from npusim.simulation import Run, simulate
from npusim.synthesis import from_layers

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FLOPS = {
    ("resnet18", 10): {1: (128.25, 487.68, 847.15, 1140), 2: (8.18, 26.80, 45.45, 60.01), 4: (1.88, 7.93, 13.99, 19.12),
                       7: (0.30310, 3.21, 6.12, 8.90)},
    ("mobilenetv2", 1000): {1: (None, 113.68, None, 160.00), 2: (None, 39.27, None, 53.96)},
    ("resnet18", 1000): {1: (None, 489.20, None, 1140), 2: (None, 28.32, None, 61.53)},
}  # fmt: skip
KEPT = (
    ("resnet18", 2, 1, 196), ("resnet18", 2, 2, 64), ("resnet18", 4, 1, 490), ("resnet18", 4, 2, 112),
    ("resnet34", 4, 1, 392), ("resnet34", 4, 2, 128), ("mobilenetv2", 2, 1, 245), ("mobilenetv2", 2, 2, 80),
    ("mobilenetv2", 4, 1, 459.375), ("mobilenetv2", 4, 2, 150),
)  # fmt: skip
# Channels, rows, columns; measured backward speedups (arXiv 2301.00330): Jetson CPU and GPU, r = 2 and 4.
LAYERS = (
    (128, 120, 160, 23.4, 86.04, 19.1, 49.1), (256, 60, 80, 24.8, 76.85, 22.2, 60.1),
    (512, 30, 40, 24.8, 114.14, 21.4, 62.7), (512, 14, 14, 28.5, 72.91, 15.8, 36.8),
    (256, 14, 14, 27.6, 77.77, 13.2, 24.2), (128, 28, 28, 20.1, 66.67, 11.4, 28.6),
    (64, 56, 56, 17.3, 57.30, 11.9, 21.4),
)  # fmt: skip
MACHINE = "edge-16x16"
NETS = 50
# Share of energy left, measured on the boards (arXiv 2301.00330), by r.
ENERGY_LEFT = {2: (4.13, 3.80), 4: (1.15, 1.22)}


def workload(name: str) -> StepGraph:
    return trace.read(catalogue.find("workloads", name))


def recomputed() -> Iterator[dict]:
    """Rows whose rule is public: what is compared, published, npusim."""
    mcunet = workload("mcunet-5fps")
    for scheme, value in (("100KB", 99.84), ("last12", 448.05), ("49KB", 49.75)):
        step = method.apply("mcunetv3", mcunet, scheme=scheme).parts[0].graph
        found = float(mcunetv3.published_bytes(step) / 1024)
        yield row("MCUNetV3", f"training memory, scheme {scheme}, KiB", value, found)
    step = method.apply("mcunetv3", mcunet, scheme="49KB").parts[0].graph
    recorded = workload("mcunetv3-49kb")
    for phase, value in (("forward", 22_455_104), ("grad_input", 9_153_856), ("grad_weight", 775_744)):
        for name, graph in (("recorded step", recorded), ("rewritten layer list", step)):
            found = sum(op.macs for op in graph.phase(phase))
            yield row("MCUNetV3", f"{phase} MACs, {name}", value, found)
    yield row("MCUNetV3", "dense step, M MACs", 65.59, sum(op.macs for op in mcunet.ops) / 1e6)
    for (net, classes), table in FLOPS.items():
        for r, values in table.items():
            for layers, value in enumerate(values, 1):
                if value is not None:
                    what = f"{net}, {classes} classes, last {layers}, " + (f"r = {r}" if r > 1 else "unfiltered")
                    yield row("gradient filtering", f"{what}, M FLOPs", value, flops(net, classes, layers, r) / 1e6)
    for net, layers, r, value in KEPT:
        found = sum(gradient_filtering.kept_bytes(d, r) for d in convolutions(net)[-layers:]) / 1024
        yield row("gradient filtering", f"{net}, last {layers}, r = {r}, kept X, KiB", value, found)
    for task, value in ((2, 0.5), (3, 0.375), (4, 0.281)):
        yield row("PackNet", f"share of weights trained for task {task}", value, packnet.density(task))
    masks = method.apply("packnet", workload("resnet18"), task=4, skip=1).parts[0].graph.update_masks.values()
    found = sum(m.count for m in masks) / sum(m.size for m in masks)
    yield row("PackNet", "selected weights of task 4, ResNet-18's backbone", 0.281, found)
    yield row("SparCL", "share of the dense step's MACs", 0.181, sparcl.cost())
    yield row("SparCL", "the same in ResNet-18's 16 masked layers", 0.181, sparcl_share())
    yield row("ElasticTrainer", f"importance chosen / best of all subsets, {NETS} small nets", 1.0, selected())
    yield row("SparCL", "share of FLOPs, published 2.0e15 / 11.1e15", 2.0 / 11.1, sparcl.cost())
    yield row("SLTT-K", "cost rule by hand: T = 6, K = 2, F = 1, E + G = 2", 6 + 2 * 2, sltt.cost(1, 2, 6, 2))
    by_hand, found = 3 * 8 * 8 / 32**2, fractrain.weighted_macs(1, 1, 1, 8, 8, 8)
    yield row("FracTrain", "cost rule by hand: F = E = G = 1, 8 bits", by_hand, found)


def sparcl_share() -> float:
    """MACs that masks and dropped data leave of the masked layers of a rewritten ResNet-18."""
    (part,) = method.apply("sparcl", workload("resnet18")).parts
    ops = tuple(op for op in part.graph.ops if op.param in part.graph.update_masks and op.macs)
    left = rewrite.useful_macs(replace(part.graph, ops=ops))
    return float(part.share) * left / sum(op.macs for op in ops)


def selected() -> float:
    """Importance that ElasticTrainer's selector finds over the best of all subsets, the worst of NETS small nets.

    Times and importances are drawn; the budget is in whole time quanta, as the selector's rounding asks for.
    """
    worst = 1.0
    for seed in range(NETS):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 11))
        own = [int(t) for t in rng.integers(1, 40, count)]
        reach = [int(t) for t in np.concatenate([[0], np.cumsum(rng.integers(0, 30, count - 1))])]
        worth, budget = [float(v) for v in rng.random(count)], int(rng.integers(min(own), 400))
        subsets = (s for n in range(1, count + 1) for s in combinations(range(count), n))
        best = max(
            (sum(worth[i] for i in s) for s in subsets if sum(own[i] for i in s) + reach[max(s)] <= budget), default=0
        )
        found = sum(worth[i] for i in elastic_trainer.select(own, reach, worth, budget, quanta=budget))
        worst = min(worst, found / best if best else 1.0)
    return worst


def row(name: str, what: str, published: float, found: float) -> dict:
    return {
        "method": name,
        "quantity": what,
        "published": published,
        "npusim": found,
        "difference": found / published - 1,
    }


def convolutions(net: str) -> list[Conv]:
    return [rewrite.dims_of(op) for op in gradient_filtering.main_path(workload(net))]


def flops(net: str, classes: int, layers: int, r: int) -> int:
    classifier = replace(rewrite.dims_of(rewrite.layers(workload(net))[-1]), k=classes)
    chosen = enumerate(convolutions(net)[-layers:])
    return gradient_filtering.classifier_flops(classifier) + sum(
        gradient_filtering.flops(d, r, i > 0) for i, d in chosen
    )


def measured() -> pd.DataFrame:
    """Backward speedup of single layers (E + G + filter, batch 32): simulated beside measured ones."""
    machine = npu.load(MACHINE)
    rows = []
    for channels, height, width, cpu2, cpu4, gpu2, gpu4 in LAYERS:
        graph = one_layer(channels, height, width)
        base = backward(graph, machine)
        for r, cpu, gpu in ((2, cpu2, gpu2), (4, cpu4, gpu4)):
            step = method.apply("gradient-filtering", graph, r=r, layers=0).parts[0].graph
            dims = Conv(32, channels, -(-height // r), -(-width // r), channels)
            rows.append({
                "layer": f"{channels}@{height}x{width}", "r": r, "mac_ratio": 9 * height * width / (dims.p * dims.q),
                "simulated": base.schedule.cycles / (run := backward(step, machine)).schedule.cycles,
                "jetson_cpu": cpu, "jetson_gpu": gpu, "energy_left": run.energy.total_pj / base.energy.total_pj,
            })  # fmt: skip
    return pd.DataFrame(rows)


def one_layer(channels: int, height: int, width: int) -> StepGraph:
    """The layer with something to propagate an error to."""
    conv = {"kind": "conv", "out": channels, "kernel": 3, "padding": 1}
    layers = [
        {"name": "image", "kind": "input", "shape": (32, channels, height, width)},
        {"name": "first", **conv, "kernel": 1, "padding": 0},
        {"name": "layer", **conv},
        {"name": "pool", "kind": "pool", "size": 1},
        {"name": "flatten", "kind": "flatten"},
        {"name": "classifier", "kind": "linear", "out": 10},
    ]
    return from_layers(layers, f"{channels}@{height}x{width}")


def backward(graph: StepGraph, machine) -> Run:
    """E, G and what the filter adds to the layer."""
    own = [op for op in graph.ops if op.name.split(".")[0] == "layer" and op.phase not in ("forward", "update")]
    return simulate(replace(graph, ops=tuple(own)), machine)


def correlation(table: pd.DataFrame, a: str, b: str, r: int) -> float:
    """Spearman's rank correlation over the seven layers."""
    part = table[table.r == r]
    return float(part[a].rank().corr(part[b].rank()))


def markdown(exact: pd.DataFrame, layers: pd.DataFrame, shown: pd.DataFrame) -> str:
    """docs/reproduction.md."""
    worst = exact.difference.abs().max()
    lines = [
        "# Published numbers of training methods", "",
        "Written by `python experiments/reproduce_methods/run.py`; do not edit.", "",
        f"## Recomputed: {len(exact)} numbers, largest difference {100 * worst:.2f} %", "",
        "Published numbers are rounded as printed by their authors. Rules and sources: [methods](methods.md).", "",
        "| method | quantity | published | npusim | difference |", "|---|---|---:|---:|---:|",
    ]  # fmt: skip
    for item in exact.itertuples():
        numbers = f"{item.published:,.10g} | {item.npusim:,.10g} | {100 * item.difference:+.2f} %"
        lines.append(f"| {item.method} | {item.quantity} | {numbers} |")
    lines += [
        "", "## Measured: gradient filtering, backward speedup of single layers", "",
        f"Batch 32, 3x3, stride 1, padding 1; E + G + filter. Simulated: {MACHINE}, dense-os. Measured: fp32 on a",
        "Jetson CPU and GPU (arXiv 2301.00330). A board with caches and libraries is not this machine: compare the",
        "order.", "",
        "| layer | r | MAC ratio | simulated | Jetson CPU | Jetson GPU |", "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for item in layers.itertuples():
        numbers = f"{item.mac_ratio:.0f} | {item.simulated:.1f} | {item.jetson_cpu:g} | {item.jetson_gpu:g}"
        lines.append(f"| {item.layer} | {item.r} | {numbers} |")
    ranks = [
        f"{board.replace('jetson_', '').upper()} r = {r}: {correlation(layers, 'simulated', board, r):+.2f}"
        for board in ("jetson_cpu", "jetson_gpu") for r in (2, 4)
    ]  # fmt: skip
    lines += ["", f"Spearman rank correlation with the simulated speedups: {'; '.join(ranks)}.", ""]
    for r, (cpu, gpu) in ENERGY_LEFT.items():
        least, most = (f"{100 * part:.1f}" for part in layers[layers.r == r].energy_left.agg(["min", "max"]))
        lines += [f"Energy left at r = {r}: {least} to {most} % simulated; measured {cpu} % (CPU), {gpu} % (GPU).", ""]
    lines += [
        "## Headlines: no match is claimed", "",
        "Networks, machines or precision behind these are not public or not modelled. Conditions here are stated; the",
        "number is the step's ratio to dense training on the same machine unless it says otherwise.", "",
        "| method | headline (source) | conditions here | npusim |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {h.method} | {h.headline} | {h.conditions} | {h.npusim} |" for h in shown.itertuples()]
    return "\n".join(lines) + "\n"


def check(tables: dict[str, pd.DataFrame]) -> int:
    """1 when a table is not the stored one."""
    wrong = 0
    for name, table in tables.items():
        stored = pd.read_csv(HERE / name)
        try:
            pd.testing.assert_frame_equal(pd.read_csv(_as_file(table)), stored, rtol=1e-4)
        except AssertionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            wrong = 1
    return wrong


def _as_file(table: pd.DataFrame):
    import io

    return io.StringIO(text_of(table))


def text_of(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n", float_format="%.8g")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="hold the tables to the stored ones")
    options = parser.parse_args()
    exact, layers = pd.DataFrame(recomputed()), measured()
    if options.check:
        return check({"expected.csv": exact, "measured.csv": layers})
    shown = pd.DataFrame(headlines())
    atomic.write_files(HERE, {"expected.csv": text_of(exact), "measured.csv": text_of(layers)})
    atomic.write_files(ROOT / "docs", {"reproduction.md": markdown(exact, layers, shown)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
