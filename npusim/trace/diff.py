"""What differs between two steps: operations, tensors, masks. Names of the steps and `meta` are not compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from npusim.graph import Op, StepGraph, Tensor, describe
from npusim.masks import Mask
from npusim.text import percent

GROUPS = ("task_masks", "update_masks", "observed")


@dataclass(frozen=True, slots=True)
class Difference:
    """`part` is operation, order, tensor or a group of masks; `a` and `b` say what each has, '' for nothing."""

    part: str
    name: str
    what: str
    a: str
    b: str

    def __str__(self) -> str:
        if not self.a or not self.b:
            return f"{self.part} {self.name}: only in {'A' if self.a else 'B'} ({self.a or self.b})"
        return f"{self.part} {self.name}: {self.what} {self.a} in A, {self.b} in B"


def differences(a: StepGraph, b: StepGraph) -> list[Difference]:
    """Every difference; operations are matched by name, phase and kind, the nth with the nth."""
    found = list(_matched("operation", _operations(a), _operations(b), _shown, OPERATION))
    if not found and [op.label for op in a.ops] != [op.label for op in b.ops]:
        place = next(i for i, (one, other) in enumerate(zip(a.ops, b.ops, strict=True)) if one.label != other.label)
        found.append(Difference("order", f"position {place}", "runs", a.ops[place].label, b.ops[place].label))
    found += _matched("tensor", a.tensors, b.tensors, lambda t: f"{t.kind} {_sizes(t.shape)}", TENSOR)
    for group in GROUPS:
        title = group.replace("_masks", " mask").replace("observed", "observed zeros")
        found += _matched(title, getattr(a, group), getattr(b, group), lambda m: f"density {percent(m.density)}", MASK)
    return found


def _operations(step: StepGraph) -> dict[Hashable, Op]:
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[Hashable, Op] = {}
    for op in step.ops:
        counts[op.label, op.kind] += 1
        number = counts[op.label, op.kind]
        found[f"{op.label} {op.kind}" + (f" #{number}" if number > 1 else "")] = op
    return found


def _matched(
    part: str, a: Mapping[Any, Any], b: Mapping[Any, Any], shown: Callable[[Any], str],
    aspects: Mapping[str, Callable[[Any], str]],
) -> Iterable[Difference]:  # fmt: skip
    for key in dict.fromkeys((*a, *b)):
        if key not in b:
            yield Difference(part, str(key), "", shown(a[key]), "")
        elif key not in a:
            yield Difference(part, str(key), "", "", shown(b[key]))
        else:
            seen = False
            for what, text in aspects.items():
                one, other = text(a[key]), text(b[key])
                if one != other and not (seen and what in FINER):
                    seen = True
                    yield Difference(part, str(key), what, one, other)


def _shown(op: Op) -> str:
    return describe(op.dims)


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _tensor(tensor: Tensor) -> str:
    return f"{tensor.kind} {tensor.dtype}" + (f" of {tensor.grad_of}" if tensor.grad_of else "")


def _bits(mask: Mask) -> str:
    return mask.digest()[:12]


# Told only when nothing coarser differs.
FINER = ("exact dimensions", "bits")
OPERATION: dict[str, Callable[[Any], str]] = {
    "shape": _shown, "exact dimensions": lambda op: repr(op.dims),
    "reads": lambda op: ", ".join(op.inputs) or "nothing",
    "writes": lambda op: ", ".join(op.outputs) or "nothing", "parameter": lambda op: op.param or "none",
}  # fmt: skip
TENSOR: dict[str, Callable[[Any], str]] = {"shape": lambda t: _sizes(t.shape), "kind": _tensor}
MASK: dict[str, Callable[[Any], str]] = {
    "shape": lambda m: _sizes(m.shape), "density": lambda m: f"{m.count} of {m.size}", "bits": _bits,
}  # fmt: skip
