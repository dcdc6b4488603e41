"""Readers of other tools' files: steps that PyTorch and JAX wrote down, energy tables of Accelergy, measurements, and
configurations of DRAM simulators.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
from pathlib import Path
from unittest import mock

from npusim.errors import NpusimError
from reliability.target import ROOT, Target, files, packed, scratch, unpack

PRICES = """name = "mine"
base = "generic-28nm"
[accelergy]
file = "{file}"
source = "theirs"
confidence = "medium"
[accelergy.prices]
'mac."fp16+fp32"' = {{ action = "system.mac.compute" }}
'register_byte' = {{ action = "spad.write", bits = 16, arguments = {{ data_delta = 1 }} }}
'dram.LPDDR4' = {{ action = "glb.read", bits = 64 }}
"""
REFERENCE = b"""ERT:
  version: '0.4'
  tables:
    - name: system.glb[1..1]
      actions:
        - {name: read, arguments: {}, energy: 32.0}
    - name: system.spad[1..256]
      actions:
        - {name: write, arguments: {data_delta: 0}, energy: 0.1}
        - {name: write, arguments: {data_delta: 1}, energy: 3e-1}
    - name: system.mac[1..256]
      actions:
        - {name: compute, arguments: {}, energy: 0.315}
"""
KINDS = ("rtl", "scalesim", "firesim", "tpuv3", "eyeriss", "energy", "mappers", "gemmini")
# Simulations of what was read, which may take as long as the sizes ask for: function -> what stands for its result.
LEFT_OUT: dict[str, dict[str, object]] = {
    "firesim": {"layer_cycles": 1.0},
    "energy": {"_filled": ()},
    "rtl": {"_end_to_end": (1, "")},
    "eyeriss": {"_rows": []},
    "gemmini": {"end_to_end": 1},
    "scalesim": {"dram.traffic": None},
}
DRAM_CONFIGS = ("ddr4_3200_col.ini", "hbm2_8ch_bgch.ini", "ram_ddr4_3200.yaml", "dramsys_addressmapping_lp4x32.json",
                "dramsys_mcconfig_g.json", "dramsys_memspec_lp4x32.json")  # fmt: skip


def read_step(path: Path) -> None:
    """As `npusim trace import` does, and once more with what is unknown left out."""
    from npusim.trace import import_file

    with contextlib.suppress(NpusimError):
        import_file(path, skip_unknown=True).digest()
    graph = import_file(path)
    graph.digest()
    str(graph)


def read_reference(path: Path) -> None:
    """An energy reference table of Accelergy, under an energy table that takes prices from it."""
    from npusim.energy import table

    prices = path.with_name("prices.toml")
    prices.write_text(PRICES.format(file=path.name))
    table.load(prices)


def read_measurements(path: Path) -> None:
    """A file of measurements behind a line with its kind, as `npusim validate` reads it; long simulations left out."""
    kind, _, content = path.read_bytes().partition(b"\n")
    name = kind.decode("ascii", "replace")
    if name not in KINDS:
        raise NpusimError(f"{path.name}: not a kind of measurements")
    path.write_bytes(content)
    configs = {"configs": ROOT / "validation" / "mappers" / "configs"} if name == "mappers" else {}
    module = importlib.import_module(f"npusim.validate.{name}")
    with contextlib.ExitStack() as stack:
        for function, result in LEFT_OUT.get(name, {}).items():
            stack.enter_context(mock.patch(f"{module.__name__}.{function}", return_value=result))
        module.validate(path, **configs).as_dict()


def measurement_seeds() -> list[bytes]:
    """The head of every shipped file, with few of its small rows."""
    found = []
    for kind in KINDS:
        for path in sorted((ROOT / "validation" / kind).glob("*.csv")):
            lines = path.read_bytes().splitlines(keepends=True)
            found.append(f"{kind}\n".encode() + b"".join(lines[:3]))
    return found


def read_dram_files(path: Path) -> None:
    """Measured rows of DRAM simulators and the configurations that they name; sections replace files.

    Of every stream, 16 KiB are simulated.
    """
    from npusim.validate import dram, dram_streams

    bursts = dram_streams.bursts

    folder = scratch() / f"configs-{path.name}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "tests" / "data" / "dram" / "configs", folder)
    rows = folder / path.name
    rows.write_bytes(_dram_rows())
    unpack(path.read_bytes(), folder, (path.name, *DRAM_CONFIGS))
    short = mock.patch.object(dram_streams, "bursts", lambda p, seed, n, size: bursts(p, seed, min(n, 2**14), size))
    with short:
        dram.validate(rows, folder).as_dict()


def _dram_rows() -> bytes:
    """One measured row of each simulator."""
    import csv
    import io

    path = ROOT / "tests" / "data" / "dram" / "measured_subset.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["config"] in ("ddr4_3200_col", "dramsys_lp4_3200_x32_g") or row["config"].startswith("ram_ddr4"):
            found.setdefault(row["sim"], row)
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found.values())
    return out.getvalue().encode()


def dram_seeds() -> list[bytes]:
    folder = ROOT / "tests" / "data" / "dram" / "configs"
    return [*(packed({name: (folder / name).read_bytes()}) for name in DRAM_CONFIGS),
            packed({"input.tables": _dram_rows()})]  # fmt: skip


TARGETS = (
    Target(
        "execution-trace", ".json", read_step, files("reliability/seeds/execution-trace.json"),
        ('"nodes"', '"ctrl_deps"', "aten::convolution_backward", "aten::bmm", "aten::native_batch_norm", "aten::sum",
         "aten::max_pool2d_with_indices", "aten::embedding", "autograd::engine::evaluate_function", "TensorList",
         "Tensor(nullptr", "Optimizer.step#Adam.step", "aten::cat", "aten::native_layer_norm", "aten::grouped_mm"),
    ),
    Target(
        "profiler", ".json", read_step, files("reliability/seeds/profiler.json"),
        ('"traceEvents"', '"Input Dims"', "aten::convolution_backward", "aten::bmm", "aten::native_batch_norm",
         "aten::mean", "aten::avg_pool2d_backward", "aten::embedding_dense_backward", "TensorList", "ScalarList",
         "autograd::engine::evaluate_function", "Optimizer.step#SGD.step", "aten::stack", "aten::native_group_norm"),
    ),
    Target(
        "jax", ".json", read_step, files("reliability/seeds/jax.json"),
        ('"eqns"', "dot_general", "conv_general_dilated", "reduce_window_max", "select_and_scatter_add", "transpose(",
         "rematted_computation", "broadcast_in_dim", "products", "dynamic_slice", "window_dimensions", "padding"),
    ),
    Target(
        "ert", ".yaml", read_reference, lambda: [REFERENCE],
        ("ERT:", "tables:", "name:", "actions:", "energy:", "arguments:", "&a", "*a", "<<:", "!!python/object", "["),
        names_file=False,
    ),
    Target("measurements", ".csv", read_measurements, measurement_seeds, (*KINDS, "16x16", ",", '"', "os", "exact")),
    Target(
        "dram-files", ".tables", read_dram_files, dram_seeds,
        (*(f"@@ {name}\n" for name in DRAM_CONFIGS), "@@ input.tables\n", "[timing]", "=", ":", "- ", "4294967296"),
        names_file=False, most_bytes=40_000,
    ),
)  # fmt: skip
