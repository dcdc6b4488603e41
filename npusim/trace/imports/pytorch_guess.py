"""Profiles of PyTorch name no tensors and list no results: both are worked out from sizes.

An operand is the newest tensor of as many elements, else the newest of which it can be a part; a backward operation
first looks at what its forward operation (the same sequence number) read and wrote. Results have the shapes that the
operation computes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError, TraceError
from npusim.trace import attention
from npusim.trace.imports.pytorch_replay import COMPOSITE, WEIGHTS
from npusim.trace.products import Call, conv_dims
from npusim.trace.vectors import pool_dims, tensors_in

if TYPE_CHECKING:
    from npusim.trace.imports.pytorch_events import Event, Seen

RECENT = 64
# Backward operations -> positions of the operands whose shapes their results have.
GRADIENTS = {
    "convolution_backward": (1, 2), "native_batch_norm_backward": (1, 2, 2), "cudnn_batch_norm_backward": (0, 2, 2),
    "native_layer_norm_backward": (1, 5, 5), "native_group_norm_backward": (1, 4, 4),
    "max_pool2d_with_indices_backward": (1,), "avg_pool2d_backward": (1,), "_adaptive_avg_pool2d_backward": (1,),
    "nll_loss_backward": (1,), "nll_loss2d_backward": (1,), attention.BACKWARD: (1, 2, 3),
}  # fmt: skip
# Forward operations whose first operands are the data that their backward operation reads at these positions.
SAVED = {"convolution_backward": ((1, 0), (2, 1)), "native_batch_norm_backward": ((1, 0), (2, 1)),
         "native_layer_norm_backward": ((1, 0), (5, 2), (6, 3)),
         attention.BACKWARD: ((1, 0), (2, 1), (3, 2))}  # fmt: skip


def identify(events: list[Event], path: str) -> None:
    """Give every tensor of the operations a storage, and every operation its results."""
    guess = _Guess()
    for event in events:
        if event.backward and event.op == "mm":
            guess.products.setdefault(event.sequence, []).append(event)
    for event in events:
        try:
            guess.event(event)
        except NpusimError as error:
            raise TraceError(f"{path}: {event.label}: {error}") from None
        except (TypeError, ValueError, IndexError, AttributeError, KeyError, ZeroDivisionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise TraceError(
                f"{path}: {event.label}: its operands are not those of aten::{event.op} ({reason})"
            ) from None


class _Guess:
    def __init__(self) -> None:
        self.next = 0
        self.values: list[Seen] = []
        self.gradients: list[Seen] = []
        self.forward: dict[int, Event] = {}
        self.products: dict[int, list[Event]] = {}

    def new(self, like: Seen, shape: Any = None) -> Seen:
        self.next += 1
        return replace(like, shape=like.shape if shape is None else type(like.shape)(shape), storage=self.next)

    def event(self, event: Event) -> None:
        forward = self.forward.get(event.sequence) if event.backward else None
        weights = {} if event.backward else WEIGHTS.get(event.op, ("", {}))[1]
        taken: set[int] = set()
        for place, value in ((i, value) for i, arg in enumerate(event.args) for value in tensors_in(arg)):
            if value.is_floating_point() and (value.shape or value.numel() == 1):
                known = place in weights or (event.op.endswith("batch_norm") and place > 2)
                value.storage = self.new(value).storage if known else self._find(event, place, value, forward, taken)
            else:
                value.storage = self.new(value).storage
            taken.add(value.storage)
        event.out = self._result(event)
        made = [value for value in tensors_in(event.out) if value.storage not in taken and value.is_floating_point()]
        self.values += [] if event.backward else made[:1]
        if event.backward and not self._of_parameter(event, forward):
            self.gradients += made[:1]
        if not event.backward and event.sequence >= 0:
            self.forward[event.sequence] = event

    def _of_parameter(self, event: Event, forward: Event | None) -> bool:
        """Whether a backward operation computes the gradient of a weight or bias, which no other operation reads."""
        if forward is None or forward.op not in ("mm", "addmm"):
            return False
        x = list(tensors_in(forward.args))[-2]
        return event.op == "sum" or (event.op == "mm" and event.args[1].storage == x.storage)

    def _find(self, event: Event, place: int, value: Seen, forward: Event | None, taken: set[int]) -> int:
        if forward is not None and event.op not in ("add", "add_"):  # sums of gradients
            for mine, theirs in SAVED.get(event.op, ()):
                if mine == place:
                    return forward.args[theirs].storage
            if event.op == "mm" and forward.op in ("mm", "addmm") and place == 1:
                return self._of_linear(event, forward)
            if (place or event.op == "bmm") and (found := _saved(event, place, value, forward)):
                return found
        newest = (self.gradients if event.backward else self.values)[: -RECENT - 1 : -1]
        free = [v for v in newest if v.storage not in taken] or newest
        count = value.numel()
        same = [other for other in free if other.numel() == count and value.dim()]
        if not same and count and value.dim() and not (event.backward and place):
            same = [other for other in free if other.numel() % count == 0]
        return (same[0] if same else self.new(value)).storage

    def _of_linear(self, event: Event, forward: Event) -> int:
        """Of the two products of a linear layer's backward the first gives dX and reads W, the second reads X."""
        x, w = list(tensors_in(forward.args))[-2:]
        products = self.products.get(event.sequence, [event])
        if len(products) > 1:
            return (w if event is products[0] else x).storage
        a, b = (value.shape for value in event.args[:2])
        result = sorted((*a[:-1], b[-1]))
        return (w if result == sorted(x.shape) and result != sorted(w.shape) else x).storage

    def _result(self, event: Event) -> Any:
        op, args = event.op, event.args
        tensors = list(tensors_in(args))
        if not tensors:
            return None
        like = next((value for value in tensors if value.is_floating_point()), tensors[0])
        if op.endswith("_") or op in VIEWS or op in COMPOSITE:
            return tensors[0]
        if op in GRADIENTS:
            wanted = args[-1] if isinstance(args[-1], list) and len(args[-1]) == 3 else [True] * 3
            found = [self.new(like, args[i].shape) if keep and args[i] is not None else None
                     for i, keep in zip(GRADIENTS[op], wanted, strict=False)]  # fmt: skip
            if op == "convolution_backward":
                found.append(self.new(like, args[0].shape[1:2]) if wanted[2] else None)
            return found[0] if len(found) == 1 else tuple(found)
        return self._forward_result(event, tensors, like)

    def _forward_result(self, event: Event, tensors: list[Seen], like: Seen) -> Any:
        op, args = event.op, event.args
        a = tensors[0].shape
        match op:
            case "convolution":
                d = conv_dims(Call(op, (), {}, None, False, None, False), args[0], args[1], tuple(args[3:]))
                return self.new(like, (d.n, d.k, d.p, d.q) if len(a) == 4 else (d.n, d.k, d.q))
            case "mm" | "bmm":
                return self.new(like, (*a[:-1], args[1].shape[-1]))
            case "addmm" | "baddbmm":
                return self.new(like, (*args[1].shape[:-1], args[2].shape[-1]))
            case "embedding":
                return self.new(like, (*args[1].shape, a[-1]))
            case "embedding_dense_backward":
                return self.new(like, (args[2], a[-1]))
            case "sum" | "mean" | "amax" | "var" if len(args) > 1 and isinstance(args[1], list):
                axes = {axis % max(len(a), 1) for axis in args[1]} or set(range(len(a)))
                return self.new(like, [1 if i in axes else n for i, n in enumerate(a)])
            case "sum" | "mean" | "nll_loss_forward" | "nll_loss2d_forward":
                return self.new(like, ())
            case attention.FORWARD:
                return self.new(like, (*a[:-1], args[2].shape[-1])), self.new(like, a[:-1])
            case "native_layer_norm" | "native_group_norm":
                rows = args[0].numel() // max(args[2].numel(), 1) if op == "native_layer_norm" else a[0]
                return tuple(self.new(like, shape) for shape in (a, (rows,), (rows,)))
            case "cat" | "stack":
                return self.new(like, (sum(value.numel() for value in tensors),))
        if pool := pool_dims(op, tuple(args)):
            return self.new(like, (pool.n, pool.c, pool.p, pool.q))
        return self.new(max((v for v in tensors if v.is_floating_point()), key=lambda v: v.numel(), default=like))


def _saved(event: Event, place: int, value: Seen, forward: Event) -> int:
    """The storage of what the forward operation read or wrote, when this backward operation may read it again."""
    if event.op == "bmm":
        a, b = list(tensors_in(forward.args))[-2:]
        other = event.args[1 - place]
        saved = b if place else a  # dA = dC B^T, dB = A^T dC
        fits = sorted(value.shape) == sorted(saved.shape) and sorted(other.shape) == sorted(forward.out.shape)
        return saved.storage if fits else 0
    candidates = [*tensors_in(forward.args), *tensors_in(forward.out)]
    return next((other.storage for other in candidates if other.numel() == value.numel()), 0)


VIEWS = frozenset((
    "view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "as_strided", "detach", "expand",
    "unsqueeze", "squeeze", "select", "slice", "unbind", "split", "split_with_sizes", "narrow", "alias", "clone",
    "lift_fresh", "resolve_conj", "resolve_neg", "contiguous", "unsafe_split", "view_as_real", "movedim", "diagonal",
))  # fmt: skip
