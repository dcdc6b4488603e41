"""Long and large inputs: seconds and peak memory of each, in a process of its own, or the message that refuses it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# what -> (full sizes, sizes of the short form)
SIZES = {
    "layers": ((250, 500, 1000), (20, 40)),
    "macs": ((10**10, 10**11, 10**12), (10**7, 10**8)),
    "tasks": ((10**5, 10**6, 10**7), (10**3, 10**4)),
    "mask_bytes": ((60 * 2**20, 240 * 2**20, 960 * 2**20), (2**16, 2**18)),
    "masked_layer_bytes": ((2**20, 2**22, 2**24), (2**10, 2**12)),
    "too_many_bytes": ((2**30 + 2**24,), ()),
}


def run(out: Path, short: bool = False) -> None:
    """Measure what `out` does not have; rows are written as they come."""
    rows = json.loads(out.read_text()) if out.exists() else []
    known = {(row["what"], row["size"]) for row in rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    for what, (full, small) in SIZES.items():
        for size in small if short else full:
            if (what, size) in known:
                continue
            done = subprocess.run(
                [sys.executable, "-m", "reliability.large", what, str(size)], capture_output=True, text=True, cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(f"{what} {size}: {done.stderr[-2000:]}")
            rows.append({"what": what, "size": size, **json.loads(done.stdout)})
            out.write_text(json.dumps(rows, indent=1) + "\n")


def layers(size: int) -> dict[str, object]:
    """A chain of `size` convolutions with norms, all phases."""
    from npusim import npu
    from npusim.simulation import simulate
    from npusim.synthesis import from_layers

    net: list[dict[str, object]] = [{"name": "in", "kind": "input", "shape": (1, 8, 14, 14)}]
    for i in range(size):
        net.append({"name": f"conv{i}", "kind": "conv", "out": 8 + i % 9, "kernel": 3, "padding": 1})
    run = simulate(from_layers(net, "chain"), npu.load("edge-16x16"))
    return {"operations": len(run.graph.ops), "tasks": run.lowered.program.kind.size, "cycles": run.schedule.cycles}


def macs(size: int) -> dict[str, object]:
    """One convolution of `size` multiply-accumulates in each phase, on the largest preset."""
    from npusim import npu
    from npusim.graph import Conv, Op, StepGraph
    from npusim.simulation import simulate

    dims = Conv(max(1, size // (512 * 512 * 9 * 28 * 28)), 512, 28, 28, 512, 3, 3, padding=(1, 1))
    ops = tuple(Op("layer", phase, "conv", dims, param="w") for phase in ("forward", "grad_input", "grad_weight"))
    run = simulate(StepGraph("large", ops, {}), npu.load("server-128x128"))
    return {"macs": sum(op.macs for op in ops), "tasks": run.lowered.program.kind.size, "cycles": run.schedule.cycles}


def tasks(size: int) -> dict[str, object]:
    """A double-buffered program of `size` tasks: loads, products and stores in turn."""
    import numpy as np

    from npusim import engine
    from npusim import program as tp

    n = size // 3 * 3
    kind = np.tile(np.array([tp.LOAD, tp.COMPUTE, tp.STORE], np.uint8), n // 3)
    position = np.arange(n)
    deps = np.where(kind == tp.LOAD, position - 6, position - 1)
    ptr = np.concatenate([[0], np.cumsum(deps >= 0)])
    zeros = np.zeros(n, np.int64)
    program = tp.TileProgram(
        kind, np.zeros(n, np.int32), 3 + position % 7, np.where(kind == tp.COMPUTE, 0, 5), zeros,
        np.zeros(n, np.uint8), np.zeros(n, np.uint8), zeros, ptr, deps[deps >= 0].astype(np.int32),
    )  # fmt: skip
    begin = time.monotonic()
    schedule = engine.run(program, np.array([1, 1, 1, 2, 1]))
    return {"tasks": n, "cycles": schedule.cycles, "engine_seconds": round(time.monotonic() - begin, 3)}


def mask_bytes(size: int) -> dict[str, object]:
    """A trace whose masks take `size` bytes packed, written and read back."""
    from npusim import trace

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masks.npz"
        graph = masked(size, 8)
        trace.write(graph, path)
        written = path.stat().st_size
        back = trace.read(path)
    return {"file_bytes": written, "same": back.digest() == graph.digest()}


def too_many_bytes(size: int) -> dict[str, object]:
    """Masks beyond the limit of a trace file are refused when they are written."""
    from npusim import trace
    from npusim.errors import NpusimError

    with tempfile.TemporaryDirectory() as folder:
        try:
            trace.write(masked(size, 8), Path(folder) / "masks.npz")
        except NpusimError as error:
            return {"refused": str(error).rpartition("/")[2], "files_left": len(list(Path(folder).iterdir()))}
    return {"refused": ""}


def masked_layer_bytes(size: int) -> dict[str, object]:
    """A linear layer whose mask takes `size` bytes packed, on a selective dataflow."""
    from npusim import npu
    from npusim.simulation import simulate

    run = simulate(masked(size, 1), npu.load("server-128x128"), "selective-row")
    return {"weights": 8 * size, "tasks": run.lowered.program.kind.size, "cycles": run.schedule.cycles}


def masked(size: int, count: int):
    """`count` linear layers with unstructured masks of `size` bytes together, as incompressible as can be."""
    import numpy as np

    from npusim.graph import Conv, Op, StepGraph
    from npusim.masks import Mask

    rng, ops, masks = np.random.default_rng(1), [], {}
    each = size // count
    rows = 1 << (each.bit_length() // 2)
    columns = 8 * each // rows
    for i in range(count):
        ops.append(Op(f"fc{i}", "grad_weight", "linear", Conv(8, columns, 1, 1, rows), param=f"fc{i}.weight"))
        packed = np.frombuffer(rng.bytes(rows * columns // 8), np.uint8)
        masks[f"fc{i}.weight"] = Mask((rows, columns), packed)
    return StepGraph("masked", tuple(ops), {}, update_masks=masks)


def main() -> None:
    what, size = sys.argv[1], int(sys.argv[2])
    begin = time.monotonic()
    found = globals()[what](size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    used = resource.getrusage(resource.RUSAGE_SELF)
    row = {"seconds": round(time.monotonic() - begin, 2), "cpu_seconds": round(used.ru_utime + used.ru_stime, 2)}
    print(json.dumps(row | {"peak_mb": round(peak)} | found))


if __name__ == "__main__":
    main()
