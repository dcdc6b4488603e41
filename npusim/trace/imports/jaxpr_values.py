"""Variables of a jaxpr as named tensors of a step graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from npusim.errors import TraceError
from npusim.graph import Conv, Dims, Op, Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Equation:
    index: int
    primitive: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    stack: str
    params: dict[str, Any]

    @property
    def backward(self) -> bool:
        return "transpose(" in self.stack and "rematted_computation" not in self.stack


@dataclass(frozen=True)
class Program:
    """Equations over numbered variables of (shape, type); -1 is a literal."""

    kinds: list[tuple[Shape, str]]
    invars: tuple[int, ...]
    outvars: tuple[int, ...]
    equations: list[Equation]
    names: list[str] | None
    jax: str


@dataclass
class Made:
    """A forward product: what its backward equations are recognised by; `propagated` once its input has a gradient."""

    op: Op
    reads: tuple[int, int]
    weight: int = -1
    propagated: bool = False


@dataclass
class Values:
    """What is known of every variable while the equations are walked through.

    root: a view -> what it is a view of; parts: views of a part; parameters: variables of weights.
    """

    program: Program
    label: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    root: dict[int, int] = field(default_factory=dict)
    parts: set[int] = field(default_factory=set)
    used: dict[str, int] = field(default_factory=dict)
    parameters: dict[int, int] = field(default_factory=dict)

    def _root(self, v: int) -> int:
        while v in self.root:
            v = self.root[v]
        return v

    def _near(self, v: int) -> int:
        """As `_root`, but a part of a value is not the value."""
        while v in self.root and v not in self.parts:
            v = self.root[v]
        return v

    def _shape(self, v: int) -> Shape:
        return self.program.kinds[v][0] if v >= 0 else ()

    def _elements(self, v: int) -> int:
        return count(self._shape(v))

    def _is_float(self, v: int) -> bool:
        return "float" in self.program.kinds[v][1]

    def _is_weight(self, v: int) -> bool:
        return v in self.parameters

    def _unique(self, base: str) -> str:
        self.used[base] = self.used.get(base, 0) + 1
        return (
            f"{base}{self.used[base]}"
            if base.isalpha()
            else base
            if self.used[base] == 1
            else f"{base}@{self.used[base]}"
        )

    def _parameter_name(self, v: int) -> str:
        if v not in self.names:
            self.names[v] = f"{self._unique('parameter')}.weight"
        name = self.names[v]
        if name not in self.tensors:
            self.tensors[name] = Tensor(name, self._shape(v), "weight", self.program.kinds[v][1])
        return name

    def _name_weight(self, v: int, layer: str, dims: Dims) -> None:
        """Name a weight after its layer; give it the orientation that npusim knows."""
        self.names.setdefault(v, f"{layer}.weight")
        assert isinstance(dims, Conv)
        shape = (dims.k, dims.c // dims.groups, *(() if layer.startswith("linear") else (dims.r, dims.s)))
        if count(shape) == self._elements(v):
            self.tensors.setdefault(self.names[v], Tensor(self.names[v], shape, "weight", self.program.kinds[v][1]))
        else:
            self._parameter_name(v)

    def _use(self, v: int) -> str:
        if self._is_weight(v):
            return self._parameter_name(v)
        if v not in self.names:
            self.names[v] = (
                "input" if "input" not in self.tensors and v in self.program.invars else self._unique("value")
            )
        if self.names[v] not in self.tensors:
            shape, kind = self.program.kinds[v] if v >= 0 else ((), "float32")
            self.tensors[self.names[v]] = Tensor(self.names[v], shape, "activation", kind)
        return self.names[v]

    def _produce(self, v: int, base: str, kind: str, grad_of: str = "") -> str:
        name = self._unique(base)
        self.names[v] = name
        self.tensors[name] = Tensor(name, self._shape(v), kind, self.program.kinds[v][1], grad_of)
        return name

    def _gradient(self, v: int, of: int) -> str:
        target = self._use(self._root(of))
        kind = "weight_gradient" if self._is_weight(of) else "gradient"
        return self._produce(v, f"{target}.grad", kind, target)

    def _weight_gradient(self, v: int, weight: int) -> str:
        name = self._parameter_name(weight)
        out = self._produce(v, f"{name}.grad", "weight_gradient", name)
        tensor = self.tensors[out]
        self.tensors[out] = Tensor(out, self.tensors[name].shape, tensor.kind, tensor.dtype, name)
        return out

    def _grad_name(self, v: int, made: Made) -> str:
        """Name of the gradient of a product's result."""
        v = self._root(v)
        if v in self.names:
            return self.names[v]
        return self._produce(v, f"{made.op.outputs[0]}.grad", "gradient", made.op.outputs[0])

    def _stuck(self, equation: Equation, reason: str) -> TraceError:
        return TraceError(f"{self.label}: eqns[{equation.index}] ({equation.primitive[:60]}): {reason}")


def count(sizes: Iterable[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
