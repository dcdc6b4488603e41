"""`npusim show mapping`: how every product of a step is tiled, as a file that --mapping takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npusim.mapping.choice import Choice
    from npusim.provenance import Request


def show(
    request: Request, dataflow: str, settings: list[str] | None, choice: Choice | None
) -> tuple[dict[str, Any], list[str]]:
    """The mapping as a JSON value and as the lines of a mapping file."""
    from functools import cache

    from npusim import catalogue
    from npusim.cli import options
    from npusim.simulation import lowered

    graph, machine, _ = options.prepare(request, [dataflow], settings)
    if choice is not None:
        choice.check(graph)
    resolve = cache(catalogue.load_dataflow)
    plans = lowered(graph, machine, resolve(dataflow), resolve, choice, request.energy).plans
    from npusim.mapping import choice as choices

    rows = [
        {"op": plan.op.name, "phase": plan.op.phase, "part": part, "dataflow": plan.dataflow, **asdict(tiling)}
        for plan, part, tiling in choices.tilings(plans)
    ]

    aim = choice.objective if choice else "cycles"
    heading = [f"{graph.name} on {machine.name}, {dataflow}, least {aim}; npusim run --mapping FILE takes this file"]
    return {"mapping": rows}, choices.text(plans, heading).splitlines()
