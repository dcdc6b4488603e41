"""The `npusim` command. Every subcommand imports what it needs when it runs, so that help is quick.

Exit codes: 0 done; 1 a simulation broke its own laws or bounds; 2 the user's mistake, one message on stderr;
130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from npusim.cli import browse, reports, runs, sweep, timelines, traces, validate

FIRST_STEPS = """npusim simulates one training step on a neural processing unit.

Start here:
  npusim list workloads                      what can be simulated
  npusim run WORKLOAD                        cycles and energy, layer by layer
  npusim compare WORKLOAD --out results      several dataflows held against each other; open results/report.html
  npusim timeline WORKLOAD --out x.pftrace   what every unit does in every cycle
  npusim trace capture                       how your own PyTorch training step gets in
  npusim --help                              all commands
"""

app = typer.Typer(
    name="npusim",
    help="Cycle-level simulation of neural processing units for training on the device.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run", short_help="One training step: cycles, waiting, energy of every operation.")(runs.run)
app.command("compare", short_help="Several dataflows or training methods against the first.")(runs.compare)
app.command("report", short_help="The HTML report again, from saved results.")(reports.report)
app.command("timeline", short_help="What every unit does in every cycle, for Perfetto or Chrome.")(timelines.timeline)
app.command("sweep", short_help="Every point of a design space, in parallel, resumable.")(sweep.sweep)
app.add_typer(traces.app, name="trace")
app.command("list", short_help="Workloads, dataflows, machines, energy tables, methods.")(browse.list_names)
app.command("show", short_help="Everything about one of them.")(browse.show)
app.command("validate", short_help="Simulated against measured.")(validate.validate)


def _version(wanted: bool) -> None:
    if wanted:
        from npusim import __version__

        print(f"npusim {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(FIRST_STEPS, end="")


def main() -> None:
    """Run the command line; failures become one message and an exit code."""
    from npusim.errors import NpusimError

    try:
        code = app(prog_name="npusim", standalone_mode=False)
    except NpusimError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        # Usage errors of typer, whose class is not public.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "npusim"
        _fail(f"{error.format_message()}\nTry '{command} --help'.", 2)
    if code == 130:
        _fail("interrupted", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    from npusim.text import clean

    print(f"npusim: {clean(message, keep=chr(10))}", file=sys.stderr)
    sys.exit(code)
