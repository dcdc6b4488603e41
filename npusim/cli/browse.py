"""`npusim list` and `npusim show`: what the catalogues hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from npusim.cli import methods, options

KINDS = ("workloads", "dataflows", "hardware", "energy", "methods")
MAPPING = "mapping"
SINGULAR = {"workload": "workloads", "dataflow": "dataflows", "method": "methods"}


def _kind(value: str) -> str:
    """Singular or plural of a kind as its catalogue's name."""
    kind = SINGULAR.get(value, value)
    if kind not in KINDS:
        from npusim.errors import closest
        from npusim.text import clean

        raise typer.BadParameter(f"{clean(value)!r}{closest(value, list(KINDS))}; known: {', '.join(KINDS)}")
    return kind


Kind = Annotated[
    str,
    typer.Argument(
        metavar="KIND", help="workloads, dataflows, hardware, energy or methods.", callback=_kind,
        autocompletion=lambda incomplete: [kind for kind in KINDS if kind.startswith(incomplete)],
    ),
]  # fmt: skip
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `npusim list` shows, or a file.")]


def list_names(kind: Kind, json: options.Json = False) -> None:
    """List the workloads, dataflows, machines, energy tables or training methods that can be named.

    \b
    Example:
      npusim list dataflows
    """
    from npusim import catalogue, report
    from npusim.text import clean

    names = methods.names() if kind == "methods" else catalogue.names(kind)
    rows = [(clean(name), _about(kind, name)) for name in names]
    if json:
        print(report.json_text([{"name": name, "about": about} for name, about in rows]), end="")
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, about in rows:
        print(f"{name:{width}s}  {about}".rstrip())


def _about(kind: str, name: str) -> str:
    """One line about an entry; a file that cannot be read says so and does not hide the others."""
    from npusim import catalogue
    from npusim.errors import NpusimError
    from npusim.text import clean

    def of_workload() -> str:
        return options.step_of(name)[1].sentence().partition(": ")[2]

    def of_hardware() -> str:
        from npusim import npu

        return str(npu.load(name)).partition(": ")[2]

    def of_energy() -> str:
        from npusim.energy import table

        found = table.load(name)
        return f"{found.node_nm} nm; {found.description}".rstrip("; ")

    about: Mapping[str, Callable[[], str]] = {
        "workloads": of_workload,
        "dataflows": lambda: catalogue.load_dataflow(name).summary,
        "hardware": of_hardware,
        "energy": of_energy,
        "methods": lambda: methods.about(name),
    }
    try:
        return clean(about[kind]())
    except NpusimError as error:
        return f"cannot be read: {clean(error)}"


Shown = Annotated[
    str,
    typer.Argument(
        metavar="KIND", help="workload, dataflow, hardware, energy, method or mapping.", callback=lambda value: (
            value if value == MAPPING else _kind(value)
        ), autocompletion=lambda incomplete: [kind for kind in (*KINDS, MAPPING) if kind.startswith(incomplete)],
    ),
]  # fmt: skip


def show(
    kind: Shown,
    name: Name,
    hardware: Annotated[str | None, typer.Option("--hardware", "-H", help="Of a mapping: the machine.")] = None,
    dataflow: Annotated[str | None, typer.Option("--dataflow", "-d", help="Of a mapping: the dataflow.")] = None,
    input_size: options.InputSize = None,
    batch: options.Batch = None,
    changes: options.Changes = None,
    objective: Annotated[str | None, typer.Option("--objective", help="Of a mapping: cycles, energy or edp.")] = None,
    mapping: options.MappingFile = None,
    json: options.Json = False,
) -> None:
    """Show everything about one workload, dataflow, machine, energy table or training method, or a step's mapping.

    A machine is printed as its file, a mapping as the file that --mapping of run, compare and sweep takes: save it,
    edit it, run it.

    \b
    Example:
      npusim show hardware edge-16x16
      npusim show mapping tiny-cnn --hardware edge-16x16 --dataflow dense-os > tiny.toml
    """
    from npusim.report import json_text
    from npusim.text import clean

    if kind == MAPPING:
        from npusim.cli import mappings
        from npusim.provenance import Request

        choice = options.choice(objective or "cycles", mapping)
        request = Request(name, hardware or "edge-16x16", {}, input_size, batch, choice=choice)
        value, lines = mappings.show(request, options.one_dataflow(dataflow or "dense-os"), changes, choice)
    elif given := [key for key, value in (
        ("--hardware", hardware), ("--dataflow", dataflow), ("--input-size", input_size), ("--batch", batch),
        ("--set", changes), ("--objective", objective), ("--mapping", mapping),
    ) if value is not None]:  # fmt: skip
        raise typer.BadParameter(f"only `npusim show mapping` takes {', '.join(given)}", param_hint=given[0])
    else:
        value, lines = {
            "workloads": _workload,
            "dataflows": _dataflow,
            "hardware": _hardware,
            "energy": _energy,
            "methods": methods.show,
        }[kind](name)
    if json:
        print(json_text(value), end="")
        return
    for line in lines:
        print(clean(line))


def _hardware(name: str) -> tuple[Any, list[str]]:
    """The file itself, whose comments are the sources of its numbers: saved, it is a machine again."""
    from npusim import catalogue, npu

    machine = npu.load(name)
    content = catalogue.find("hardware", name).read_text(encoding="utf-8")
    return machine.model_dump(), [f"# {machine}", "", *content.splitlines()]


def _dataflow(name: str) -> tuple[Any, list[str]]:
    import sys
    from dataclasses import fields

    from npusim import catalogue

    flow = catalogue.load_dataflow(name)
    value = {field.name: getattr(flow, field.name) for field in fields(flow) if field.name != "cost"}
    shown = [(key, ", ".join(v) if isinstance(v, tuple) else v) for key, v in value.items()]
    module = sys.modules.get(getattr(flow.cost, "__module__", ""))
    document = (getattr(module, "DATAFLOW", None) is flow and module.__doc__) or ""
    return value, [*_aligned([(key, "-" if v == "" else v) for key, v in shown]), "", *document.strip().splitlines()]


def _energy(name: str) -> tuple[Any, list[str]]:
    from npusim.energy import table

    found = table.load(name)
    value = found.model_dump()
    lines = [f"{found.name}: {found.node_nm} nm. {found.description}", ""]
    for key, row in _rows(value):
        amounts = ", ".join(f"{k} = {v:g}" for k, v in row.items() if isinstance(v, int | float))
        lines += [f"{key}: {amounts} ({row['confidence']} confidence)", f"    {row['source']}"]
    return value, lines


def _workload(name: str) -> tuple[Any, list[str]]:
    from npusim import config, text
    from npusim.graph import PHASES

    _, graph = options.step_of(name)
    phases = {p: graph.phase(p) for p in PHASES if graph.phase(p)}
    lines = [f"{graph.name}: {len(graph.ops)} operations, {len(graph.tensors)} tensors", ""]
    rows = [(p, f"{len(ops)} operations, {text.count(sum(op.macs for op in ops))} MACs") for p, ops in phases.items()]
    lines += _aligned(rows)
    for title, masks in (("task masks", graph.task_masks), ("update masks", graph.update_masks)):
        lines += ["", f"{title}: {len(masks) or 'none'}"]
        lines += ["  " + line for line in _aligned([
            (key, f"{text.percent(m.density):>7s} of {'x'.join(map(str, m.shape))}") for key, m in masks.items()
        ])]  # fmt: skip
    lines += ["", *_aligned(config.leaves(dict(graph.meta)))]
    return graph.as_dict(), lines


def _rows(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """Tables that name a source, with their key paths."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for key, part in value.items():
        if isinstance(part, Mapping):
            found += [(f"{prefix}{key}", part)] if "source" in part else _rows(part, f"{prefix}{key}.")
    return found


def _aligned(rows: list[tuple[str, Any]]) -> list[str]:
    width = max((len(key) for key, _ in rows), default=0)
    return [f"{key:{width}s}  {value}" for key, value in rows]
