"""Options that several commands share, and how they become a step and a machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from npusim.graph import StepGraph
    from npusim.mapping.choice import Choice
    from npusim.npu import Hardware
    from npusim.provenance import Request
    from npusim.spill import MemoryLimit

DATAFLOWS = "dense-os,selective-row,channel-skipping,reduction-spatial"


def complete(kind: str):
    """Shell completion from a catalogue; of lists, the last name."""

    def names(incomplete: str) -> list[str]:
        from npusim import api

        *before, last = incomplete.split(",")
        return [",".join([*before, name]) for name in api.names(kind) if name.startswith(last)]

    return names


Workload = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD",
        help="A name of `npusim list workloads`, a trace file, or a layer list in TOML.",
        autocompletion=complete("workloads"),
    ),
]
MaybeWorkload = Annotated[
    str | None,
    typer.Argument(
        metavar="WORKLOAD",
        help="A name of `npusim list workloads`, or a trace file.",
        autocompletion=complete("workloads"),
    ),
]
HardwareName = Annotated[
    str,
    typer.Option("--hardware", "-H", help="A machine: a preset or a TOML file.", autocompletion=complete("hardware")),
]
Dataflow = Annotated[
    str,
    typer.Option("--dataflow", "-d", help="A dataflow: a name or a Python file.", autocompletion=complete("dataflows")),
]
Dataflows = Annotated[
    str,
    typer.Option(
        "--dataflow", "-d", help="Dataflows, with commas between; the first is the baseline.",
        autocompletion=complete("dataflows"),
    ),
]  # fmt: skip
Methods = Annotated[
    str | None,
    typer.Option(
        "--methods", "-m", metavar="NAMES",
        help="Training methods, with commas between: last-k:k=2,swu:density=0.1; or all.",
        autocompletion=complete("methods"),
    ),
]  # fmt: skip
Method = Annotated[
    str | None,
    typer.Option(
        "--method", "-m", metavar="NAME[:KEY=VALUE]", help="A training method: swu, last-k:k=2.",
        autocompletion=complete("methods"),
    ),
]  # fmt: skip
Engine = Annotated[
    str,
    typer.Option(
        "--engine", help="fast (compiled) or simpy (the readable specification).",
        autocompletion=lambda incomplete: [name for name in ("fast", "simpy") if name.startswith(incomplete)],
    ),
]  # fmt: skip
InputSize = Annotated[
    int | None, typer.Option("--input-size", min=1, max=65536, help="Re-shape the step to square images of this size.")
]
Batch = Annotated[int | None, typer.Option("--batch", min=1, max=1048576, help="Re-shape the step to this batch size.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the machine, e.g. array.rows=32; repeatable."),
]
Energy = Annotated[
    str | None,
    typer.Option("--energy", help="An energy table other than the machine's.", autocompletion=complete("energy")),
]
Objective = Annotated[
    str,
    typer.Option("--objective", help="What tilings make least: cycles, energy or edp (energy-delay product)."),
]
MappingFile = Annotated[
    Path | None,
    typer.Option("--mapping", metavar="FILE", help="Tilings fixed by hand; `npusim show mapping` prints such a file."),
]
MemoryLimitSize = Annotated[
    str | None,
    typer.Option(
        "--memory-limit", metavar="SIZE",
        help="Memory that the step's tensors may take, e.g. 256KiB (KB is taken as 1024 bytes, as papers on it do).",
    ),
]  # fmt: skip
MemoryOver = Annotated[
    str, typer.Option("--memory-over", help="Beyond the limit: error (names the tensor) or spill (moves simulated).")
]
DramTrace = Annotated[
    Path | None,
    typer.Option("--dram-trace", metavar="FILE", help="Write every DRAM request (dram.model = 'commands')."),
]
DramTraceFormat = Annotated[
    str, typer.Option("--dram-trace-format", help="dramsim3 or ramulator2: which simulator shall read it.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for result files.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def prepare(
    request: Request, dataflows: list[str], settings: list[str] | None
) -> tuple[StepGraph, Hardware, Request]:  # fmt: skip
    """Step and machine of a request, and the request with files and changed keys filled in."""
    from dataclasses import replace

    from npusim import catalogue, engine, npu
    from npusim.errors import ConfigError, closest

    if request.engine not in engine.ENGINES:
        known = ", ".join(engine.ENGINES)
        suggestion = closest(request.engine, list(engine.ENGINES))
        raise ConfigError(f"--engine {request.engine!r} is not an engine{suggestion}; known: {known}")
    changes = settings_of(settings or [])
    machine = npu.load(request.hardware)
    machine = machine.replace(changes) if changes else machine
    files = {name: catalogue.find("dataflows", name) for name in dataflows}
    source, graph = step_of(request.workload)
    if request.input_size is not None or request.batch is not None:
        from npusim.trace.reshape import reshape

        graph = reshape(graph, request.input_size, request.batch)
    return graph, machine, replace(request, source=source, changes=changes, dataflows=files)


def choice(objective: str, mapping: Path | None) -> Choice | None:
    """The options --objective and --mapping together; None for the defaults."""
    if objective == "cycles" and mapping is None:
        return None
    from npusim.mapping import choice as choices

    return choices.choice(objective, mapping)


def check_dram_trace(machine: Hardware, form: str) -> None:
    """ConfigError when a DRAM trace of `machine` in format `form` cannot be written."""
    from npusim.engine.dram_trace import FORMATS
    from npusim.errors import ConfigError, unknown

    if form not in FORMATS:
        raise unknown("DRAM trace format", form, list(FORMATS))
    if machine.dram.model != "commands":
        raise ConfigError(
            f"--dram-trace needs addresses, but {machine.name} has dram.model = {machine.dram.model!r}; "
            "add --set dram.model=commands"
        )


def step_of(workload: str) -> tuple[Path, StepGraph]:
    """The file of a workload and its step: a trace, or a layer list (.toml) whose backward phases are synthesised."""
    from npusim import workload as workloads

    return workloads.find(workload)


def memory_limit(size: str | None, over: str) -> MemoryLimit | None:
    """The options --memory-limit and --memory-over together."""
    from npusim import spill

    return spill.limit(size, over, "--memory-limit", "--memory-over")


def settings_of(texts: list[str]) -> dict[str, Any]:
    """KEY=VALUE options as keys of a machine: values are read as TOML, else taken as text ('96KiB')."""
    from npusim.errors import ConfigError

    found: dict[str, Any] = {}
    problems = []
    for item in texts:
        key, equals, value = (part.strip() for part in item.partition("="))
        if not key or not equals or not value:
            problems.append(f"--set {item}: write KEY=VALUE, for example --set array.rows=32")
        elif key in found:
            problems.append(f"--set {item}: {key} is set twice")
        else:
            found[key] = _value(value)
    if problems:
        raise ConfigError("\n  ".join(["options that cannot be understood:", *problems]))
    return found


def names_of(listing: str) -> list[str]:
    """The names of a list with commas; ConfigError when it is empty or names one twice."""
    from npusim.errors import ConfigError

    names = [name.strip() for name in listing.split(",") if name.strip()]
    if not names:
        raise ConfigError("--dataflow names no dataflow")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--dataflow names {', '.join(twice)} twice")
    return names


def one_dataflow(listing: str) -> str:
    """The one name of an option that takes no list."""
    names = names_of(listing)
    if len(names) > 1:
        message = f"one dataflow, not {len(names)}; `npusim compare` takes several"
        raise typer.BadParameter(message, param_hint="--dataflow")
    return names[0]


def _value(value: str) -> Any:
    import tomllib

    try:
        read = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # no TOML, or a number of too many digits
        return value
    return read["value"] if set(read) == {"value"} else value
