"""A limit on the memory of a training step: tensors beyond it are moved to slower memory and back.

The limit is the memory that the step's tensors live in; slower memory hangs on the same bus, so a move reads and writes
every byte once. Moves are operations of phase `aux` in the step (one lane operation per element, fences around them),
so their time, traffic and energy are simulated. Nothing changes while the peak stays within the limit.

An operation's own tensors must be there together. What else is moved out is decided as Belady does, byte by byte: first
the tensor whose next use is furthest away, of two the later one in the step, and of a tensor its last bytes. Bytes that
have not changed since they were moved in are dropped without a move. So a smaller limit never moves fewer bytes.
Parameters and state come back in the next step: the moves are those of the second of two equal steps. Not modelled:
moves hidden behind operations (a look-ahead), and whole-tensor allocation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from npusim import config, memory
from npusim.errors import CapacityError, ConfigError, NpusimError, closest
from npusim.graph import Op, StepGraph, Tensor, Vector
from npusim.memory import Lifetime, MemoryPlan
from npusim.method import MemoryPolicy, Plan

if TYPE_CHECKING:
    from npusim.npu import Hardware

OVER = ("error", "spill")
Bits = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """`bytes` of memory; `over`: what happens beyond them, an error that names the tensor or a spill."""

    bytes: int
    over: str = "error"


def limit(size: int | str | None, over: str, size_key: str, over_key: str) -> MemoryLimit | None:
    """A limit as users write it: bytes, or text such as "96KiB"; None without a size.

    ConfigError names `size_key` or `over_key`, which is what they were called where the user wrote them.
    """
    if over not in OVER:
        raise ConfigError(f"{over_key} {over!r} is not known{closest(over, list(OVER))}; allowed: {', '.join(OVER)}")
    if size is None:
        if over != OVER[0]:
            raise ConfigError(f"{over_key} {over} needs {size_key}")
        return None
    shown = str(size).strip()
    try:
        found = int(shown) if shown.isdecimal() else config.quantity(shown.replace("KB", "KiB"), "bytes")
    except ValueError as error:
        raise ConfigError(f"{size_key} {size!r}: {error}") from None
    if found < 1:
        raise ConfigError(f"{size_key} {size!r}: at least 1 byte is needed")
    return MemoryLimit(found, over)


@dataclass
class _Storage:
    """A piece of memory that tensors (names, by the operation from which they own it) live in, one after another.

    `resident` bytes are there, always the first ones; `dirty` of them have changed since they were moved in.
    """

    order: int
    bytes: int
    first: int
    last: int
    lasting: bool
    owners: list[Lifetime]
    uses: list[int] = field(default_factory=list)
    resident: int = 0
    dirty: int = 0

    def owner(self, op: int) -> Lifetime:
        return next((life for life in reversed(self.owners) if life.first <= op), self.owners[0])

    def next_use(self, op: int, ops: int) -> int:
        later = [use for use in self.uses if use > op]
        return later[0] if later else (self.uses[0] + ops if self.lasting else self.last)


def fit(
    graph: StepGraph, bits: Bits, limit: MemoryLimit, policy: MemoryPolicy | None = None
) -> tuple[StepGraph, MemoryPlan]:
    """(step with the moves that the limit asks for, its memory plan).

    CapacityError names operation and tensor when the limit is exceeded and `over` is error, or when one operation's
    own tensors are larger.
    """
    plan = memory.plan(graph, bits, policy)
    if plan.peak_bytes <= limit.bytes:
        return graph, plan
    if limit.over == "error":
        plan.check(limit.bytes, "the memory limit")
    if policy is not None and policy.time_steps > 1:
        raise NpusimError(
            f"step {graph.name!r} keeps the activations of {policy.time_steps} time steps, {plan.peak_bytes} bytes, in "
            f"a limit of {limit.bytes}; spilling several time steps is not modelled"
        )
    return _Moves(graph, bits, limit.bytes, plan, policy or MemoryPolicy()).run()


def fit_plan(training: Plan, hardware: Hardware, limit: MemoryLimit) -> tuple[Plan, MemoryPlan]:
    """A training plan with the moves that the limit asks for, and the memory plan of the part that needs the most."""
    parts, plans = [], []
    for part in training.parts:
        graph, plan = fit(part.graph, part.widths(hardware), limit, training.policy)
        if graph is not part.graph and len(part.step().ops) < len(part.graph.ops):
            peak = memory.plan(part.graph, part.widths(hardware), training.policy).peak_bytes
            raise NpusimError(
                f"step {part.graph.name!r} needs {peak} bytes in a limit of {limit.bytes}; spilling is not modelled "
                "for methods that run phases more or less than once"
            )
        parts.append(replace(part, graph=graph))
        plans.append(plan)
    return replace(training, parts=tuple(parts)), max(plans, key=lambda item: item.peak_bytes)


class _Moves:
    """Runs the policy over the step twice and keeps what the second run does."""

    def __init__(self, graph: StepGraph, bits: Bits, limit: int, plan: MemoryPlan, policy: MemoryPolicy) -> None:
        self.graph, self.bits, self.limit = graph, bits, limit
        self.storages = _storages(graph, plan, policy, bits)
        self.touched = [self._touched(op, i) for i, op in enumerate(graph.ops)]
        for i, found in enumerate(self.touched):
            for storage in found:
                storage.uses.append(i)
        self.ops: list[Op] = []
        self.tensors: dict[str, Tensor] = {}
        self.rows: list[list[tuple[str, str, int]]] = []

    def run(self) -> tuple[StepGraph, MemoryPlan]:
        for _ in range(2):
            self.ops, self.tensors, self.rows = [], {}, []
            for i, op in enumerate(self.graph.ops):
                self._step(i, op)
        tensors = {**self.graph.tensors, **self.tensors}
        graph = replace(self.graph, ops=tuple(self.ops), tensors=tensors)
        return graph, MemoryPlan(graph, tuple(_segments(self.rows)))

    def _touched(self, op: Op, i: int) -> list[_Storage]:
        names = dict.fromkeys((*op.inputs, *op.outputs))
        return list({id(s): s for s in (self._storage(name, i) for name in names)}.values())

    def _storage(self, name: str, i: int) -> _Storage:
        """Where a tensor, or the tensor that it is a view of, lives when operation `i` runs."""
        base = name.partition("[")[0]
        found = [s for s in self.storages if s.first <= i <= s.last]
        for wanted in (name, base):
            for storage in found:
                if any(life.tensor == wanted for life in storage.owners):
                    return storage
        return next(s for s in found if any(life.tensor.startswith(f"{base}[") for life in s.owners))

    def _step(self, i: int, op: Op) -> None:
        needed = self.touched[i] + [
            s for s in self.storages if s.first == i and not s.lasting and s not in self.touched[i]
        ]
        total = sum(s.bytes for s in needed)
        if total > self.limit:
            largest = max(needed, key=lambda s: s.bytes)
            raise CapacityError(
                f"step {self.graph.name!r}: {op.label} needs {total} bytes at once, the memory limit is {self.limit}: "
                f"its largest tensor is {largest.owner(i).tensor!r} ({largest.bytes} bytes, {largest.owner(i).group})"
            )
        self._evict(i, needed, sum(s.bytes - s.resident for s in needed))
        for storage in needed:
            missing, storage.resident = storage.bytes - storage.resident, storage.bytes
            if missing and (storage.first < i or storage.lasting):
                self._move(storage, i, missing, "in")
        self._row(i)
        self.ops.append(op)
        for name in op.outputs:
            storage = self._storage(name, i)
            storage.dirty = max(storage.dirty, min(storage.bytes, self._bytes(self.graph.tensors[name])))
        for storage in self.storages:
            if storage.first == i and not storage.lasting:
                storage.dirty = storage.bytes
            if storage.last == i and not storage.lasting:
                storage.resident = storage.dirty = 0

    def _evict(self, i: int, needed: list[_Storage], wanted: int) -> None:
        """Free room for `wanted` bytes more, furthest next use first."""
        excess = sum(s.resident for s in self.storages) + wanted - self.limit
        others = [s for s in self.storages if s.resident and s not in needed]
        ops = len(self.graph.ops)
        for storage in sorted(others, key=lambda s: (-s.next_use(i, ops), -s.order)):
            if excess <= 0:
                return
            gone = min(storage.resident, excess)
            excess -= gone
            kept = storage.resident - gone
            changed = max(0, storage.dirty - kept)
            if changed:
                self._move(storage, i, changed, "out")
            storage.resident, storage.dirty = kept, min(storage.dirty, kept)

    def _move(self, storage: _Storage, i: int, nbytes: int, way: str) -> None:
        """An operation that copies `nbytes` between the step's memory and slower memory."""
        tensor = self.graph.tensors[storage.owner(i if way == "in" else i - 1).tensor]
        elements = max(1, -(-nbytes * 8 // self.bits(tensor.kind)))
        number = len(self.ops)
        here = Tensor(f"{tensor.name}[moved {number}]", (elements,), tensor.kind, tensor.dtype)
        there = replace(here, name=f"{tensor.name}/slow {number}")
        self.tensors |= {here.name: here, there.name: there}
        ends = (here.name, there.name) if way == "out" else (there.name, here.name)
        self._row(i)
        self.ops.append(Op(f"{tensor.name}.{way}", "aux", "elementwise", Vector(elements, 1), ends[:1], ends[1:]))

    def _row(self, i: int) -> None:
        owners = ((s.owner(i), s.resident) for s in self.storages if s.resident)
        self.rows.append([(life.tensor, life.group, resident) for life, resident in owners])

    def _bytes(self, tensor: Tensor) -> int:
        return -(-tensor.elements * self.bits(tensor.kind) // 8)


def _storages(graph: StepGraph, plan: MemoryPlan, policy: MemoryPolicy, bits: Bits) -> list[_Storage]:
    """Lifetimes as storages; a result computed in place continues the storage of its operand."""
    whole = {life.tensor: life for life in memory.plan(graph, bits).lifetimes}
    taken = memory.takeovers(graph, whole) if policy.in_place else {}
    source = {result: name for name, (result, _) in taken.items()}
    end = len(graph.ops) - 1
    found: dict[str, _Storage] = {}
    for order, life in enumerate(sorted(plan.lifetimes, key=lambda item: (item.first, item.tensor))):
        before = found.get(source.get(life.tensor, ""))
        if before is not None:
            before.owners.append(life)
            before.last = life.last
            found[life.tensor] = before
            continue
        lasting = life.group in ("weights", "state") and (life.first, life.last) == (0, end)
        found[life.tensor] = _Storage(order, life.bytes, life.first, life.last, lasting, [life])
    return list({id(s): s for s in found.values()}.values())


def _segments(rows: list[list[tuple[str, str, int]]]) -> list[Lifetime]:
    """Residency as lifetimes: a new one whenever a tensor's resident bytes change."""
    found: list[Lifetime] = []
    running: dict[tuple[str, str, int], int] = {}
    for i, row in enumerate([*rows, []]):
        now = set(row)
        for key in [key for key in running if key not in now]:
            found.append(Lifetime(*key, running.pop(key), i - 1))
        for key in row:
            running.setdefault(key, i)
    return found
