"""`npusim sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npusim.cli import options

if TYPE_CHECKING:
    from npusim.sweep.run import Outcome
    from npusim.sweep.spec import Spec


def sweep(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.toml", help="The description of the sweep.")],
    store: Annotated[
        Path | None, typer.Option("--store", "-s", help="SQLite file of results.", show_default="<name>.sqlite")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", min=1, max=1024, help="Local processes.", show_default="all CPUs")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="A Dask scheduler, tcp://host:port, instead of local processes.")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Record points that cannot be simulated and go on.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what failed, crashed or took too long.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Check every point, run nothing.")] = False,
    search: Annotated[
        int | None, typer.Option("--search", min=1, help="Instead of every point, search with so many trials (Optuna).")
    ] = None,
    sampler: Annotated[str, typer.Option("--sampler", help="Of a search: tpe, nsga2 or random.")] = "tpe",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of a search.")] = 0,
    export: Annotated[
        list[Path] | None, typer.Option("--export", help="Write the results to a .csv or .parquet file; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for figures, tables and an HTML page.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Simulate every point of a design space; results are kept, so running it again computes only what is missing.

    With --out: index.html (interactive), results.csv, and the figures as .png and .svg.

    \b
    Example:
      npusim sweep experiments/sweeps/pe-buffer-resnet18.toml --out results/pe-buffer --export results.csv
    """
    from npusim import atomic
    from npusim.sweep import export as tables
    from npusim.sweep.spec import load

    understood = load(spec)
    for path in export or []:
        tables.check(path)
    if out is not None:
        atomic.check(out)
    if check:
        _check(understood)
        return
    from npusim.sweep.progress import Progress

    progress = Progress()
    try:
        with _terminated():
            if search is not None:
                from npusim.sweep.search import search as run_search

                outcome = run_search(
                    understood, search, store, sampler=sampler, seed=seed, workers=workers, scheduler=scheduler,
                    listener=progress,
                )  # fmt: skip
            else:
                from npusim.sweep.run import run

                outcome = run(
                    understood, store, workers=workers, scheduler=scheduler, skip_invalid=skip_invalid,
                    retry_failed=retry_failed, listener=progress,
                )  # fmt: skip
    except KeyboardInterrupt:
        print("stopped; every result so far is stored: run the same command again to go on", file=sys.stderr)
        raise
    _write(outcome, export or [], out)
    if json:
        _print_json(outcome)
    else:
        _report(outcome)


def _terminated():
    """SIGTERM (a cluster's time limit) ends a sweep as cleanly as Ctrl-C."""
    import signal
    from contextlib import contextmanager

    @contextmanager
    def handler():
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        former = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, former)

    return handler()


def _check(spec: Spec) -> None:
    from npusim.sweep import points

    plan = points.plan(spec, points.Resolver())
    if plan.invalid:
        raise points.refuse(plan.invalid, spec.count(), spec.keys)
    different = len({job.key for _, job in plan.points})
    outside = f", {plan.left_out:,} left out by constraints" if plan.left_out else ""
    print(f"{spec.name}: {len(plan.points):,} points ({different:,} different){outside}; all can be simulated")


def _write(outcome: Outcome, export: list[Path], out: Path | None) -> None:
    from npusim.cli.output import hint, working
    from npusim.sweep import export as tables

    if export:
        frame = outcome.frame()
        for path in export:
            tables.write(path, frame)
            hint(f"written: {path}")
    if out is not None:
        from npusim.sweep.pages import write

        with working("drawing"):
            write(outcome.store, outcome.spec.name, out)
        hint(f"written: {out}/index.html, figures and results.csv")


def _print_json(outcome: Outcome) -> None:
    """Counts, and one record per point."""
    from npusim.report import json_text, records

    value = {
        "sweep": outcome.spec.name,
        "store": str(outcome.store),
        "counts": outcome.counts,
        "computed": outcome.computed,
        "left_out": outcome.left_out,
        "points": records(outcome.frame()),
    }
    print(json_text(value), end="")


def _report(outcome: Outcome) -> None:
    """What came of it, and the front of the objectives."""
    from npusim.cli.output import print_table
    from npusim.sweep.analysis import front_table

    counted = ", ".join(f"{count:,} {status}" for status, count in outcome.counts.items())
    outside = f", {outcome.left_out:,} left out by constraints" if outcome.left_out else ""
    print(f"{outcome.spec.name}: {counted or 'no results'}{outside}; {outcome.computed:,} computed now")
    print(f"store: {outcome.store}")
    if outcome.counts.get("done"):
        print()
        print_table(front_table(outcome.frame(), outcome.spec.objectives))
