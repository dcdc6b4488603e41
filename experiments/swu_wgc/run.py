"""Selective weight-gradient computation: every mask structure on every dataflow, and real recorded masks.

    python experiments/swu_wgc/run.py            every table and figure
    python experiments/swu_wgc/run.py --quick    fewer points, the same tables and figures
    python experiments/swu_wgc/run.py --check    as the full run, then hold recorded.csv to expected.csv

Tables go to --out (CSV, provenance beside them), figures as PNG and SVG. README.md says what each shows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from npusim import catalogue, npu, provenance, structure, trace
from npusim.energy import table as energy_table
from npusim.energy.area import area
from npusim.graph import Conv, Op, StepGraph, Tensor, Vector
from npusim.mapping.lower import _Tiles
from npusim.mapping.problem import problems
from npusim.masks import Mask
from npusim.simulation import simulate
from npusim.trace.reshape import reshape

HERE = Path(__file__).parent
MACHINE = "edge-16x16"
NETWORKS = ("resnet18-swu", "vgg16-bn-swu", "mobilenetv2-swu")
EPOCHS = ("early", "middle", "late")
DENSITIES = (0.02, 0.05, 0.1, 0.16, 0.25, 0.35, 0.5, 0.75, 1.0)
STRUCTURES = ("element", "n_m", "kernel", "column_set", "input_channel", "output_channel", "tap")
DATAFLOWS = (
    "selective-row", "channel-skipping", "kernel-packed", "column-set", "element-gather", "ws-selective",
    "reduction-spatial", "reduction-window",
)  # fmt: skip
RECORDED = ("reduction-spatial", "reduction-window", "element-gather", "column-set", "hybrid")
BATCHED = ("reduction-window", "column-set")
BATCHES = (4, 8, 16, 32)
LAYER = Conv(1, 128, 28, 28, 128, 3, 3, padding=(1, 1))
# Selection of SWU, once per epoch, per mask weight: sum for the mean, subtract, absolute value, compare.
SELECTION_LANE_OPS = 4
STEPS_PER_EPOCH = (1, 10, 100)


def wgc(graph: StepGraph) -> StepGraph:
    """Only the weight gradients of convolutions and linear layers."""
    kept = tuple(op for op in graph.ops if op.phase == "grad_weight" and op.kind in ("conv", "linear"))
    return replace(graph, ops=kept)


def recorded(network: str, epoch: str, size: int, batch: int) -> StepGraph:
    name = network if epoch == "middle" else f"{network}/{epoch}"
    return reshape(trace.read(catalogue.find("workloads", name)), input_size=size, batch=batch)


def density_point(job: tuple[str, float]) -> list[dict]:
    """(a) One layer, one structure and density, every dataflow."""
    kind, density = job
    hw = npu.load(MACHINE)
    shape = (LAYER.k, LAYER.c, LAYER.r, LAYER.s)
    bits = structure.generate(shape, structure.Structure(kind), density, 1)
    if not bits.any():
        return []
    ops = (Op("layer", "grad_weight", "conv", LAYER, param="w"),)
    step = StepGraph("layer", ops, {}, update_masks={"w": Mask.of(bits)})
    dense = simulate(step, hw)
    rows = []
    for name in DATAFLOWS:
        run = simulate(step, hw, name)
        rows.append(
            {"structure": kind, "density": bits.mean(), "dataflow": name, **_gain(dense, run), "ideal": 1 / bits.mean()}
        )
    return rows


def _gain(dense, run) -> dict:
    return {
        "cycles": int(run.cycles.sum()),
        "dense_cycles": int(dense.cycles.sum()),
        "speedup": dense.cycles.sum() / run.cycles.sum(),
        "array_speedup": dense.array_cycles.sum() / run.array_cycles.sum(),
        "energy_gain": dense.energy.total_pj / run.energy.total_pj,
        "dram_gain": (dense.count("dram_read_bytes") + dense.count("dram_write_bytes")).sum()
        / (run.count("dram_read_bytes") + run.count("dram_write_bytes")).sum(),
    }


def recorded_point(job: tuple[str, str, int, int, tuple[str, ...], str]) -> dict[str, list[dict]]:
    """(b), (d) One recorded step at one size and batch, WGC alone; per layer and in all."""
    network, epoch, size, batch, dataflows, selection = job
    hw = npu.load(MACHINE)
    step = wgc(recorded(network, epoch, size, batch))
    if selection != "recorded":
        step = structure.coarsened_step(step, structure.Structure(selection), "equal_count")
    dense = simulate(step, hw)
    key = {"network": network, "epoch": epoch, "size": size, "batch": batch, "selection": selection}
    selected = sum(m.count for m in step.update_masks.values()) / sum(m.size for m in step.update_masks.values())
    macs = [op.macs * (step.update_masks[op.param].density if op.param in step.update_masks else 1) for op in step.ops]
    wanted = sum(macs) / sum(op.macs for op in step.ops)
    found: dict[str, list[dict]] = {"recorded": [], "layers": [], "overheads": [_overheads(key, "dense-os", dense)]}
    for name in dataflows:
        run = simulate(step, hw, name)
        total = {**key, "dataflow": name, "density": selected, "mac_share": wanted, **_gain(dense, run)}
        found["recorded"].append(total)
        found["overheads"].append(_overheads(key, name, run))
        for i, plan in enumerate(run.lowered.plans):
            mask = step.update_masks.get(plan.op.param)
            found["layers"].append(
                {
                    **key, "dataflow": name, "layer": plan.op.name, "used": plan.dataflow,
                    "density": mask.density if mask else 1.0, "t": plan.op.dims.t, "groups": plan.op.dims.groups,
                    "dense_cycles": dense.cycles[i], "cycles": run.cycles[i],
                    "speedup": dense.cycles[i] / max(run.cycles[i], 1),
                    "energy_gain": dense.energy.pj[i].sum() / max(run.energy.pj[i].sum(), 1e-9),
                }
            )  # fmt: skip
    return found


def _overheads(key: dict, name: str, run) -> dict:
    """Where the cycles go: wanted MACs at the array's peak, and every reason why there are more cycles."""
    peak = run.hardware.array.rows * run.hardware.array.cols
    wanted, gated = run.count("macs_done").sum() / peak, run.count("macs_gated").sum() / peak
    port = run.port_stall_cycles.sum()
    inside = run.array_cycles.sum() - port - wanted - gated
    return {
        **key, "dataflow": name, "cycles": int(run.cycles.sum()), "wanted": wanted, "gated": gated, "in_array": inside,
        "buffer_ports": port, "dram_loads": run.load_stall_cycles.sum(),
        "stores_and_drain": run.store_stall_cycles.sum() + run.drain_cycles.sum(),
        **_window_parts(run, name),
    }  # fmt: skip


def _window_parts(run, name: str) -> dict:
    """What `in_array` is made of on the reduction-window array, from its own tile fields."""
    if name != "reduction-window":
        return {}
    flow = catalogue.load_dataflow(name)
    setup, total = flow.cost.__globals__, {}
    for plan in run.lowered.plans:
        if plan.dataflow != name:
            continue
        mask = run.graph.update_masks[plan.op.param]
        (problem,), (tiling,) = problems(plan.op), plan.tilings
        tiles = _Tiles(problem, tiling, masked=True)
        grid = tiles.grid(problem, run.hardware, mask)
        array = setup["array_of"](run.hardware, grid.a_bits, grid.b_bits)
        lines = (grid.lines, setup["halo"](grid.lines))
        cells = setup["window_grid"](*grid.mask.where, grid.t.ravel(), grid.taps, *lines, array, grid.mask.span)
        fields = grid.mask.fields(cells, setup["WINDOW_FIELDS"])
        for field in setup["WINDOW_FIELDS"][1:6]:
            total[field] = total.get(field, 0) + int((fields[field] * tiles.multiplicity).sum())
    return total


def areas() -> pd.DataFrame:
    """Area of the machine without a reduction mode, and with what each dataflow needs."""
    rows = []
    for name in ("dense-os", *DATAFLOWS):
        hw = npu.load(MACHINE)
        if not name.startswith("reduction"):
            hw = hw.replace({"array.pe_registers": 0})
        found = area(hw, energy_table.load(hw.energy.table), dataflow=catalogue.load_dataflow(name))
        rows.append({"dataflow": name, "total_mm2": found.total_mm2, **found.mm2})
    return pd.DataFrame(rows).fillna({"selection": 0.0})


def machine_point(job: tuple[str, dict]) -> dict:
    """(c) Another array or other buffers: reduction-window against dense on ResNet-18, WGC alone."""
    label, changes = job
    base = "edge-32x32" if label == "array 32x32" else MACHINE
    hw = npu.load(base).replace(changes)
    step = wgc(recorded("resnet18-swu", "middle", 224, 1))
    dense, run = simulate(step, hw), simulate(step, hw, "reduction-window")
    mm2 = area(hw, energy_table.load(hw.energy.table)).mm2
    return {"machine": label, **_gain(dense, run), "area_mm2": sum(mm2.values()), "pe_array_mm2": mm2["pe_array"],
            "dense_ms": dense.cycles.sum() / hw.clock_hz * 1e3, "ms": run.cycles.sum() / hw.clock_hz * 1e3}  # fmt: skip


def machines(quick: bool) -> list[tuple[str, dict]]:
    found: list[tuple[str, dict]] = [("edge-16x16", {})]
    found += [(f"array {n}x{n}", {"array.rows": n, "array.cols": n} if n != 32 else {}) for n in (8, 32)]
    for scale in (0.5, 2, 4):
        sizes = {"a": 96, "b": 96, "accumulator": 56}
        changes: dict = {f"buffers.{k}.bytes": int(v * 1024 * scale) for k, v in sizes.items()}
        # Half the buffers have banks of 6 KiB; the CACTI figures begin at 8.
        changes |= {"energy.sram_outside": "power-law"} if scale < 1 else {}
        found.append((f"buffers x{scale:g}", changes))
    found += [(f"dY registers {n}", {"array.pe_registers": n}) for n in (8, 32)]
    found += [(f"ports {n} B", {f"buffers.{k}.bytes_per_cycle": n for k in "ab"}) for n in (64, 256)]
    found += [(f"DRAM {n} GB/s", {"dram.bandwidth_bytes_per_s": n * 10**9}) for n in (6, 25)]
    return found[:4] if quick else found


def step_point(job: tuple[str, int]) -> list[dict]:
    """(e) The whole step, and what choosing the elements costs."""
    network, size = job
    hw = npu.load(MACHINE)
    graph = recorded(network, "middle", size, 1)
    dense = simulate(graph, hw)
    chosen = simulate(selection(graph), hw)
    rows = []
    for name in ("reduction-spatial", "reduction-window", "hybrid"):
        run = simulate(graph, hw, name)
        shares = dense.phases().cycles
        share = shares["grad_weight"] / shares["step"]
        common = {"network": network, "size": size, "dataflow": name, "wgc_share": share}
        update = dense.phases().cycles.get("update", 0) / max(run.phases().cycles.get("update", 1), 1)
        for steps in (*STEPS_PER_EPOCH, np.inf):
            cycles = run.cycles.sum() + chosen.cycles.sum() / steps
            pj = run.energy.total_pj + chosen.energy.total_pj / steps
            rows.append(
                {
                    **common, "steps_per_epoch": steps,
                    "wgc_speedup": shares["grad_weight"] / run.phases().cycles["grad_weight"],
                    "update_speedup": update, "step_speedup": dense.cycles.sum() / cycles,
                    "step_energy_gain": dense.energy.total_pj / pj, "selection_cycles": int(chosen.cycles.sum()),
                }
            )  # fmt: skip
    return rows


def selection(graph: StepGraph) -> StepGraph:
    """SWU's choice of targeted elements: mean and distance to the threshold of every mask weight, one bit out."""
    ops, tensors = [], {}
    for name, mask in graph.update_masks.items():
        tensors[f"{name}.score"] = Tensor(f"{name}.score", (mask.size,), "state")
        tensors[f"{name}.bits"] = Tensor(f"{name}.bits", (mask.size,), "mask")
        dims = Vector(mask.size, SELECTION_LANE_OPS)
        ops.append(Op(name, "aux", "elementwise", dims, (f"{name}.score",), (f"{name}.bits",)))
    return StepGraph("selection", tuple(ops), tensors)


def recorded_jobs(quick: bool) -> list[tuple]:
    if quick:
        return [("resnet18-swu", "middle", 32, batch, RECORDED[:2], "recorded") for batch in (1, 8)]
    jobs = []
    for network in NETWORKS:
        jobs += [(network, "middle", size, batch, BATCHED, "recorded") for batch in BATCHES for size in (224, 32)]
        jobs += [(network, epoch, size, 1, RECORDED, "recorded") for epoch in EPOCHS for size in (32, 224)]
    # The longest first.
    jobs.sort(key=lambda job: -job[2] * job[2] * job[3])
    for network in NETWORKS:
        jobs += [(network, "middle", size, 1, ("column-set", "hybrid"), "column_set") for size in (32, 224)]
    return jobs


def collect(jobs: int, quick: bool) -> dict[str, pd.DataFrame]:
    """Every table, by name."""
    densities = (0.05, 0.16, 0.5) if quick else DENSITIES
    structures = ("element", "column_set") if quick else STRUCTURES
    steps = [("resnet18-swu", 32)] if quick else [(n, size) for n in NETWORKS for size in (32, 224)]
    with ProcessPoolExecutor(jobs) as pool:
        real = pool.map(recorded_point, recorded_jobs(quick))
        sweep = pool.map(density_point, [(s, d) for s in structures for d in densities])
        hardware_rows = pool.map(machine_point, machines(quick))
        whole = pool.map(step_point, steps)
        parts = list(real)
        tables = {name: pd.DataFrame([row for part in parts for row in part[name]]) for name in parts[0]}
        tables["density"] = pd.DataFrame([row for rows in sweep for row in rows])
        tables["machines"] = pd.DataFrame(list(hardware_rows))
        tables["step"] = pd.DataFrame([row for rows in whole for row in rows])
    tables["areas"] = areas()
    return tables


def check(found: pd.DataFrame, expected: Path) -> list[str]:
    """Rows of `expected` that `found` does not reproduce within 1 %."""
    keys = ["network", "epoch", "size", "batch", "selection", "dataflow"]
    both = pd.read_csv(expected).merge(found, on=keys, how="left", suffixes=("", "_now"))
    same = [np.isclose(both[name], both[f"{name}_now"], rtol=0.01) for name in ("speedup", "energy_gain")]
    bad = both[~(same[0] & same[1])]
    return [" ".join(map(str, row)) for row in bad[[*keys, "speedup", "speedup_now"]].itertuples(index=False)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/swu_wgc"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    began, clock = time.monotonic(), os.times()
    tables = collect(options.jobs, options.quick)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        frame.to_csv(options.out / f"{name}.csv", index=False, float_format="%.6g")
    record = {"date": provenance.date(), "versions": provenance.versions(), "code_sha256": provenance.code_digest(),
              "machine": MACHINE, "quick": options.quick}  # fmt: skip
    (options.out / "provenance.json").write_text(json.dumps(record, indent=1) + "\n")
    from draw import draw

    drawn = draw(tables, options.out)
    spent = sum(os.times()[:4]) - sum(clock[:4])
    print(f"{len(tables)} tables and {len(drawn)} figures in {options.out} after {time.monotonic() - began:.0f} s "
          f"({spent:.0f} s of CPU)")  # fmt: skip
    shown = ["network", "epoch", "size", "batch", "selection", "dataflow", "mac_share", "speedup", "energy_gain"]
    print(tables["recorded"][shown].to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    wrong = check(tables["recorded"], HERE / "expected.csv") if options.check else []
    for line in wrong:
        print(f"not as expected: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
