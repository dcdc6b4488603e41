"""A training method: a rewrite of the step graph, and what it asks of time, precision and memory.

A method is one file in `npusim/methods/` (or in `<folder>/methods/` of a folder of `NPUSIM_PATH`) that defines
`METHOD = Method(...)`. Its `rewrite(graph, **parameters)` is pure: it returns a StepGraph, or a Plan when parts of the
step run more or less than once, or at other precision. The primitives for the fields below are in `npusim.rewrite`.

| field        | meaning                                         | expressed as                              |
|--------------|-------------------------------------------------|-------------------------------------------|
| alive        | the operation runs at all                       | operations left out                       |
| truncate_at  | deepest layer that error propagation reaches    | grad_input operations left out            |
| axis_mask    | which channels, taps or elements get a gradient | smaller dimensions, or an update mask     |
| pool         | patches of X and dY                             | smaller dimensions, `aux` operations      |
| bits         | width of activations, weights, gradients        | `Part.bits`                               |
| time         | time steps forward and backward                 | `Part.share` of a phase                   |
| batch_keep   | share of samples that enter the step            | `Part.share`, operations of the filter    |
| saved_tensor | what is kept from forward                       | other tensors read by backward operations |
| schedule     | what differs from step to step                  | several parts with their shares           |

What a method adds (scores, masks, pooling) are operations of phase `aux`, so its cost is simulated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError, TraceError, closest, unknown
from npusim.graph import PHASES, StepGraph

if TYPE_CHECKING:
    from npusim.npu import Hardware

FIELDS = ("alive", "truncate_at", "axis_mask", "pool", "bits", "time", "batch_keep", "saved_tensor", "schedule")
WIDTHS = ("activation", "weight", "gradient", "weight_gradient", "state")
Value = int | float | str


class MisfitError(NpusimError):
    """A method that does not fit the step: the message names the layer and the reason."""


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """`in_place`: an elementwise operation writes over an operand that nobody reads afterwards.

    `time_steps`: how many copies of the saved activations live at once (spiking networks).
    """

    in_place: bool = False
    time_steps: int = 1


@dataclass(frozen=True)
class Part:
    """The operations of `phases` of `graph`, run `share` times in a mean training step.

    `bits` replaces the machine's widths by tensor kind. `scalable`: the array trades width for PEs (rows and columns
    grow as operands shrink); else it keeps its PEs, and narrow operands only move fewer bytes.
    """

    graph: StepGraph
    share: Fraction = Fraction(1)
    phases: tuple[str, ...] = PHASES
    bits: Mapping[str, int] = field(default_factory=dict)
    scalable: bool = False

    def step(self) -> StepGraph:
        """The operations that this part runs."""
        ops = tuple(op for op in self.graph.ops if op.phase in self.phases)
        return self.graph if len(ops) == len(self.graph.ops) else replace(self.graph, ops=ops)

    def widths(self, hardware: Hardware) -> Callable[[str], int]:
        """Bits of a tensor kind as this part has them on a machine."""
        return lambda kind: self.bits.get(kind) or hardware.precision.bits(kind)


@dataclass(frozen=True)
class Plan:
    """A mean training step: parts that run one after another, and how its memory is managed."""

    parts: tuple[Part, ...]
    policy: MemoryPolicy = MemoryPolicy()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method: its default decides the type; numbers lie in low..high, text is one of `choices`."""

    name: str
    default: Value
    about: str
    low: float = 0
    high: float = 2**20
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        if isinstance(self.default, str):
            return f"one of {', '.join(self.choices)}" if self.choices else "text"
        return f"{'a whole number' if isinstance(self.default, int) else 'a number'} in {self.low:g}..{self.high:g}"

    def taken(self, value: Any) -> Any:
        """A number where free text is wanted is that text: 'layers=7' of a specification."""
        free = isinstance(self.default, str) and not self.choices
        return str(value) if free and isinstance(value, int | float) and not isinstance(value, bool) else value

    def problem(self, value: Any) -> str:
        """Why `value` cannot be used, or ''."""
        if isinstance(self.default, str):
            good = isinstance(value, str) and (not self.choices or value in self.choices)
        elif isinstance(value, bool) or (isinstance(self.default, int) and not isinstance(value, int)):
            good = False
        else:
            good = isinstance(value, int | float) and self.low <= value <= self.high
        return "" if good else f"{self.name} = {value!r}; {self.allowed} is needed"


@dataclass(frozen=True)
class Method:
    """A named training method; `fields` are those of the table above that it writes.

    `timed`: its rewrite also takes `times`, the cycles of the dense step's operations as {(name, phase): cycles}.
    `selective`: it sets update masks, so a dataflow that skips by them changes its cost.
    `machine`: its rewrite also takes `hardware`, the machine that it is made for.
    """

    name: str
    summary: str
    rewrite: Callable[..., StepGraph | Plan]
    fields: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    timed: bool = False
    selective: bool = False
    machine: bool = False

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter's value; NpusimError lists all that are unknown or out of range."""
        known = [p.name for p in self.parameters]
        listing = ", ".join(known) or "none"
        bad = [f"unknown parameter {key!r}{closest(key, known)}; known: {listing}" for key in given if key not in known]
        found = {p.name: p.taken(given.get(p.name, p.default)) for p in self.parameters}
        bad += [text for p in self.parameters if (text := p.problem(found[p.name]))]
        if bad:
            raise NpusimError("\n  ".join([f"method {self.name!r}:", *bad]))
        return found


def apply(
    method: Method | str, step: StepGraph | Plan, times: Mapping[tuple[str, str], int] | None = None,
    hardware: Hardware | None = None, **parameters: Any,
) -> Plan:  # fmt: skip
    """The plan of `method` on `step`; applied to a plan, every part is rewritten in turn and shares multiply.

    Raises NpusimError (parameters) and MisfitError (the step has no layer of the needed kind).
    """
    chosen = load(method) if isinstance(method, str) else method
    values: dict[str, Any] = chosen.values(parameters)
    if chosen.timed:
        if times is None:
            raise NpusimError(f"method {chosen.name!r} chooses by measured times: simulate the dense step first")
        values["times"] = times
    if chosen.machine:
        if hardware is None:
            raise NpusimError(f"method {chosen.name!r} is made for a machine: give one")
        values["hardware"] = hardware
    before = step if isinstance(step, Plan) else Plan((Part(step),))
    parts: list[Part] = []
    policy = before.policy
    for part in before.parts:
        made = chosen.rewrite(part.graph, **values)
        plan = made if isinstance(made, Plan) else Plan((Part(made),))
        policy = _joined(before.policy, plan.policy)
        parts += [_nested(part, inner) for inner in plan.parts]
    result = Plan(tuple(part for part in parts if part.phases), policy)
    for part in result.parts:
        _verify(chosen, before, part.graph)
    return result


def _verify(method: Method, before: Plan, made: StepGraph) -> None:
    """The rewritten step must be consistent; one that began with masks of another method may not fit this one."""
    try:
        made.verify()
    except TraceError as error:
        if not any(part.graph.task_masks or part.graph.update_masks for part in before.parts):
            raise
        raise MisfitError(
            f"method {method.name!r} does not fit step {made.name!r}: it has masks of a method applied before it, "
            f"and this one changes the shape of what they mask; start from the dense step. {error}"
        ) from None


def _nested(outer: Part, inner: Part) -> Part:
    phases = tuple(phase for phase in inner.phases if phase in outer.phases)
    bits = {**outer.bits, **inner.bits}
    return Part(inner.graph, outer.share * inner.share, phases, bits, outer.scalable or inner.scalable)


def _joined(a: MemoryPolicy, b: MemoryPolicy) -> MemoryPolicy:
    return MemoryPolicy(a.in_place or b.in_place, max(a.time_steps, b.time_steps))


def parse(text: str) -> tuple[str, dict[str, Value]]:
    """'name:key=value:key=value' as name and parameters; numbers are read as such."""
    name, *pairs = text.split(":")
    found: dict[str, Value] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals or not value:
            raise NpusimError(f"{text!r}: write NAME:KEY=VALUE, for example last-k:k=2")
        if key in found:
            raise NpusimError(f"{text!r}: {key} is set twice")
        found[key] = _number(value)
    return name, found


def _number(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def names() -> list[str]:
    """Every known method, sorted."""
    return sorted(_files())


def load(name: str) -> Method:
    """The method of a name; a file that fails to import is an error that names the cause."""
    import importlib.util

    listing = _files()
    if name not in listing:
        raise unknown("method", name, list(listing))
    path = listing[name]
    if path.parent == _builtin():
        module = importlib.import_module(f"npusim.methods.{path.stem}")
    else:
        spec = importlib.util.spec_from_file_location(f"npusim_method_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise NpusimError(f"method {path} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, "METHOD", None)
    if not isinstance(found, Method):
        raise NpusimError(f"method {path} does not define METHOD")
    return found


def document(name: str) -> str:
    """The docstring of a method's file: rule, formula, source, what is left out."""
    import ast

    load(name)
    return ast.get_docstring(ast.parse(_files()[name].read_text(encoding="utf-8"))) or ""


def _builtin() -> Path:
    return Path(__file__).resolve().parent / "methods"


def _files() -> dict[str, Path]:
    folders = [Path(f) / "methods" for f in os.environ.get("NPUSIM_PATH", "").split(os.pathsep) if f]
    listing: dict[str, Path] = {}
    for folder in (*folders, _builtin()):
        files = sorted(folder.glob("*.py")) if folder.is_dir() else []
        listing = {path.stem.replace("_", "-"): path for path in files if not path.name.startswith("_")} | listing
    return listing
