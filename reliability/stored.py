"""Readers of npusim's own files beside traces and machines: mappings, saved results, stores of sweeps."""

from __future__ import annotations

import json
import shutil
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reliability.target import Target, packed, scratch, unpack

if TYPE_CHECKING:
    from npusim.graph import StepGraph
    from npusim.npu import Hardware

SAVED = ("manifest.json", "layers.csv", "phases.csv", "units.csv", "memory.csv")
# Tables and figures take seconds: one input in so many that can be read is shown, and drawn.
SHOWN, DRAWN = 8, 160


@cache
def _step() -> tuple[StepGraph, Hardware]:
    from npusim import npu
    from npusim.synthesis import from_layers

    net = [
        {"name": "in", "kind": "input", "shape": (1, 2, 5, 5)},
        {"name": "conv", "kind": "conv", "out": 4, "kernel": 3, "padding": 1, "groups": 2},
        {"name": "flat", "kind": "flatten"},
        {"name": "fc", "kind": "linear", "out": 3},
    ]
    return from_layers(net, "seed"), npu.load("mcu-8x8")


def read_mapping(path: Path) -> None:
    """The file, its check against a step, and the step lowered with it."""
    from npusim import catalogue
    from npusim.mapping import choice
    from npusim.simulation import lowered

    graph, machine = _step()
    chosen = choice.choice("cycles", path)
    chosen.check(graph)
    lowered(graph, machine, catalogue.load_dataflow("dense-os"), catalogue.load_dataflow, chosen)


def mapping_seeds() -> list[bytes]:
    from npusim import catalogue
    from npusim.mapping import choice
    from npusim.simulation import lowered

    graph, machine = _step()
    plans = lowered(graph, machine, catalogue.load_dataflow("dense-os"), catalogue.load_dataflow).plans
    entries = choice.text(plans).split("\n\n")
    return ["\n\n".join(entries[:3]).encode(), entries[1].encode()]


@cache
def _saved(several: bool) -> Path:
    """A folder with the results of one run, or of two."""
    import npusim

    graph, machine = _step()
    flows = ["dense-os", "dense-ws"] if several else ["dense-os"]
    folder = scratch() / f"results-{len(flows)}"
    npusim.compare(graph, machine, dataflows=flows).save(folder)
    return folder


def read_results(path: Path) -> None:
    """As `npusim report` does: the tables, the page, and for few inputs the figures; sections replace files.

    A first section '@@ several' means files of two runs.
    """
    from npusim import plot, report, saved
    from npusim.html.page import report_page
    from npusim.results import Result

    data = path.read_bytes()
    folder = scratch() / f"read-{path.name}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(_saved(data.startswith(b"@@ several\n")), folder)
    unpack(data, folder, SAVED)
    found = saved.read(folder)
    chance = zlib.crc32(data)
    if chance % SHOWN:
        return
    comparison = found.compare() if isinstance(found, Result) else found
    lines = (report.summary(comparison), report.comparison_table(comparison), report.comparison_json(comparison))
    assert lines
    drawn = chance % DRAWN == 0
    empty = dict.fromkeys(("speedup", "energy", "roofline", "memory", "cycles"), "<svg ></svg>")
    report_page(comparison, plot.svgs(plot.figures(comparison)) if drawn else empty)


def results_seeds() -> list[bytes]:
    seeds = [packed({name: (_saved(False) / name).read_bytes()}) for name in SAVED]
    return [*seeds, packed({"several": b"", "phases.csv": (_saved(True) / "phases.csv").read_bytes()}),
            packed({"several": b"", "units.csv": (_saved(True) / "units.csv").read_bytes()})]  # fmt: skip


def read_store(path: Path) -> None:
    """A store of a sweep: an SQLite file, or JSON with rows for the tables of one that is otherwise in order."""
    from npusim.sweep import analysis, export

    for suffix in ("-wal", "-shm"):  # of the input before
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
    data = path.read_bytes()
    if data[:1] == b"{":
        _fill(path, data)
    table = export.frame(path)
    export.csv_text(table)
    analysis.front_table(table, ["cycles", "energy_pj"])


def _fill(path: Path, data: bytes) -> None:
    import sqlite3

    from npusim.errors import NpusimError

    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise NpusimError(f"{path}: no JSON") from None
    path.write_bytes(_empty_store())
    connection = sqlite3.connect(path)
    try:
        for table in ("sweeps", "members", "results", "attempts"):
            rows = value.get(table) if isinstance(value, dict) else None
            for row in rows if isinstance(rows, list) else ():
                if isinstance(row, list):
                    cells = [json.dumps(cell) if isinstance(cell, (list, dict)) else cell for cell in row]
                    try:
                        connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(cells))})", cells)
                    except (sqlite3.Error, OverflowError, UnicodeEncodeError):
                        continue
        connection.commit()
    finally:
        connection.close()


@cache
def _empty_store() -> bytes:
    from npusim.sweep.store import Store

    path = scratch() / "empty.sqlite"
    Store(path).close()
    for leftover in path.parent.glob("empty.sqlite-*"):
        leftover.unlink()
    return path.read_bytes()


def store_seeds() -> list[bytes]:
    from npusim.sweep.metrics import METRICS

    numbers: list[Any] = [7 if kind is int else 0.5 for kind in METRICS.values()]
    value = {
        "sweeps": [["one", {"name": "one"}, "2026-01-01"]],
        "members": [["one", 0, "a" * 8, {"array.rows": 4}], ["one", 1, "b" * 8, {"array.rows": 8}]],
        "results": [["a" * 8, "done", "", *numbers], ["b" * 8, "failed", "no room", *[None] * len(numbers)]],
    }
    return [json.dumps(value, separators=(",", ":")).encode(), _empty_store()]


TARGETS = (
    Target(
        "mapping", ".toml", read_mapping, mapping_seeds,
        ("[[mapping]]", "op", "phase", "part", "dataflow", "order", "m outer", "m inner", "grad_weight", "=", "-1"),
    ),
    Target(
        "results", ".tables", read_results, results_seeds,
        ("@@ manifest.json", "@@ several", "nan", "inf", "-1", "step", '"runs"', '"label"', "'=", '""', ",", "{", "["),
        names_file=False, most_bytes=40_000,
    ),
    Target(
        "store", ".json", read_store, store_seeds, ('"sweeps"', '"members"', '"results"', "done", "SQLite format 3"),
        most_bytes=80_000,
    ),
)  # fmt: skip
