"""What commands print: tables on stdout; progress and hints on stderr, and only for a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npusim.report import Table

GAP = "  "


def print_table(table: Table) -> None:
    """One line per row. A terminal that is too narrow gets fewer columns, and is told which are missing."""
    from rich.cells import cell_len

    lines = (table.header, *table.rows)
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(table.header))]
    kept = list(range(len(widths)))
    left_out = []
    if sys.stdout.isatty():
        for name in table.spare:
            if sum(widths[i] + len(GAP) for i in kept) - len(GAP) <= _terminal_width():
                break
            kept.remove(table.header.index(name))
            left_out.append(name)
    print(table.title)
    for line in lines:
        cells = (
            line[i] + " " * (widths[i] - cell_len(line[i])) if i < table.words else line[i].rjust(widths[i])
            for i in kept
        )
        print(GAP.join(cells).rstrip())
    if left_out:
        hint(f"(left out for a narrow terminal: {', '.join(left_out)})")


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(line)


def hint(message: str) -> None:
    if sys.stderr.isatty():
        print(message, file=sys.stderr)


@contextmanager
def working(message: str) -> Iterator[None]:
    """A spinner while something takes long."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(message)):
        yield


@contextmanager
def laws() -> Iterator[None]:
    """A simulation that breaks its own laws ends with code 1."""
    from npusim.errors import BrokenLaw

    try:
        yield
    except BrokenLaw as error:
        import typer

        from npusim.text import clean

        print(f"npusim: {clean(error, keep=chr(10))}\nThis is a fault of npusim; please report it.", file=sys.stderr)
        raise typer.Exit(1) from None
