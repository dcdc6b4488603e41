"""A new task on ReRAM crossbars: Piggyback, which re-programs cells, against masks of columns (XBM, XMA, XMA2).

    python experiments/crossbar_tasks/run.py            expected.csv, masks.csv, training.csv, results.md, crossbar.png
    python experiments/crossbar_tasks/run.py --check    holds the tables to the stored ones, writes nothing

README.md says what the columns are.
"""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

from npusim import atomic, catalogue, method, npu, plot, rewrite, trace
from npusim.graph import StepGraph
from npusim.mapping.crossbar import place
from npusim.method_runs import simulate_plan
from npusim.methods import _column_masks
from npusim.npu import Hardware
from npusim.simulation import simulate

HERE = Path(__file__).parent
MACHINE = "reram-128x128"
NETWORKS = ("resnet18", "resnet34", "mobilenetv2")
ROWS = (64, 128, 256)
METHODS = ("piggyback", "xbm", "xma", "xma2:pes=0.1", "xma2:pes=0.5")
XMA_BITS = 4
# Inferences of a task before the next one comes.
STAYS = (1, 10, 100, 1000)


def workload(name: str) -> StepGraph:
    return trace.read(catalogue.find("workloads", name))


def machine(rows: int = 128) -> Hardware:
    return npu.load(MACHINE).replace({"crossbar.rows": rows})


def plan(graph: StepGraph, text: str, hardware: Hardware) -> method.Plan:
    name, parameters = method.parse(text)
    return method.apply(name, graph, None, hardware, **parameters)


def mask_share(graph: StepGraph, bits: int, hardware: Hardware) -> float:
    """Mask bits of columns over those of Piggyback, which has one per weight of the backbone."""
    found = rewrite.layers(graph)[:-1]
    lies = {op.param: _column_masks.placed(graph, op, hardware, "xbm") for op in found}
    weights = sum(graph.tensors[op.param].elements for op in found)
    return bits * _column_masks.mask_values(found, lies) / weights


def arrival(graph: StepGraph, hardware: Hardware) -> dict[str, float]:
    """What a trained task costs before its first inference: its weights and element masks into the cells.

    Made from a training step: products of masks and weights, with one bit per weight in place of scores, and updates of
    weights in cells, with neither gradient nor state (the trained values are loaded). Products of layers are in the
    simulated step, since they say what lies in cells, but not in the sum. Column masks are loaded with every inference.
    """
    tensors = {name: replace(t, kind="mask") if name.endswith("/scores") else t for name, t in graph.tensors.items()}
    layers = [op for op in graph.phase("forward") if op.kind in ("conv", "linear")]
    held = {op.inputs[1] for op in layers}
    ops = []
    for op in graph.ops:
        if op.phase == "update" and op.outputs[0] in held:
            ops.append(replace(op, kind="elementwise", inputs=op.inputs[:1], outputs=op.outputs[:1]))
        elif op in layers or (op.phase == "aux" and op.name.endswith(".mask")):
            ops.append(op)
    run = simulate(rewrite.with_ops(replace(graph, tensors=tensors), ops), hardware)
    chosen = [i for i, mapped in enumerate(run.lowered.plans) if mapped.dataflow != "crossbar"]
    return {
        "cycles": int(run.cycles[chosen].sum()),
        "energy_mj": float(run.energy.pj[chosen].sum()) / 1e9,
        "cell_writes": int(run.count("cell_writes")[chosen].sum()),
        "cells": place(run.graph, hardware).cells,
    }


def inference(graph: StepGraph, hardware: Hardware) -> dict[str, float]:
    """One forward pass; the task's weights lie in the cells."""
    ops = [op for op in graph.phase("forward") if op.kind != "softmax_loss"]
    run = simulate(rewrite.with_ops(graph, ops), hardware)
    return {"cycles": int(run.cycles.sum()), "energy_mj": run.energy.total_pj / 1e9}


def masks() -> pd.DataFrame:
    """Mask memory against Piggyback's, on three networks and crossbars of several heights."""
    rows = []
    for net in NETWORKS:
        for height in ROWS:
            xbm, xma = (mask_share(workload(net), bits, machine(height)) for bits in (1, XMA_BITS))
            rows.append({"network": net, "rows": height, "xbm_share": xbm, "xma_saved": 1 - xma})
    return pd.DataFrame(rows)


def tasks() -> pd.DataFrame:
    """The arrival of a task on each method, and its inferences: energy, cycles, writes per cell."""
    hardware, graph, rows = machine(), workload(NETWORKS[0]), []
    for text in METHODS:
        step = plan(graph, text, hardware).parts[0].graph
        arrives, each = arrival(step, hardware), inference(step, hardware)
        cells = arrives.pop("cells")
        rows.append({
            "method": text, **{f"arrival_{name}": value for name, value in arrives.items()},
            **{f"inference_{name}": value for name, value in each.items()},
            "writes_per_cell": arrives["cell_writes"] / cells,
            **{f"mj_at_{n}": each["energy_mj"] + arrives["energy_mj"] / n for n in STAYS},
        })  # fmt: skip
    return pd.DataFrame(rows)


def training() -> pd.DataFrame:
    """A training step of every method, against dense training on the same machine."""
    hardware, graph, rows = machine(), workload(NETWORKS[0]), []
    base = simulate_plan(plan(graph, "dense", hardware), hardware, label="dense")
    for run in (base, *(simulate_plan(plan(graph, text, hardware), hardware, label=text) for text in METHODS)):
        step = run.phases.loc["step"]
        rows.append({
            **run.row(base),
            "cell_write_pj": float(step.cell_write_pj), "crossbar_pj": float(step.crossbar_pj),
        })  # fmt: skip
    return pd.DataFrame(rows)


def break_even(table: pd.DataFrame, method_name: str, ratio: float) -> float:
    """Inferences per task at which Piggyback spends `ratio` times the energy of a method."""
    rows = table.set_index("method")
    a, b = rows.loc["piggyback"], rows.loc[method_name]
    return float((a.arrival_energy_mj - ratio * b.arrival_energy_mj)
                 / (ratio * b.inference_energy_mj - a.inference_energy_mj))  # fmt: skip


def markdown(shares: pd.DataFrame, arrivals: pd.DataFrame) -> str:
    """results.md: headlines beside results; no match is claimed."""
    lines = [
        "# Crossbars: headlines beside results", "",
        "Written by `run.py`; do not edit. The papers' crossbar sizes, networks and devices are not public here",
        "(abstracts only): the conditions below are chosen, and no match is claimed.", "",
        "Mask memory, against one bit per backbone weight (Piggyback). Headlines: XBM 1.4 % (ASP-DAC 2022), XMA 96.6 %",
        f"saved (DAC 2022); XMA here with {XMA_BITS} bits per column.", "",
        "| network | rows of a crossbar | XBM | XMA saves |", "|---|---:|---:|---:|",
    ]  # fmt: skip
    for item in shares.itertuples():
        lines.append(f"| {item.network} | {item.rows} | {100 * item.xbm_share:.2f} % | {100 * item.xma_saved:.1f} % |")
    lines += [
        "", f"A new task on {MACHINE}, {NETWORKS[0]}, batch 1: its arrival (weights programmed, masks loaded) and its",
        "inferences.", "",
        "| method | arrival | cell writes | writes per cell | one inference | per inference at 10 | at 100 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for item in arrivals.itertuples():
        numbers = (f"{value:.2f} mJ" for value in (item.inference_energy_mj, item.mj_at_10, item.mj_at_100))
        writes = f"{item.arrival_cell_writes:,} | {item.writes_per_cell:.3f}"
        lines.append(f"| {item.method} | {item.arrival_energy_mj:.2f} mJ | {writes} | {' | '.join(numbers)} |")
    at = break_even(arrivals, "xma", 4.3), break_even(arrivals, "xbm", 1 / 0.6)
    one = arrivals.set_index("method").mj_at_1
    times, saved = one["piggyback"] / one["xma"], 100 * (1 - one["xbm"] / one["piggyback"])
    lines += [
        "",
        f"One inference per task: Piggyback spends {times:.2f} times XMA's energy, and XBM saves",
        f"{saved:.0f} % of it. Headlines: XMA about 4.3 times Piggyback's efficiency,",
        f"here {_when(at[0])}; XBM saves up to 40 %, here {_when(at[1])}.",
    ]
    return "\n".join(lines) + "\n"


def _when(inferences: float) -> str:
    return f"at {inferences:.1f} inferences per task" if inferences >= 1 else "not reached at one inference per task"


def check(tables: dict[str, pd.DataFrame]) -> int:
    """1 when a table is not the stored one."""
    wrong = 0
    for name, table in tables.items():
        try:
            found = pd.read_csv(io.StringIO(text_of(table)))
            pd.testing.assert_frame_equal(found, pd.read_csv(HERE / name), rtol=1e-4)
        except AssertionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            wrong = 1
    return wrong


def text_of(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n", float_format="%.8g")


def figure(arrivals: pd.DataFrame, steps: pd.DataFrame) -> bytes:
    """Energy of an inference with its share of the task's arrival, and cell writes of arrival and training step."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(plot.STYLE):
        drawn = Figure(figsize=(9.5, 3.6), layout="constrained")
        left, right = drawn.subplots(1, 2)
        for i, item in enumerate(arrivals.itertuples()):
            counts = [1, 3, 10, 30, 100, 300, 1000]
            energy = [item.inference_energy_mj + item.arrival_energy_mj / n for n in counts]
            left.plot(
                counts, energy, "o-", color=plot.PALETTE[i], markersize=7 - i, linewidth=3 - 0.4 * i, label=item.method
            )
        left.set(
            xscale="log", ylim=(0, None), xlabel="inferences of a task before the next one", ylabel="mJ per inference"
        )
        left.xaxis.set_major_formatter("{x:g}")
        left.set_title("Energy, arrival included")
        left.legend()
        names = list(arrivals.method)
        writes = steps.set_index("method").cell_writes.loc[names] / 1e6
        places = range(len(names))
        right.barh(
            [y + 0.2 for y in places],
            arrivals.arrival_cell_writes / 1e6,
            0.38,
            color=plot.PALETTE[0],
            label="task arrives",
        )
        right.barh([y - 0.2 for y in places], writes, 0.38, color=plot.PALETTE[1], label="training step")
        right.set_yticks(list(places), names)
        right.invert_yaxis()
        right.set(xlabel="million cells", title="Cells programmed")
        right.legend()
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")
        return plot.pngs({"crossbar": drawn})["crossbar"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="hold the tables to the stored ones")
    options = parser.parse_args()
    shares, arrivals, steps = masks(), tasks(), training()
    tables = {"masks.csv": shares, "expected.csv": arrivals, "training.csv": steps}
    if options.check:
        return check(tables)
    files: dict[str, bytes | str] = {name: text_of(table) for name, table in tables.items()}
    files |= {"results.md": markdown(shares, arrivals), "crossbar.png": figure(arrivals, steps)}
    atomic.write_files(HERE, files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
