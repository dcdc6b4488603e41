"""`npusim run` and `npusim compare`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from npusim.cli import options, scalesim


def run(
    workload: options.MaybeWorkload = None,
    hardware: options.HardwareName = "edge-16x16",
    dataflow: options.Dataflow = "dense-os",
    engine: options.Engine = "fast",
    input_size: options.InputSize = None,
    batch: options.Batch = None,
    changes: options.Changes = None,
    energy: options.Energy = None,
    scalesim_config: scalesim.Config = None,
    topology: scalesim.Topology = None,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Simulate one training step with one dataflow: cycles, waiting, traffic and energy of every operation.

    With --out: layers.csv, phases.csv, units.csv, manifest.json.

    With --scalesim-config and --topology: SCALE-Sim's own files in place of a workload, and with --out its
    COMPUTE_REPORT.csv and BANDWIDTH_REPORT.csv.

    \b
    Example:
      npusim run resnet18-swu --hardware edge-16x16 --dataflow reduction-spatial --set array.rows=32 --out run1
    """
    from npusim import report
    from npusim.cli.output import hint, print_table, working
    from npusim.provenance import Request, manifest

    if (workload is None) != (scalesim_config is not None or topology is not None):
        message = "give a workload, or --scalesim-config and --topology"
        raise typer.BadParameter(message, param_hint="WORKLOAD")
    if workload is None:
        scalesim.run(scalesim_config, topology, out, json)
        return
    names = options.names_of(dataflow)
    if len(names) > 1:
        message = f"one dataflow, not {len(names)}; `npusim compare` takes several"
        raise typer.BadParameter(message, param_hint="--dataflow")
    request = Request(workload, hardware, {}, input_size, batch, engine, energy)
    _check(out)
    with working(f"simulating {dataflow}"), _laws():
        from npusim.simulation import simulate

        graph, machine, request = options.prepare(request, names, changes)
        result = simulate(graph, machine, names[0], engine, energy)
        record = manifest([result], request, _command())
    if out is not None:
        from npusim import atomic

        atomic.write_files(out, report.run_files(result, record))
        hint(f"written: {out}/layers.csv, phases.csv, units.csv, manifest.json")
    if json:
        print(report.run_json(result, record), end="")
        return
    print_table(report.layer_table(result))
    print()
    print_table(report.phase_table(result))


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
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Hold several dataflows against the first one: for weight gradients (WGC) alone and for the whole step.

    With --out: report.html, speedup, energy and cycles as .png and .svg, comparison.csv, phases.csv, layers.csv,
    units.csv, manifest.json. With --methods: training methods against dense training, on the first dataflow;
    --out writes methods.csv, manifest.json.

    \b
    Example:
      npusim compare resnet18-swu --dataflow dense-os,selective-row,reduction-spatial --out report
    """
    from npusim import report
    from npusim.cli.output import hint, print_lines, print_table, working
    from npusim.provenance import Request, manifest

    names = options.names_of(dataflow)
    request = Request(workload, hardware, {}, input_size, batch, engine, energy)
    _check(out)
    if methods is not None:
        from npusim.cli.methods import compare as compare_methods

        with _laws():
            compare_methods(request, dataflow, methods, changes, out, json, _command())
        return
    with working(f"simulating {len(names)} dataflows"), _laws():
        from npusim.compare import compare as simulate_all

        graph, machine, request = options.prepare(request, names, changes)
        comparison = simulate_all(graph, machine, names, engine_name=engine, energy=energy)
        record = manifest(comparison.runs, request, _command())
    if out is not None:
        with working("drawing"):
            _write(out, comparison, record)
        hint(f"written: {out}/report.html, plots and tables")
    if json:
        print(report.comparison_json(comparison, record), end="")
        return
    print_lines(report.summary(comparison))
    for table in (report.comparison_table(comparison), report.energy_table(comparison)):
        print()
        print_table(table)


def _write(out, comparison, record) -> None:
    """Draws and writes everything: all of it is made before the first file is."""
    from npusim import atomic, plot, report
    from npusim.html import page

    drawn = plot.figures(comparison)
    svgs = plot.svgs(drawn)
    files: dict[str, bytes | str] = {
        **report.comparison_files(comparison, record),
        **{f"{name}.png": image for name, image in plot.pngs(drawn).items()},
        **{f"{name}.svg": image for name, image in svgs.items()},
        "report.html": page.comparison_page(comparison, svgs, record),
    }
    atomic.write_files(out, files)


def _check(out) -> None:
    if out is not None:
        from npusim import atomic

        atomic.check(out)


def _command() -> list[str]:
    return ["npusim", *sys.argv[1:]]


@contextmanager
def _laws() -> Iterator[None]:
    """A simulation that breaks its own laws ends with code 1."""
    from npusim.errors import BrokenLaw

    try:
        yield
    except BrokenLaw as error:
        from npusim.text import clean

        print(f"npusim: {clean(error, keep=chr(10))}\nThis is a fault of npusim; please report it.", file=sys.stderr)
        raise typer.Exit(1) from None
