"""How tilings are chosen: what shall be least, and those that are fixed by hand.

A mapping file is TOML, one table per operation and part (`npusim show mapping` prints one for a whole step):

    [[mapping]]
    op = "layer1.0.conv1"       phase = "forward"
    part = 0                    # which product: of grad_input with a stride, and where names repeat, else 0
    dataflow = "dense-os"       # only when this dataflow runs the operation; "" or left out: any
    g = 1  m = 32  c = 64  n = 1  p = 14  q = 56    # extents of a full tile
    order = "m outer"           # or "m inner": which output loop runs inside

Operations that the file does not name are mapped by search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from npusim import catalogue, config
from npusim.config import Model
from npusim.counters import COUNTERS
from npusim.errors import ConfigError, closest
from npusim.graph import MAC_KINDS, StepGraph
from npusim.mapping.problem import Problem, problems
from npusim.mapping.tiling import Tiling

if TYPE_CHECKING:
    from npusim.energy.account import Prices
    from npusim.mapping.lower import OpPlan

OBJECTIVES = ("cycles", "energy", "edp")
ORDERS = ("m outer", "m inner")
SHOWN_PROBLEMS = 20
Extent = Annotated[int, Field(ge=1, le=2**40)]


class Objective(NamedTuple):
    """What a tiling shall make least: `cycles`; `energy`: pJ of its work and of its cycles; `edp`: their product."""

    name: str = "cycles"
    pj_per_count: tuple[float, ...] = ()
    pj_per_cycle: float = 0.0

    def value(self, counts: Mapping[str, int], cycles: int) -> float:
        """Of one problem alone; `counts` by the names of COUNTERS."""
        if self.name == "cycles":
            return cycles
        pj = sum(pj * counts.get(name, 0) for name, pj in zip(COUNTERS, self.pj_per_count, strict=True))
        pj += cycles * self.pj_per_cycle
        return pj if self.name == "energy" else pj * cycles


def objective(name: str, prices: Prices | None = None) -> Objective:
    """The objective of a name of OBJECTIVES at the prices of a machine (needed unless it is `cycles`)."""
    if prices is None:
        return Objective(name)
    per = {work: sum(a.pj for a in prices.actions if a.work == work) for work in (*COUNTERS, "cycles")}
    return Objective(name, tuple(per[work] for work in COUNTERS), per["cycles"])


class _Entry(Model):
    op: str
    phase: str
    part: Annotated[int, Field(ge=0)] = 0
    dataflow: str = ""
    g: Extent = 1
    m: Extent
    c: Extent
    n: Extent
    p: Extent
    q: Extent
    order: Literal["m outer", "m inner"]

    @property
    def tiling(self) -> Tiling:
        return Tiling(self.g, self.m, self.c, self.n, self.p, self.q, self.order == "m inner")


class _File(Model):
    mapping: Annotated[list[_Entry], Field(min_length=1)]


@dataclass(frozen=True)
class Choice:
    """`objective` is a name of OBJECTIVES; `fixed` tilings by (operation, phase, part, dataflow or "")."""

    objective: str = "cycles"
    fixed: tuple[tuple[tuple[str, str, int, str], Tiling], ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            hint = closest(self.objective, list(OBJECTIVES))
            raise ConfigError(f"objective {self.objective!r} is unknown{hint}; known: {', '.join(OBJECTIVES)}")

    def tiling(self, op: str, phase: str, part: int, dataflow: str) -> Tiling | None:
        """The tiling fixed for a part of an operation that `dataflow` runs."""
        found = dict(self.fixed)
        return found.get((op, phase, part, dataflow)) or found.get((op, phase, part, ""))

    def check(self, graph: StepGraph) -> None:
        """Raise one ConfigError that lists every fixed tiling which names nothing in `graph` or exceeds it."""
        products: dict[tuple[str, str], list[Problem]] = {}
        for op in graph.ops:
            if op.kind in MAC_KINDS:
                products.setdefault((op.name, op.phase), []).extend(problems(op, graph.tensors))
        wrong = []
        for (name, phase, part, dataflow), tiling in self.fixed:
            where = f"{name}:{phase}" + (f" part {part}" if part else "")
            parts = products.get((name, phase))
            if parts is None:
                labels = [f"{known}:{kind}" for known, kind in products]
                wrong.append(f"{where}: no such product in step {graph.name!r}{closest(f'{name}:{phase}', labels)}")
                continue
            if part >= len(parts):
                wrong.append(f"{where}: the operation has {len(parts)} part(s), numbered from 0")
                continue
            if dataflow and dataflow not in catalogue.names("dataflows") and not dataflow.endswith(".py"):
                hint = closest(dataflow, catalogue.names("dataflows"))
                wrong.append(f"{where}: unknown dataflow {dataflow!r}{hint}")
            problem = parts[part]
            whole = {"g": problem.groups, **{axis: getattr(problem, axis) for axis in "mcnpq"}}
            large = [f"{axis} = {getattr(tiling, axis)} of {total}" for axis, total in whole.items()
                     if getattr(tiling, axis) > total]  # fmt: skip
            if large:
                wrong.append(f"{where}: a tile larger than the operation: {', '.join(large)}")
            elif tiling.g > 1 and (tiling.m, tiling.c) != (problem.m, problem.c):
                rule = f"m = {problem.m}, c = {problem.c}"
                wrong.append(f"{where}: g = {tiling.g} joins groups, so their rows and channels must be whole: {rule}")
        if wrong:
            more = [f"... and {len(wrong) - SHOWN_PROBLEMS} more"] if len(wrong) > SHOWN_PROBLEMS else []
            count = "1 problem" if len(wrong) == 1 else f"{len(wrong)} problems"
            raise ConfigError("\n  ".join([f"{self.source}: {count}", *wrong[:SHOWN_PROBLEMS], *more]))

    def digest(self) -> str:
        """sha256 of what decides a mapping; "" for the default choice, which needs none."""
        if self == Choice(source=self.source):
            return ""
        value = [self.objective, [[*key, str(tiling)] for key, tiling in self.fixed]]
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def choice(objective_name: str = "cycles", path: str | Path | None = None) -> Choice:
    """A choice with the fixed tilings of a mapping file; ConfigError lists every mistake of it."""
    if path is None:
        return Choice(objective_name)
    return parse(config.load(_File, path), objective_name, str(path))


def parse(file: _File, objective_name: str, source: str) -> Choice:
    fixed: dict[tuple[str, str, int, str], Tiling] = {}
    for number, entry in enumerate(file.mapping, start=1):
        key = entry.op, entry.phase, entry.part, entry.dataflow
        if key in fixed:
            raise ConfigError(f"{source}: mapping.{number}: {entry.op}:{entry.phase} part {entry.part} is given twice")
        fixed[key] = entry.tiling
    return Choice(objective_name, tuple(sorted(fixed.items(), key=lambda item: item[0])), source)


def first_parts(graph: StepGraph) -> list[int]:
    """Per operation, the part that its first product is: products of the same name and phase are counted on."""
    found, following = [], dict[tuple[str, str], int]()
    for op in graph.ops:
        key = op.name, op.phase
        found.append(following.get(key, 0))
        if op.kind in MAC_KINDS:
            following[key] = found[-1] + len(problems(op, graph.tensors))
    return found


def tilings(plans: Iterable[OpPlan]) -> Iterator[tuple[OpPlan, int, Tiling]]:
    """Every tiling of a lowered step and its part, as `first_parts` counts."""
    following: dict[tuple[str, str], int] = {}
    for plan in plans:
        key = plan.op.name, plan.op.phase
        for part, tiling in enumerate(plan.tilings, following.get(key, 0)):
            yield plan, part, tiling
            following[key] = part + 1


def text(plans: Sequence[OpPlan], heading: Iterable[str] = ()) -> str:
    """The mapping file of a lowered step: every tiling as it was chosen."""
    lines = [f"# {line}" for line in heading]
    for plan, part, tiling in tilings(plans):
        extents = "\n".join(f"{axis} = {getattr(tiling, axis)}" for axis in "gmcnpq")
        lines += ["", "[[mapping]]", f"op = {json.dumps(plan.op.name)}", f'phase = "{plan.op.phase}"']
        lines += [f"part = {part}", f"dataflow = {json.dumps(plan.dataflow)}", extents]
        lines += [f'order = "{ORDERS[tiling.swap]}"']
    return "\n".join(lines) + "\n"
