"""What commands print: tables on stdout; progress and hints on stderr, and only for a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npusim.report import Table


def print_table(table: Table) -> None:
    """Columns wrap to the terminal; in a pipe, every row is one line without colours."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    terminal = sys.stdout.isatty()
    grid = RichTable(title=Text(table.title), title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for i, name in enumerate(table.header):
        grid.add_column(Text(name), justify="left" if i < table.words else "right", no_wrap=not terminal)
    for row in table.rows:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False, width=None if terminal else 1000)
    if terminal:
        console.print(grid)
        return
    with console.capture() as captured:
        console.print(grid)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


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
