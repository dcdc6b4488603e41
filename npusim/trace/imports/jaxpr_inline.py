"""A jaxpr as plain values: calls inlined, loops of known length unrolled. JAX itself is not imported.

A `scan` that multiplies matrices is written down round by round. Round i reads row i of what is scanned over: the value
that an earlier scan made in its round i, else an equation `slice` with the parameter `row`; what is stacked up is an
equation `concatenate` with the parameter `rows` when something else than a scan reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npusim.errors import TraceError

SCHEMA = 1
MAX_EQUATIONS = 200_000
INLINED = (
    "jit", "pjit", "closed_call", "core_call", "named_call", "custom_jvp_call", "custom_vjp_call", "remat", "remat2",
    "checkpoint", "custom_vjp_call_jaxpr",
)  # fmt: skip
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_KEPT = {
    "conv_general_dilated": ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "feature_group_count",
                             "batch_group_count"),
    "dot_general": ("dimension_numbers",),
    **dict.fromkeys(("reduce_window_max", "reduce_window_sum", "select_and_scatter_add", "select_and_gather_add"),
                    ("window_dimensions", "window_strides", "padding")),
}  # fmt: skip
_MACS = ("conv_general_dilated", "dot_general", "ragged_dot_general", "ragged_dot")


def plain(jaxpr: Any, parameters: Sequence[str] | None) -> dict[str, Any]:
    """The JSON value of a closed or open jaxpr, calls inlined. JAX itself is not imported."""
    inner: Any = getattr(jaxpr, "jaxpr", jaxpr)
    if not hasattr(inner, "eqns"):
        raise TraceError(f"a jaxpr is needed, as jax.make_jaxpr(step)(...) returns, not {type(jaxpr).__name__}")
    work = _Inliner()
    invars = [work.variable(v) for v in inner.invars]
    work.inline(inner, "")
    outvars = [work.whole(v) for v in inner.outvars]
    jax = __import__("sys").modules.get("jax")
    return {
        "npusim_jaxpr": SCHEMA, "jax": getattr(jax, "__version__", ""),
        "parameters": list(parameters) if parameters is not None else None, "vars": work.kinds, "invars": invars,
        "outvars": outvars, "eqns": work.equations,
    }  # fmt: skip


class _Inliner:
    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}
        self.kinds: list[list[Any]] = []
        self.equations: list[dict[str, Any]] = []
        self.keep: list[Any] = []
        # Stacked variable -> its rows and the name stack of the scan that made them; (stacked variable, row) -> slice.
        self.stacked: dict[int, tuple[list[int | None], str]] = {}
        self.rows: dict[tuple[int, int], int] = {}

    def variable(self, v: Any) -> int | None:
        if hasattr(v, "val"):  # a literal
            return None
        if id(v) not in self.numbers:
            self.keep.append(v)
            shape = [int(n) for n in getattr(v.aval, "shape", ())]
            self.numbers[id(v)] = self._new(shape, str(getattr(v.aval, "dtype", "token")))
        return self.numbers[id(v)]

    def whole(self, v: Any) -> int | None:
        """A variable that is read as it is: rows that a scan made are put together first."""
        number = self.variable(v)
        if number in self.stacked:
            rows, stack = self.stacked.pop(number)
            self._emit("concatenate", [row for row in rows if row is not None], [number], stack, {"rows": True})
        return number

    def _new(self, shape: list[int], dtype: str) -> int:
        self.kinds.append([shape, dtype])
        return len(self.kinds) - 1

    def _emit(
        self, primitive: str, reads: list[int | None], writes: list[int | None], stack: str, params: dict[str, Any]
    ) -> None:
        if len(self.equations) >= MAX_EQUATIONS:
            raise TraceError(f"with its loops unrolled the jaxpr has more than {MAX_EQUATIONS:,} equations")
        self.equations.append({"p": primitive, "in": reads, "out": writes, "stack": stack, "params": params})

    def inline(self, jaxpr: Any, stack: str) -> None:
        for eqn in jaxpr.eqns:
            primitive = eqn.primitive.name
            here = f"{stack}/{eqn.source_info.name_stack}" if stack else str(eqn.source_info.name_stack)
            body = next((eqn.params[key] for key in _BODIES if key in eqn.params), None)
            if primitive in INLINED and body is not None:
                body = getattr(body, "jaxpr", body)
                inputs = [self.variable(v) for v in eqn.invars[len(eqn.invars) - len(body.invars) :]]
                self._bind(eqn.outvars, self._body(body, inputs, here))
                continue
            products = primitive not in _MACS and any(_multiplies(part) for part in eqn.params.values())
            if primitive == "scan" and products:
                self._scan(eqn, eqn.params["jaxpr"].jaxpr, here)
                continue
            params = {key: _value(eqn.params[key]) for key in _KEPT.get(primitive, ()) if key in eqn.params}
            if primitive == "conv_general_dilated":
                numbers = eqn.params["dimension_numbers"]
                params["specs"] = [list(spec) for spec in (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)]
            if products:
                params["products"] = True
            reads = [self.whole(v) for v in eqn.invars]
            self._emit(primitive, reads, [self.variable(v) for v in eqn.outvars], here, params)

    def _scan(self, eqn: Any, body: Any, stack: str) -> None:
        """All rounds of a loop of known length, one after the other."""
        consts, carries, length = (int(eqn.params[key]) for key in ("num_consts", "num_carry", "length"))
        if length * len(body.eqns) > MAX_EQUATIONS:
            raise TraceError(f"a scan of {length:,} rounds of {len(body.eqns):,} equations is too long to be unrolled")
        fixed = [self.variable(v) for v in eqn.invars[:consts]]
        carry = [self.variable(v) for v in eqn.invars[consts : consts + carries]]
        made: list[list[int | None]] = [[None] * length for _ in eqn.outvars[carries:]]
        for i in reversed(range(length)) if eqn.params["reverse"] else range(length):
            scanned = [self._row(v, i, stack) for v in eqn.invars[consts + carries :]]
            results = self._body(body, [*fixed, *carry, *scanned], stack)
            carry = results[:carries]
            for rows, row in zip(made, results[carries:], strict=True):
                rows[i] = row
        self._bind(eqn.outvars[:carries], carry)
        for outer, rows in zip(eqn.outvars[carries:], made, strict=True):
            number = self.variable(outer)
            if number is not None:
                self.stacked[number] = rows, stack

    def _row(self, v: Any, i: int, stack: str) -> int | None:
        """Row `i` of a variable that is scanned over."""
        number = self.variable(v)
        if number is None or number in self.stacked:
            return None if number is None else self.stacked[number][0][i]
        if (number, i) not in self.rows:
            shape, dtype = self.kinds[number]
            self.rows[number, i] = self._new(shape[1:], dtype)
            self._emit("slice", [number], [self.rows[number, i]], stack, {"row": i})
        return self.rows[number, i]

    def _body(self, body: Any, inputs: list[int | None], stack: str) -> list[int | None]:
        """The equations of a body with variables of their own (it may run more than once); its results."""
        saved, self.numbers = self.numbers, dict(self.numbers)
        for inner, number in zip(body.invars, inputs, strict=True):
            if number is None:
                self.numbers.pop(id(inner), None)
            else:
                self.numbers[id(inner)] = number
        for local in (v for part in body.eqns for v in part.outvars):
            self.numbers.pop(id(local), None)
        self.inline(body, stack)
        results = [self.variable(v) for v in body.outvars]
        self.numbers = saved
        return results

    def _bind(self, outvars: Sequence[Any], results: Sequence[int | None]) -> None:
        """Give the variables of a call or loop the values of its body."""
        for outer, number in zip(outvars, results, strict=True):
            if number is None:
                self.variable(outer)
            else:
                self.keep.append(outer)
                self.numbers[id(outer)] = number


def _multiplies(value: Any) -> bool:
    for part in value if isinstance(value, (tuple, list)) else (value,):
        inner: Any = getattr(part, "jaxpr", part)
        for eqn in getattr(inner, "eqns", ()):
            if eqn.primitive.name in _MACS or any(_multiplies(body) for body in eqn.params.values()):
                return True
    return False


def _value(value: Any) -> Any:
    return [_value(part) for part in value] if isinstance(value, (tuple, list)) else int(value)
