"""`npusim run` and `npusim compare`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from npusim.cli import options, scalesim

if TYPE_CHECKING:
    from npusim.comparison import Comparison
    from npusim.simulation import Run


def run(
    workload: options.MaybeWorkload = None,
    hardware: options.HardwareName = "edge-16x16",
    dataflow: options.Dataflow = "dense-os",
    method: options.Method = None,
    engine: options.Engine = "fast",
    input_size: options.InputSize = None,
    batch: options.Batch = None,
    changes: options.Changes = None,
    energy: options.Energy = None,
    objective: options.Objective = "cycles",
    mapping: options.MappingFile = None,
    memory_limit: options.MemoryLimitSize = None,
    memory_over: options.MemoryOver = "error",
    dram_trace: options.DramTrace = None,
    dram_trace_format: options.DramTraceFormat = "dramsim3",
    scalesim_config: scalesim.Config = None,
    topology: scalesim.Topology = None,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Simulate one training step with one dataflow: cycles, waiting, traffic and energy of every operation.

    With --out: report.html, its figures as .png and .svg, layers.csv, phases.csv, units.csv, memory.csv,
    manifest.json; `npusim report` makes the report again from these files.

    With --scalesim-config and --topology: SCALE-Sim's own files in place of a workload, and with --out its
    COMPUTE_REPORT.csv and BANDWIDTH_REPORT.csv.

    \b
    Example:
      npusim run resnet18-swu --hardware edge-16x16 --dataflow reduction-spatial --set array.rows=32 --out run1
    """
    from npusim import report
    from npusim.cli.output import hint, laws, print_lines, print_table, working
    from npusim.provenance import Request

    if (workload is None) != (scalesim_config is not None or topology is not None):
        message = "give a workload, or --scalesim-config and --topology"
        raise typer.BadParameter(message, param_hint="WORKLOAD")
    if workload is None:
        scalesim.run(scalesim_config, topology, out, json)
        return
    name = options.one_dataflow(dataflow)
    limit = options.memory_limit(memory_limit, memory_over)
    choice = options.choice(objective, mapping)
    request = Request(workload, hardware, {}, input_size, batch, engine, energy, memory=limit, choice=choice)
    _check(out)
    _check(None if dram_trace is None else dram_trace.parent)
    with working(f"simulating {dataflow}"), laws():
        from npusim import api

        graph, machine, request = options.prepare(request, [name], changes)
        if dram_trace is not None:
            options.check_dram_trace(machine, dram_trace_format)
        result = api.evaluate(graph, machine, name, method or "", request, command())
    if dram_trace is not None:
        with working("writing the DRAM trace"):
            write_dram_trace(dram_trace, result.runs, dram_trace_format)
        hint(f"written: {dram_trace}")
    if out is not None:
        from npusim import saved

        with working("drawing"):
            write_report(out, result.compare(), saved.files(result))
        hint(f"written: {out}/report.html, plots and tables")
    if json:
        print(report.run_json(result, result.compare().manifest), end="")
        return
    print_table(report.layer_table(result))
    print()
    print_table(report.phase_table(result))
    print()
    print_table(report.energy_table(result.compare()))
    print_lines(report.energy_lines(result))


def write_dram_trace(path: Path, runs: Sequence[Run], form: str) -> None:
    """The DRAM requests of the runs (the parts of a method), one after the other."""
    from npusim import atomic
    from npusim.engine import dram_trace, memory

    parts = (dram_trace.lines(run.lowered.program, run.schedule, memory.memory(run.hardware), form) for run in runs)
    atomic.write(path, (text for part in parts for text in part))


def compare(
    workload: options.Workload,
    hardware: options.HardwareName = "edge-16x16",
    dataflow: options.Dataflows = options.DATAFLOWS,
    methods: options.Methods = None,
    engine: options.Engine = "fast",
    input_size: options.InputSize = None,
    batch: options.Batch = None,
    changes: options.Changes = None,
    energy: options.Energy = None,
    objective: options.Objective = "cycles",
    mapping: options.MappingFile = None,
    memory_limit: options.MemoryLimitSize = None,
    memory_over: options.MemoryOver = "error",
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Hold several dataflows against the first one: for weight gradients (WGC) alone and for the whole step.

    With --out: report.html, its figures as .png and .svg, comparison.csv, layers.csv, phases.csv, units.csv,
    memory.csv, manifest.json. With --methods: training methods against dense training, on the first dataflow;
    --out also writes methods.csv.

    \b
    Example:
      npusim compare resnet18-swu --dataflow dense-os,selective-row,reduction-spatial --out report
    """
    from npusim import report
    from npusim.cli.output import hint, laws, print_lines, print_table, working
    from npusim.provenance import Request

    names = options.names_of(dataflow)
    limit = options.memory_limit(memory_limit, memory_over)
    choice = options.choice(objective, mapping)
    request = Request(workload, hardware, {}, input_size, batch, engine, energy, memory=limit, choice=choice)
    _check(out)
    if methods is not None:
        from npusim.cli.methods import compare as compare_methods

        with laws():
            compare_methods(request, dataflow, methods, changes, out, json, command())
        return
    with working(f"simulating {len(names)} dataflows"), laws():
        from npusim import api
        from npusim.comparison import Comparison

        graph, machine, request = options.prepare(request, names, changes)
        comparison = Comparison(tuple(api.evaluate(graph, machine, name, "", request, command()) for name in names))
    if out is not None:
        from npusim import saved

        with working("drawing"):
            write_report(out, comparison, saved.files(comparison))
        hint(f"written: {out}/report.html, plots and tables")
    if json:
        print(report.comparison_json(comparison), end="")
        return
    print_lines(report.summary(comparison))
    for table in (report.comparison_table(comparison), report.energy_table(comparison)):
        print()
        print_table(table)
    print_lines(report.energy_lines(comparison.baseline))


def write_report(out, comparison: Comparison, tables: Mapping[str, str]) -> None:
    """Draw and write everything: all of it is made before the first file is."""
    from npusim import atomic, plot
    from npusim.html import page

    drawn = plot.figures(comparison)
    svgs = plot.svgs(drawn)
    files: dict[str, bytes | str] = {
        **tables,
        **{f"{name}.png": image for name, image in plot.pngs(drawn).items()},
        **{f"{name}.svg": image for name, image in svgs.items()},
        "report.html": page.report_page(comparison, svgs),
    }
    atomic.write_files(out, files)


def _check(out) -> None:
    if out is not None:
        from npusim import atomic

        atomic.check(out)


def command() -> list[str]:
    """What was typed, for the record."""
    return ["npusim", *sys.argv[1:]]
