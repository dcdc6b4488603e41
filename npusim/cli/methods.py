"""Training methods on the command line: `npusim compare --methods`, `list methods` and `show method`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npusim.provenance import Request
    from npusim.report import Table


def compare(
    request: Request, dataflow: str, methods: str, settings: list[str] | None, out: Path | None, json: bool,
    command: list[str],
) -> None:  # fmt: skip
    """Simulate dense training and every named method on one machine; print the table, write methods.csv and a report.

    With "all", methods that do not fit the network are left out and named below the table.
    """
    from dataclasses import replace

    from npusim import breakdown, report
    from npusim.cli import options
    from npusim.cli.output import hint, print_lines, print_table, working
    from npusim.method_runs import compare_methods
    from npusim.provenance import manifest

    flow = options.names_of(dataflow)[0]
    names = _names(methods)
    with working("simulating methods"):
        graph, machine, request = options.prepare(request, [flow], settings)
        if request.choice is not None:
            request.choice.check(graph)
        found = compare_methods(
            graph, machine, names, flow, misfits=methods.strip() == "all", limit=request.memory,
            engine_name=request.engine, energy=request.energy, choice=request.choice,
        )  # fmt: skip
        rows = [run.row(found.runs[0]) for run in found.runs]
        record = manifest(found.runs[0].runs, request, command) | {"methods": rows, "left_out": dict(found.misfits)}
    if out is not None:
        from npusim import results, saved
        from npusim.cli.runs import write_report
        from npusim.comparison import Comparison

        with working("drawing"):
            runs = [results.of_plan(run, machine, request, command, graph) for run in found.runs]
            runs[0] = replace(runs[0], manifest=record)
            comparison = Comparison.of(*runs)
            doubtful = [" ".join(run.facts.prices.doubtful) for run in runs]
            table = found.table().assign(**{saved.LOW: doubtful}).to_csv(index=False, lineterminator="\n")
            files = {**saved.files(comparison), "methods.csv": table}
            write_report(out, comparison, files)
        hint(f"written: {out}/methods.csv, report.html, plots and tables")
    if json:
        print(report.json_text(record), end="")
        return
    print_table(_table(rows, f"Training methods: {graph.name} on {machine.name}, {flow}"))
    print_lines([f"energy: {breakdown.prices_basis(found.runs[0].runs[0].energy.prices, machine)}"])
    # The first line says why; the others, each parameter concerned, are in `left_out` of the JSON and of manifest.json.
    print_lines([f"left out: {reason.splitlines()[0].removesuffix(':')}" for reason in found.misfits.values()])


def _names(listing: str) -> list[str]:
    from npusim import method
    from npusim.errors import ConfigError

    names = [name.strip() for name in listing.split(",") if name.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise ConfigError(f"--methods names {', '.join(twice)} twice" if twice else "--methods names no method")
    return method.names() if names == ["all"] else names


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    from npusim import text
    from npusim.report import Table

    cells_in_use = "cell_writes" in rows[0]
    header: tuple[str, ...] = (
        "method", "cycles", "speedup", "energy", "energy gain", "DRAM", "peak memory", "training memory", "MACs",
        "useful MACs", "updated",
    )  # fmt: skip
    cells = tuple(
        (
            text.clean(row["method"]),
            f"{round(row['cycles']):,}",
            text.times(row["speedup"]),
            text.joules(row["energy_pj"]),
            text.times(row["energy_gain"]),
            text.size(row["dram_bytes"]),
            text.size(row["peak_bytes"]),
            text.size(row["training_bytes"]),
            text.count(row["macs"]),
            text.count(row["useful_macs"]),
            f"{row['updated']:,}",
            *((text.count(row["cell_writes"]), f"{row['steps_to_wear_out']:,.0f}") if cells_in_use else ()),
        )
        for row in rows
    )
    header += ("cell writes", "worn after") if cells_in_use else ()
    return Table(title, header, cells, 1, ("useful MACs", "DRAM", "training memory", "updated"))


def names() -> list[str]:
    from npusim import method

    return method.names()


def about(name: str) -> str:
    """The summary of a method."""
    from npusim import method

    return method.load(name).summary


def show(name: str) -> tuple[Any, list[str]]:
    """Everything about one method: fields, parameters with ranges, its file's docstring."""
    from npusim import method

    found = method.load(name)
    document = method.document(name)
    value = {
        "name": name,
        "summary": found.summary,
        "fields": list(found.fields),
        "parameters": [asdict(p) | {"allowed": p.allowed} for p in found.parameters],
        "document": document,
    }
    lines = [f"{name}: {found.summary}", f"fields: {', '.join(found.fields) or 'none'}", "", *document.splitlines()]
    width = max((len(p.name) for p in found.parameters), default=0)
    lines += ["", "parameters:"] if found.parameters else []
    lines += [f"  {p.name:{width}s} = {p.default!r}  {p.allowed}; {p.about}" for p in found.parameters]
    return value, lines
