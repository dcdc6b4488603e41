"""Every training method on four networks and two machines: one table and one figure.

    python experiments/all_methods/run.py            results/methods.csv, manifest.json, methods.png, methods.svg
    python experiments/all_methods/run.py --quick    MCUNet only

README.md says what the columns are.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd

from npusim import atomic, catalogue, method, npu, provenance, trace
from npusim.method_runs import compare_methods

HERE = Path(__file__).parent
NETWORKS = ("mcunet-5fps", "resnet18", "mobilenetv2", "vgg16-bn")
MACHINES = ("edge-16x16", "mcu-8x8")
# Machines of their own class: the methods made for them, and what these are held against.
SPECIAL = {
    "reram-128x128": ("piggyback", "xbm", "xma", "xma2", "last-k", "classifier-only"),
    "ipu-gc200": ("sltt", "snntorch-ipu", "snntorch-ipu:spikes=0.2", "last-k", "classifier-only"),
}
DENSE, SELECTIVE = "dense-os", "reduction-spatial"
# Variants beside the defaults of every method; the second list is run on the selective dataflow too.
VARIANTS = (
    "gradient-filtering:r=4", "gradient-filtering:r=7", "ksm:level=channel", "packnet:task=4", "sltt:T=6:K=2",
    "fractrain:a=4:w=4:g=8", "fractrain:a=4:w=4:g=8:array=scalable", "elastic-trainer:rho=0.45",
    "orepa:space=activation", "cpg:passes=1:width=1.5",
)  # fmt: skip
MASKED = ("swu", "swu:density=0.1", "packnet:skip=1", "packnet:task=4:skip=1", "sparcl")
# The first linear layer of VGG-16 has 103 million weights: a selective run with masks on it takes minutes, so of the
# masked variants only SparCL, which masks convolutions, is run.
MASKED_VGG = ("sparcl",)
MCUNET = ("mcunetv3:scheme=100KB", "mcunetv3:scheme=49KB", "mcunetv3:scheme=last12")


def rows_of(network: str, machine: str) -> tuple[list[dict], dict[str, str], dict]:
    """Table rows, misfits and provenance of one network on one machine."""
    start = time.time()
    graph, hw = trace.read(catalogue.find("workloads", network)), npu.load(machine)
    masks = () if machine in SPECIAL else MASKED_VGG if network == "vgg16-bn" else MASKED
    extra = MCUNET if network == "mcunet-5fps" else ()
    every = list(dict.fromkeys([*method.names(), *VARIANTS, *masks, *extra]))
    dense = compare_methods(graph, hw, SPECIAL.get(machine, every), DENSE, misfits=True)
    masked = compare_methods(graph, hw, masks, SELECTIVE)
    head = {"network": network, "hardware": machine}
    base = dense.runs[0]
    rows = [head | {"dataflow": DENSE} | run.row(base) for run in dense.runs]
    rows += [head | {"dataflow": SELECTIVE} | run.row(base) for run in masked.runs[1:]]
    for row, run in zip(rows, (*dense.runs, *masked.runs[1:]), strict=True):
        row["wgc_cycles"] = float(run.phases.cycles.get("grad_weight", 0.0))
    request = provenance.Request(network, machine, source=catalogue.find("workloads", network))
    record = provenance.manifest(base.runs, request, ["experiments/all_methods/run.py"])
    print(f"{network} on {machine}: {len(rows)} rows in {time.time() - start:.0f} s", flush=True)
    return rows, dict(dense.misfits), record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    atomic.check(options.out)
    rows, misfits, records = [], {}, {}
    machines = (*MACHINES, *SPECIAL)
    points = [(network, machine) for network in (NETWORKS[:1] if options.quick else NETWORKS) for machine in machines]
    with ProcessPoolExecutor(2) as pool:
        for (network, machine), result in zip(points, pool.map(rows_of, *zip(*points, strict=True)), strict=True):
            found, left_out, record = result
            rows += found
            misfits |= {f"{network} {machine} {name}": reason for name, reason in left_out.items()}
            records[f"{network} {machine}"] = record
            if machine == machines[-1]:
                write(options.out, pd.DataFrame(rows), {"misfits": misfits, "runs": records})


def write(folder: Path, table: pd.DataFrame, manifest: dict) -> None:
    """Table, figure and provenance of what is done so far."""
    from draw import figure_files

    files: dict[str, bytes | str] = {
        "methods.csv": table.to_csv(index=False, lineterminator="\n", float_format="%.6g"),
        "manifest.json": json.dumps(manifest, indent=1, sort_keys=True, default=str) + "\n",
    }
    atomic.write_files(folder, files | figure_files(table))


if __name__ == "__main__":
    main()
