"""`npusim validate`: simulated against measured, with the errors and the bounds they must hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npusim.cli import options

if TYPE_CHECKING:
    from npusim.report import Table
    from npusim.validate.result import Row, Summary, Validation

KINDS = {
    "rtl": "cycles of other people's RTL",
    "scalesim": "SCALE-Sim on single layers",
    "firesim": "Gemmini on FPGAs, whole layers",
    "tpuv3": "TPUv3, single layers",
    "eyeriss": "AlexNet on Eyeriss silicon",
    "dram": "DRAM simulators on address streams",
    "energy": "SRAM macros of CACTI",
    "mappers": "cycles and energy of ZigZag, AccelForge and Timeloop",
}


def _kind(value: str) -> str:
    if value not in KINDS:
        from npusim.errors import closest
        from npusim.text import clean

        raise typer.BadParameter(f"{clean(value)!r}{closest(value, list(KINDS))}; known: {', '.join(KINDS)}")
    return value


Kind = Annotated[
    str,
    typer.Argument(
        metavar="KIND", help="; ".join(f"{kind}: {what}" for kind, what in KINDS.items()) + ".", callback=_kind,
        autocompletion=lambda incomplete: [kind for kind in KINDS if kind.startswith(incomplete)],
    ),
]  # fmt: skip
File = Annotated[Path, typer.Argument(metavar="FILE", help="Measurements as CSV, with the columns of validation/KIND.")]
Configs = Annotated[
    Path | None, typer.Option("--configs", help="Folder of the configurations that the measurements name (dram).")
]


def validate(kind: Kind, file: File, configs: Configs = None, json: options.Json = False) -> None:
    """Simulate every row of a file of measurements; error per row, and a summary per source.

    Ends with code 1 when a stated bound is passed, with 2 when the file cannot be understood.

    \b
    Example:
      npusim validate rtl validation/rtl/cycles.csv
    """
    import importlib

    from npusim.cli.output import print_lines, print_table, working
    from npusim.errors import ConfigError
    from npusim.text import clean

    try:
        module = importlib.import_module(f"npusim.validate.{kind}")
    except ModuleNotFoundError as error:
        if error.name != f"npusim.validate.{kind}":
            raise
        raise ConfigError(f"this version of npusim cannot validate {kind}") from None
    with working(f"simulating {clean(file)}"):
        found: Validation = module.validate(file, configs)
    if json:
        from npusim.report import json_text

        print(json_text(found.as_dict()), end="")
    else:
        print_table(_rows(found))
        print()
        print_table(_summary(found))
        print_lines([f"not modelled: {clean(what)}" for what in found.not_modelled])
    if not found.held:
        raise typer.Exit(1)


def _rows(found: Validation) -> Table:
    from npusim.report import Table
    from npusim.text import clean

    rows = tuple(
        (
            str(row.line), clean(row.group), clean(row.case), _number(row.measured), _number(row.simulated),
            _number(row.difference), _percent(row.error_pct), _remark(row),
        )
        for row in found.rows
    )  # fmt: skip
    header = ("line", "group", "case", "measured", "simulated", "difference", "error %", "remark")
    return Table(f"{found.kind}: simulated against measured", header, rows, 3)


def _summary(found: Validation) -> Table:
    from npusim.report import Table
    from npusim.text import clean

    rows = tuple(
        (
            clean(s.group), _verdict(s), str(s.bound or "none stated"), str(s.rows), str(s.simulated), str(s.equal),
            *(_percent(error if s.simulated else None) for error in (s.mean_pct, s.max_pct)),
        )
        for s in found.summaries
    )  # fmt: skip
    header = ("group", "result", "bound", "rows", "simulated", "equal", "mean error %", "largest %")
    return Table("summary (absolute errors)", header, rows, 3)


def _verdict(summary: Summary) -> str:
    if not summary.simulated:
        return "not simulated"
    return ("held" if summary.held else "EXCEEDED") if summary.bound else "-"


def _remark(row: Row) -> str:
    from npusim.text import clean

    if row.note or not row.others:
        return clean(row.note)
    if row.differing:
        shown = ", ".join(f"{name} {row.others[name][0]:g} -> {row.others[name][1]:g}" for name in row.differing)
        return clean(f"{len(row.differing)} of {len(row.others)} counts differ: {shown}")
    return f"{len(row.others)} counts equal"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(int(value)) if value == int(value) else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
