"""`npusim report`: the report of results that are already there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from npusim.cli import options

Folders = Annotated[
    list[Path],
    typer.Argument(metavar="RESULTS...", help="Folders that `npusim run --out` or `npusim compare --out` wrote."),
]
Page = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The HTML file to write.", show_default="report.html in the first folder"),
]


def report(folders: Folders, out: Page = None, json: options.Json = False) -> None:
    """Make the HTML report from saved results, of one folder or of several held against the first.

    Nothing is simulated again.

    \b
    Example:
      npusim report run1 run2 --out both.html
    """
    from npusim import atomic, saved
    from npusim import report as tables
    from npusim.cli.output import hint, print_lines, print_table, working
    from npusim.comparison import Comparison
    from npusim.results import Result

    target = out or folders[0] / "report.html"
    with working("reading"):
        found = [saved.read(folder) for folder in folders]
    runs = [run for item in found for run in ((item,) if isinstance(item, Result) else item.runs)]
    first = found[0]
    comparison = first if len(found) == 1 and isinstance(first, Comparison) else Comparison.of(*runs)
    atomic.check(target.parent)
    with working("drawing"):
        comparison.report(target)
    hint(f"written: {target}")
    if json:
        print(tables.comparison_json(comparison), end="")
        return
    print_lines(tables.summary(comparison))
    print()
    print_table(tables.comparison_table(comparison))
