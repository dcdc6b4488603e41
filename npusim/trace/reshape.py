"""A recorded step for another image size or batch. Masks belong to weights, so they stay.

Sizes are propagated through the forward operations in their order; gradients take the shape of the
value they are the gradient of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from npusim.errors import NpusimError
from npusim.graph import Conv, Dims, Gemm, Op, Pool, StepGraph, Tensor, Vector

Shape = tuple[int, ...]
FIXED_KINDS = ("weight", "weight_gradient", "state")


def reshape(graph: StepGraph, input_size: int | tuple[int, int] | None = None, batch: int | None = None) -> StepGraph:
    """`graph` on images of `input_size` (rows and columns, or one number for both) and `batch` of them.

    None keeps what was recorded. Recorded zero-bitmaps are dropped: they were seen at the old size.
    NpusimError names the operation whose size does not follow from its input's: a fully connected layer
    on flattened pixels, attention over pixels, a window that no longer fits.
    """
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    for number in (*(size or ()), *(() if batch is None else (batch,))):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise NpusimError(f"an input size and a batch are whole numbers from 1 up, not {number!r}")
    work = _Reshaping(graph, size, batch)
    ops = tuple(work.op(op) for op in graph.ops)
    tensors = {name: replace(tensor, shape=work.shapes[name]) for name, tensor in graph.tensors.items()}
    meta = dict(graph.meta)
    meta["reshaped"] = {"input_size": list(size) if size else None, "batch": batch}
    if batch is not None:
        meta["batch"] = batch
    result = replace(graph, ops=ops, tensors=tensors, observed={}, meta=meta)
    result.verify()
    return result


class _Reshaping:
    """New shapes of the tensors met so far."""

    def __init__(self, graph: StepGraph, size: tuple[int, int] | None, batch: int | None) -> None:
        self.graph = graph
        self.tensors = graph.tensors
        written = {name for op in graph.ops for name in op.outputs}
        self.shapes: dict[str, Shape] = {}
        for name, tensor in graph.tensors.items():
            if tensor.kind in FIXED_KINDS:
                self.shapes[name] = tensor.shape
            elif name not in written and tensor.kind == "activation":
                self.shapes[name] = _input_shape(tensor.shape, size, batch)

    def op(self, op: Op) -> Op:
        """The op with new dimensions; notes the shapes of what it writes."""
        if not op.inputs or not op.outputs:
            raise self._stuck(op, "the step does not say which tensors it reads and writes")
        inputs = [self._of_input(op, name) for name in op.inputs]
        dims = self._dims(op, inputs)
        for name in op.outputs:
            if name not in self.shapes:
                self.shapes[name] = self._output(op, dims, name)
        if isinstance(dims, Vector):
            dims = self._vector(op, dims)
        return replace(op, dims=dims)

    def _of_input(self, op: Op, name: str) -> Shape:
        """New shape of a tensor that the op reads; one that nothing wrote (noise) follows another of its shape."""
        if name not in self.shapes:
            self.shapes[name] = self._like_another(op, name, op.inputs)
        return self.shapes[name]

    def _dims(self, op: Op, inputs: list[Shape]) -> Dims:
        if op.phase in ("grad_input", "grad_weight") and isinstance(op.dims, (Conv, Pool)):
            return self._forward_dims(op)
        match op.dims:
            case Conv() if op.kind == "linear":
                return self._linear(op, op.dims, inputs)
            case Conv():
                old = self.tensors[op.inputs[0]].shape
                if len(old) == 3 and old[-1] == op.dims.w and op.dims.h == op.dims.r == 1:
                    return replace(op.dims, n=inputs[0][0], w=inputs[0][-1])
                if old[-2:] != (op.dims.h, op.dims.w):
                    raise self._stuck(op, "its input is only a part of a recorded tensor")
                n = inputs[0][0] if len(inputs[0]) == 4 else 1
                dims = replace(op.dims, n=n, h=inputs[0][-2], w=inputs[0][-1])
                if dims.p < 1 or dims.q < 1:
                    raise self._stuck(op, f"its window {dims.r}x{dims.s} does not fit {dims.h}x{dims.w}")
                return dims
            case Pool():
                return self._pool(op, op.dims, inputs[0])
            case Gemm():
                return self._gemm(op, op.dims, inputs)
            case _:
                return op.dims

    def _forward_dims(self, op: Op) -> Dims:
        for other in self.graph.ops:
            if other.name == op.name and other.phase == "forward" and other.dims == op.dims:
                return self._dims(other, [self.shapes[name] for name in other.inputs])
        raise self._stuck(op, "its forward operation is not in the step")

    def _linear(self, op: Op, dims: Conv, inputs: list[Shape]) -> Conv:
        """N counts everything in front of the features; the features themselves cannot change."""
        old, new = self.tensors[op.inputs[0]].shape, inputs[0]
        # Of a batch of one, nothing and the batch both count one row: the batch is meant.
        for split in (*range(1, len(old) + 1), 0):
            if (_product(old[:split]), _product(old[split:]), _product(new[split:])) == (dims.n, dims.c, dims.c):
                return replace(dims, n=_product(new[:split]))
        if old == new:
            return dims
        # A view that the step does not list (heads side by side, one row of each sample): rows follow the batch.
        if old[1:] == new[1:] and dims.n * new[0] % old[0] == 0:
            return replace(dims, n=dims.n * new[0] // old[0])
        raise self._stuck(op, f"it reads {dims.c} features of {_text(old)}, which would become {_text(new)}")

    def _pool(self, op: Op, dims: Pool, new: Shape) -> Pool:
        if self.tensors[op.inputs[0]].shape[-2:] != (dims.h, dims.w):
            raise self._stuck(op, "its input is only a part of a recorded tensor")
        n, (h, w) = (new[0] if len(new) == 4 else 1), new[-2:]
        if dims.adaptive:
            r, s, stride = -(-h // dims.p), -(-w // dims.q), (max(h // dims.p, 1), max(w // dims.q, 1))
            return replace(dims, n=n, h=h, w=w, r=r, s=s, stride=stride)
        sizes = []
        for axis, (before, out, window, size) in enumerate(((dims.h, dims.p, dims.r, h), (dims.w, dims.q, dims.s, w))):
            step, padding = dims.stride[axis], dims.padding[axis]
            floor = (before + 2 * padding - window) // step + 1
            sizes.append(pooled(size, window, step, padding, ceil=out > floor))
        if min(sizes) < 1:
            raise self._stuck(op, f"its window {dims.r}x{dims.s} does not fit {h}x{w}")
        return replace(dims, n=n, h=h, w=w, p=sizes[0], q=sizes[1])

    def _gemm(self, op: Op, dims: Gemm, inputs: list[Shape]) -> Gemm:
        """Batched products follow the batch only: which of M, N, K count pixels is not recorded."""
        factors = set()
        for name, shape in zip(op.inputs, inputs, strict=True):
            recorded = self.tensors[name].shape
            if recorded[1:] != shape[1:]:
                raise self._stuck(op, f"its operand {name!r} goes from {_text(recorded)} to {_text(shape)}")
            factors.add((shape[0], recorded[0]) if recorded else (1, 1))
        new, old = min(factors)
        if len(factors) != 1 or dims.batch * new % old:
            raise self._stuck(op, "its operands do not follow the batch")
        return replace(dims, batch=dims.batch * new // old)

    def _output(self, op: Op, dims: Dims, name: str) -> Shape:
        tensor = self.tensors[name]
        of = tensor.grad_of
        if of in self.shapes and _product(self.tensors[of].shape) == _product(tensor.shape):
            return self.shapes[of] if self.tensors[of].shape == tensor.shape else self._flat_like(op, tensor, of)
        old_rows = tensor.shape
        if op.phase == "grad_input" and isinstance(dims, (Conv, Pool)) and len(old_rows) == 4:
            return dims.n, dims.c, dims.h, dims.w
        if isinstance(op.dims, Conv) and op.kind == "linear" and isinstance(dims, Conv):
            return _scaled_rows(old_rows, op.dims, dims) or self._like_another(op, name, op.inputs)
        if isinstance(dims, Conv):
            flat = (dims.n, dims.k, dims.q) if len(old_rows) == 3 and dims.r == 1 else (dims.n, dims.k, dims.p, dims.q)
            return flat if len(old_rows) == len(flat) else flat[1:]
        if isinstance(dims, Pool):
            shape = (dims.n, dims.c, dims.p, dims.q)
            return shape if len(old_rows) == 4 else shape[: len(old_rows)] if dims.p * dims.q == 1 else shape[1:]
        if isinstance(dims, Gemm) and len(old_rows) == 3:
            return dims.batch, dims.m, dims.n
        return self._like_another(op, name, op.inputs)

    def _flat_like(self, op: Op, tensor: Tensor, of: str) -> Shape:
        """A gradient recorded flat: its first size counts the batch, as that of its value."""
        old, new = self.tensors[of].shape, self.shapes[of]
        if tensor.shape[0] == old[0]:
            return (new[0], _product(new[1:]) or 1)
        raise self._stuck(op, f"the gradient {tensor.name!r} has another shape than its value")

    def _like_another(self, op: Op, name: str, others: Iterable[str]) -> Shape:
        """Shape of an elementwise result: as an operand of the same old shape, else size by size."""
        old = self.tensors[name].shape
        known = [(self.tensors[o].shape, self.shapes[o]) for o in others if o != name and o in self.shapes]
        known += [(self.tensors[o].shape, self.shapes[o]) for o in op.outputs if o != name and o in self.shapes]
        for before, after in known:
            if before == old:
                return after
        if all(before == after for before, after in known):
            return old
        # A parameter keeps its shape: what the result follows is what changed.
        for before, after in sorted(known, key=lambda pair: pair[0] == pair[1]):
            if len(before) == len(old) and (shape := _size_by_size(before, after, old)):
                return shape
            if len(old) == 2 and len(before) > 2 and old == (before[0], _product(before[1:])):
                return (after[0], _product(after[1:]))
            if old and before[1:] == after[1:] and old[0] * after[0] % before[0] == 0:
                return (old[0] * after[0] // before[0], *old[1:])
        if old == ():
            return old
        raise self._stuck(op, f"the shape {_text(old)} of {name!r} does not follow from its inputs")

    def _vector(self, op: Op, dims: Vector) -> Vector:
        """`elements` are those of one of the op's tensors."""
        for name in (*op.inputs, *op.outputs):
            if _product(self.tensors[name].shape) == dims.elements:
                return replace(dims, elements=_product(self.shapes[name]))
        if all(self.tensors[name].shape == self.shapes[name] for name in (*op.inputs, *op.outputs)):
            return dims
        raise self._stuck(op, f"its {dims.elements} elements are those of no tensor it reads or writes")

    def _stuck(self, op: Op, reason: str) -> NpusimError:
        return NpusimError(f"step {self.graph.name!r} cannot be re-shaped at {op.label} ({op.kind}): {reason}")


def pooled(size: int, window: int, stride: int, padding: int, ceil: bool) -> int:
    """Output extent of pooling; with `ceil` a last partial window counts when it starts inside."""
    room = size + 2 * padding - window
    out = -(-room // stride) + 1 if ceil else room // stride + 1
    return out - 1 if ceil and (out - 1) * stride >= size + padding else out


def _input_shape(shape: Shape, size: tuple[int, int] | None, batch: int | None) -> Shape:
    if not shape:
        return shape
    rest = (*shape[1:-2], *size) if size is not None and len(shape) == 4 else shape[1:]
    return (shape[0] if batch is None else batch, *rest)


def _scaled_rows(old: Shape, before: Conv, after: Conv) -> Shape:
    """Shape of a linear op's output: K last, rows in front."""
    if old and old[-1] == before.k and _product(old[:-1]) == before.n:
        if len(old) == 2:
            return (after.n, before.k)
        if after.n * old[0] % before.n == 0:
            return (after.n * old[0] // before.n, *old[1:])
    return ()


def _size_by_size(before: Shape, after: Shape, old: Shape) -> Shape:
    """`old` with every size that `before` shares taken from `after`; () when an unshared one would change."""
    sizes = []
    for b, a, o in zip(before, after, old, strict=True):
        if b != o and b != a:
            return ()
        sizes.append(a if b == o else o)
    return tuple(sizes)


def _product(sizes: Iterable[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"
