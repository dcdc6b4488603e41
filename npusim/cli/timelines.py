"""`npusim timeline`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from npusim.cli import options

Target = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="FILE",
        help=".pftrace (ui.perfetto.dev; needs npusim[timeline]), .json (Chrome's tracing), .png or .svg.",
    ),
]  # fmt: skip
Layers = Annotated[
    str | None,
    typer.Option("--layers", metavar="PATTERNS", help="Only operations called so, with commas between: conv1,layer1.*"),
]
Ops = Annotated[
    str | None,
    typer.Option("--ops", metavar="FIRST-LAST", help="Only operations of these numbers, rows of layers.csv from 0."),
]


def timeline(
    workload: options.Workload,
    out: Target,
    hardware: options.HardwareName = "edge-16x16",
    dataflow: options.Dataflow = "dense-os",
    method: options.Method = None,
    engine: options.Engine = "fast",
    input_size: options.InputSize = None,
    batch: options.Batch = None,
    changes: options.Changes = None,
    objective: options.Objective = "cycles",
    mapping: options.MappingFile = None,
    memory_limit: options.MemoryLimitSize = None,
    memory_over: options.MemoryOver = "error",
    layers: Layers = None,
    ops: Ops = None,
    json: options.Json = False,
) -> None:
    """Write what every unit of the machine does in every cycle: tiles, transfers, waiting and its cause, buffers.

    Times are cycles: a file shows one cycle as one nanosecond.

    \b
    Example:
      npusim timeline resnet18-swu --dataflow reduction-spatial --layers 'layer1.*' --out layer1.pftrace
    """
    from npusim import atomic, timeline_files
    from npusim import timeline as timelines
    from npusim.cli.output import hint, laws, working
    from npusim.cli.runs import command
    from npusim.provenance import Request
    from npusim.report import json_text

    timeline_files.check(out.suffix)
    atomic.check(out.parent)
    patterns = [part.strip() for part in (layers or "").split(",") if part.strip()]
    span = _span(ops)
    limit = options.memory_limit(memory_limit, memory_over)
    choice = options.choice(objective, mapping)
    request = Request(workload, hardware, {}, input_size, batch, engine, memory=limit, choice=choice)
    with working(f"simulating {dataflow}"), laws():
        from npusim import api

        graph, machine, request = options.prepare(request, [options.one_dataflow(dataflow)], changes)
        result = api.evaluate(graph, machine, dataflow, method or "", request, command())
    with working("writing"):
        built = [timelines.build(run, patterns, span) for run in result.runs]
        atomic.write(out, timeline_files.write(built, out.suffix))
    if json:
        print(json_text([_counts(item) for item in built]), end="")
        return
    hint(f"written: {out}")
    for item in built:
        slices = sum(track.size for track in item.tracks)
        print(f"{item.title}: {slices:,} slices on {len(item.tracks)} tracks, {item.size - slices:,} counter values")


def _span(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition("-")
    if not all(re.fullmatch(r"\s*[0-9]{1,18}\s*", part) for part in (first, last or first)):
        raise typer.BadParameter(f"{text!r}: write FIRST-LAST, for example 12-20", param_hint="--ops")
    return int(first), int(last or first)


def _counts(item) -> dict[str, object]:
    return {
        "title": item.title,
        "cycles": item.cycles,
        "clock_hz": item.clock_hz,
        "slices": {track.name: track.size for track in item.tracks},
        "counter_values": {counter.name: counter.at.size for counter in item.counters},
    }
