"""SCALE-Sim's own files through the command line: its configuration and topology in, its two reports out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npusim.cli import options

if TYPE_CHECKING:
    from npusim.report import Table
    from npusim.scalesim.report import Result

Config = Annotated[
    Path | None, typer.Option("--scalesim-config", metavar="FILE", help="A SCALE-Sim .cfg; with --topology.")
]
Topology = Annotated[
    Path | None, typer.Option("--topology", metavar="FILE", help="A SCALE-Sim topology CSV; with --scalesim-config.")
]


def run(config: Config = None, topology: Topology = None, out: options.Out = None, json: options.Json = False) -> None:
    """Run SCALE-Sim's files as they are: cycles, utilisation and words of every layer.

    With --out: COMPUTE_REPORT.csv, BANDWIDTH_REPORT.csv.

    \b
    Example:
      npusim run --scalesim-config scale.cfg --topology resnet18.csv --out reports
    """
    from npusim.cli.output import hint, print_lines, print_table, working
    from npusim.text import clean

    if config is None or topology is None:
        raise typer.BadParameter("give both", param_hint="--scalesim-config and --topology")
    with working("simulating"):
        from npusim.scalesim import config as configs
        from npusim.scalesim import report

        results = report.run_scalesim(config, topology, out)
        notes = report.notes(configs.read(config), results)
    if out is not None:
        hint(f"written: {clean(out)}/COMPUTE_REPORT.csv, BANDWIDTH_REPORT.csv")
    if json:
        from npusim.report import json_text

        print(json_text({"layers": [_record(result) for result in results], "notes": notes}), end="")
        return
    print_table(_table(results))
    print_lines(notes)


def _record(result: Result) -> dict[str, object]:
    from dataclasses import asdict

    traffic = result.traffic
    return {
        **asdict(result.layer),
        "total_cycles": result.total_cycles,
        **result.counts._asdict(),
        "cycles_with_prefetch": traffic.cycles if traffic else None,
        "dram": {name: port._asdict() for name, port in traffic._asdict().items()} if traffic else None,
    }


def _table(results: list[Result]) -> Table:
    from npusim.report import Table
    from npusim.text import clean

    rows = tuple(
        (
            clean(r.layer.name), f"{r.layer.m}x{r.layer.k}x{r.layer.n}", str(r.counts.folds), str(r.total_cycles),
            str(r.traffic.cycles) if r.traffic else "-", f"{r.counts.overall_pct:.1f}", f"{r.counts.mapping_pct:.1f}",
            str(r.counts.ifmap_reads), str(r.counts.filter_reads), str(r.counts.ofmap_writes),
            *(str(port.words) for port in r.traffic or ()), *(() if r.traffic else ("-",) * 3),
        )
        for r in results
    )  # fmt: skip
    header = (
        "layer", "M x K x N", "folds", "cycles", "with prefetch", "use %", "mapped %", "ifmap reads", "filter reads",
        "ofmap writes", "DRAM ifmap", "DRAM filter", "DRAM ofmap",
    )  # fmt: skip
    return Table("SCALE-Sim's cycles, SRAM words and DRAM words", header, rows, 2, ("mapped %", "folds"))
