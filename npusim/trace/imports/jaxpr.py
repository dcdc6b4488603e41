"""Training steps from JAX: the jaxpr of a function that computes gradients and updates, as JAX traced it.

    def step(params, x, y):
        loss, grads = jax.value_and_grad(loss_function)(params, x, y)
        return jax.tree.map(lambda w, d: w - 0.1 * d, params, grads), loss

    jaxpr = jax.make_jaxpr(step)(params, x, y)            # arrays or jax.ShapeDtypeStruct
    graph = npusim.trace.from_jaxpr(jaxpr)                # or save_jaxpr(jaxpr, "step.json"), and import that elsewhere

The first results must be the updated parameters, in the order of the first arguments (optimizer state may follow them).
The file is JSON, not a pickle and not JAX's text, which changes between versions:

| key            | value                                                                                     |
|----------------|-------------------------------------------------------------------------------------------|
| `npusim_jaxpr` | 1                                                                                         |
| `jax`          | version of JAX                                                                            |
| `parameters`   | names of the first arguments, or null                                                     |
| `vars`         | [shape, type] of every variable                                                           |
| `invars`, `outvars` | numbers of variables; null for a literal                                             |
| `eqns`         | {`p`: primitive, `in`, `out`: variables, `stack`: name stack, `params`}; calls inlined    |
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim import atomic
from npusim.errors import TraceError
from npusim.trace.imports.files import load_json
from npusim.trace.imports.jaxpr_inline import MAX_EQUATIONS, SCHEMA, plain
from npusim.trace.imports.jaxpr_steps import step_of
from npusim.trace.imports.jaxpr_values import Equation, Program

if TYPE_CHECKING:
    from npusim.graph import StepGraph

MAX_VARIABLES = 2_000_000
MAX_RANK = 12
MAX_SIZE = 2**40


def from_jaxpr(
    jaxpr: Any, *, parameters: Sequence[str] | None = None, name: str = "jax", skip_unknown: bool = False
) -> StepGraph:
    """The training step of a jaxpr (`jax.make_jaxpr(step)(...)`); `parameters` names its first arguments.

    With `skip_unknown`, loops and branches that multiply matrices are left out and listed in `meta["skipped"]`.
    TraceError names the equation that stands in the way.
    """
    return _step(plain(jaxpr, parameters), "jaxpr", name, skip_unknown)


def save_jaxpr(jaxpr: Any, path: str | Path, parameters: Sequence[str] | None = None) -> None:
    """Write what `from_jaxpr` needs as JSON."""
    atomic.write(path, json.dumps(plain(jaxpr, parameters), separators=(",", ":")) + "\n")


def from_jaxpr_file(path: str | Path, *, name: str = "", skip_unknown: bool = False) -> StepGraph:
    """The training step in a file that `save_jaxpr` wrote (JSON, gzipped or not)."""
    title = Path(path).name.removesuffix(".gz").removesuffix(".json") or "jax"
    return _step(load_json(path), str(path), name or title, skip_unknown)


def _step(value: Any, label: str, name: str, skip_unknown: bool) -> StepGraph:
    try:
        return step_of(_program(value), label, name, skip_unknown)
    except _Wrong as problem:
        raise TraceError(f"{label}: {problem}") from None


# --- from JSON


class _Wrong(Exception):
    pass


def _program(value: Any) -> Program:
    keys = ("npusim_jaxpr", "jax", "parameters", "vars", "invars", "outvars", "eqns")
    if not isinstance(value, dict) or any(key not in value for key in keys):
        raise _Wrong(f"not a saved jaxpr; it needs the keys {', '.join(keys)}")
    if value["npusim_jaxpr"] != SCHEMA:
        raise _Wrong(f"npusim_jaxpr is {str(value['npusim_jaxpr'])[:40]!r}; this version reads {SCHEMA}")
    kinds = [_kind(item, f"vars[{i}]") for i, item in enumerate(_list(value["vars"], "vars", MAX_VARIABLES))]
    names = value["parameters"]
    if names is not None and not (isinstance(names, list) and all(isinstance(n, str) and n for n in names)):
        raise _Wrong("parameters must be a list of names, or null")
    equations = []
    for i, item in enumerate(_list(value["eqns"], "eqns", MAX_EQUATIONS)):
        where = f"eqns[{i}]"
        if not isinstance(item, dict) or not isinstance(item.get("p"), str) or not isinstance(item.get("stack"), str):
            raise _Wrong(f"{where}: must be an object with p, in, out, stack and params")
        reads, writes = (_numbers(item.get(key), f"{where}.{key}", len(kinds)) for key in ("in", "out"))
        params = item.get("params")
        equations.append(
            Equation(i, item["p"], reads, writes, item["stack"], params if isinstance(params, dict) else {})
        )
    invars, outvars = (_numbers(value[key], key, len(kinds)) for key in ("invars", "outvars"))
    _in_order(invars, equations)
    return Program(kinds, invars, outvars, equations, names, str(value["jax"])[:40])


def _in_order(invars: tuple[int, ...], equations: list[Equation]) -> None:
    """Every variable is an argument or is written once, before it is read; constants of the function are never written.

    Without that, views could lead round in circles.
    """
    written = set(invars)
    later = {v for equation in equations for v in equation.writes}
    for equation in equations:
        if early := [v for v in equation.reads if v in later and v not in written]:
            raise _Wrong(f"eqns[{equation.index}]: reads variable {early[0]} before it is written")
        for v in equation.writes:
            if v < 0 or v in written:
                raise _Wrong(f"eqns[{equation.index}]: writes {'no variable' if v < 0 else f'variable {v} again'}")
            written.add(v)


def _list(value: Any, where: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise _Wrong(f"{where} must be a list of at most {most} entries")
    return value


def _numbers(value: Any, where: str, count: int) -> tuple[int, ...]:
    """Variables by number; -1 for a literal."""
    found = _list(value, where, MAX_VARIABLES)
    if not all(n is None or (type(n) is int and 0 <= n < count) for n in found):
        raise _Wrong(f"{where}: numbers of variables or null are needed")
    return tuple(-1 if n is None else n for n in found)


def _kind(item: Any, where: str) -> tuple[tuple[int, ...], str]:
    shape = item[0] if isinstance(item, list) and len(item) == 2 else None
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not isinstance(item[1], str):
        raise _Wrong(f"{where}: must be [shape, type] with at most {MAX_RANK} sizes")
    total = 1
    for size in shape:
        if type(size) is not int or not 0 <= size < MAX_SIZE:
            raise _Wrong(f"{where}: size {str(size)[:40]} is out of range")
        total *= size
    if total >= 2**62:
        raise _Wrong(f"{where}: the shape {shape} has too many elements")
    return tuple(shape), item[1]
