"""Memory plan: when every tensor of a training step is alive, how many bytes that takes, and what holds the peak.

A tensor lives from the operation that first writes it to the last that reads it; parameters, optimizer state and what
nobody writes live all the time (the input from the start to its last use). A tensor named `base[part]` is a view: it
keeps only its own bytes, and only after the last use of the whole `base`. The peak is the largest sum over the
operations of the step; fragmentation is not modelled, nor are tiles in on-chip buffers.

| group              | tensors                                                                          |
|--------------------|----------------------------------------------------------------------------------|
| weights            | parameters                                                                       |
| state              | optimizer state and what methods keep from step to step                          |
| saved              | activations that a backward operation reads                                      |
| masks              | one-bit tensors                                                                  |
| workspace          | activations that only forward operations read                                    |
| gradients          | gradients of activations                                                         |
| weight gradients   | gradients of parameters until they are used                                      |

Beyond a limit there is an error that names the tensor (`check`), or tensors are moved to slower memory and back
(`npusim.spill`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npusim.errors import CapacityError
from npusim.graph import PHASES, StepGraph, Tensor
from npusim.method import MemoryPolicy, Plan

if TYPE_CHECKING:
    import numpy as np

    from npusim.npu import Hardware

GROUPS = ("weights", "state", "saved", "masks", "workspace", "gradients", "weight gradients")
_GROUP_OF_KIND = {
    "weight": "weights", "state": "state", "mask": "masks", "gradient": "gradients",
    "weight_gradient": "weight gradients",
}  # fmt: skip
# Operations that compute element by element and may write over an operand.
IN_PLACE = ("activation", "add", "mul", "elementwise", "batch_norm", "softmax", "softmax_loss")


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A tensor is alive in the operations `first`..`last`, both included."""

    tensor: str
    group: str
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """Lifetimes over the operations of `graph`."""

    graph: StepGraph
    lifetimes: tuple[Lifetime, ...]

    def timeline(self) -> np.ndarray:
        """Bytes alive in every operation, int64 [operations, GROUPS]."""
        import numpy as np

        steps = np.zeros((len(self.graph.ops) + 1, len(GROUPS)), np.int64)
        for life in self.lifetimes:
            column = GROUPS.index(life.group)
            steps[life.first, column] += life.bytes
            steps[life.last + 1, column] -= life.bytes
        return np.cumsum(steps, axis=0)[:-1]

    @property
    def peak_bytes(self) -> int:
        return int(self.timeline().sum(axis=1).max(initial=0))

    @property
    def training_bytes(self) -> int:
        """The peak without parameters: what training asks for beyond the model itself."""
        return int(self.timeline()[:, 1:].sum(axis=1).max(initial=0))

    def peaks(self) -> dict[str, int]:
        """Peak bytes of each phase of the step."""
        total = self.timeline().sum(axis=1)
        found: dict[str, int] = {}
        for op, size in zip(self.graph.ops, total, strict=True):
            found[op.phase] = max(found.get(op.phase, 0), int(size))
        return {phase: found[phase] for phase in PHASES if phase in found}

    def at_peak(self) -> dict[str, int]:
        """Bytes of each group in the operation with the most."""
        table = self.timeline()
        row = table[int(table.sum(axis=1).argmax())] if len(table) else [0] * len(GROUPS)
        return {group: int(size) for group, size in zip(GROUPS, row, strict=True)}

    def check(self, limit_bytes: int, what: str = "the machine") -> None:
        """CapacityError when the peak is above the limit: names the operation and the largest tensor there."""
        total = self.timeline().sum(axis=1)
        if not len(total) or total.max() <= limit_bytes:
            return
        first = int((total > limit_bytes).argmax())
        op = self.graph.ops[first]
        alive = [life for life in self.lifetimes if life.first <= first <= life.last]
        new = [life for life in alive if life.first == first] or alive
        tensor = max(new, key=lambda life: life.bytes)
        raise CapacityError(
            f"step {self.graph.name!r} needs {int(total.max())} bytes, {what} has {limit_bytes}: {op.label} goes "
            f"beyond it when {tensor.tensor!r} ({tensor.bytes} bytes, {tensor.group}) is added to "
            f"{int(total[first]) - tensor.bytes} bytes alive; raise the limit, or let tensors spill"
        )

    def __str__(self) -> str:
        parts = ", ".join(f"{group} {size}" for group, size in self.at_peak().items() if size)
        return f"memory of {self.graph.name}: peak {self.peak_bytes} bytes ({parts})"


def plan(graph: StepGraph, bits: Callable[[str], int], policy: MemoryPolicy | None = None) -> MemoryPlan:
    """The memory plan of a step; `bits(kind)` gives the width of a tensor kind, e.g. `hardware.precision.bits`."""
    policy = policy or MemoryPolicy()
    uses = _uses(graph)
    sizes = {name: -(-t.elements * bits(t.kind) // 8) for name, t in graph.tensors.items()}
    lives: dict[str, Lifetime] = {}
    for name, (first, last, group) in uses.items():
        copies = policy.time_steps if group in ("saved", "masks") else 1
        lives[name] = Lifetime(name, group, sizes[name] * copies, first, last)
    lives = _views(lives)
    if policy.in_place:
        lives = _in_place(graph, lives)
    return MemoryPlan(graph, tuple(lives.values()))


def _uses(graph: StepGraph) -> dict[str, tuple[int, int, str]]:
    """First and last operation of every tensor, and its group."""
    end = len(graph.ops) - 1
    written: dict[str, int] = {}
    last: dict[str, int] = {}
    backward: set[str] = set()
    for i, op in enumerate(graph.ops):
        for name in (*op.inputs, *op.outputs):
            last[name] = i
        for name in op.outputs:
            written.setdefault(name, i)
        if op.phase not in ("forward", "aux"):
            backward.update(op.inputs)
    return {
        name: (0, end, _GROUP_OF_KIND[tensor.kind]) if tensor.kind in ("weight", "state")
        else (written.get(name, 0), last[name], _group(tensor, backward))
        for name, tensor in graph.tensors.items() if name in last
    }  # fmt: skip


def _group(tensor: Tensor, backward: set[str]) -> str:
    return _GROUP_OF_KIND.get(tensor.kind) or ("saved" if tensor.name in backward else "workspace")


def _views(lives: dict[str, Lifetime]) -> dict[str, Lifetime]:
    """Views own what of their base outlives it; of several, the largest for as long as any lives."""
    found = {name: life for name, life in lives.items() if not _base(name, lives)}
    kept: dict[str, Lifetime] = {}
    for name, life in lives.items():
        base = _base(name, lives)
        if not base:
            continue
        whole = lives[base]
        if life.last <= whole.last:
            continue
        other = kept.get(base)
        size = max(life.bytes, other.bytes) if other else life.bytes
        last = max(life.last, other.last) if other else life.last
        kept[base] = Lifetime(name, life.group, size, whole.last + 1, last)
    return found | {life.tensor: life for life in kept.values()}


def _base(name: str, lives: dict[str, Lifetime]) -> str:
    """The tensor that `name` is a view of, '' when it is none or its base is not in the step."""
    base, bracket, _ = name.partition("[")
    return base if bracket and base in lives else ""


def _in_place(graph: StepGraph, lives: dict[str, Lifetime]) -> dict[str, Lifetime]:
    """Where an elementwise operation reads a tensor for the last time, its result of that size takes the storage."""
    found = dict(lives)
    for name, (_, op) in takeovers(graph, lives).items():
        life = lives[name]
        found[name] = Lifetime(name, life.group, life.bytes, life.first, op - 1)
    return found


def takeovers(graph: StepGraph, lives: Mapping[str, Lifetime]) -> dict[str, tuple[str, int]]:
    """Tensors whose storage a result takes over: name -> (result, number of the operation)."""
    found: dict[str, tuple[str, int]] = {}
    for i, op in enumerate(graph.ops):
        if op.kind not in IN_PLACE:
            continue
        for output in op.outputs:
            for name in op.inputs:
                life, result = lives.get(name), lives.get(output)
                if life and result and name != output and name not in found and _takes_over(life, result, i):
                    found[name] = (output, i)
                    break
    return found


def _takes_over(life: Lifetime, result: Lifetime, op: int) -> bool:
    """Whether `result`, first written by the operation, may lie where `life` ends."""
    if life.group in ("weights", "state") or life.bytes != result.bytes:
        return False
    return life.first < op == life.last == result.first


def of_plan(training: Plan, hardware: Hardware) -> MemoryPlan:
    """The memory plan of the part of a training plan that needs the most, at that part's widths."""
    plans = [plan(part.graph, part.widths(hardware), training.policy) for part in training.parts]
    return max(plans, key=lambda item: item.peak_bytes)
