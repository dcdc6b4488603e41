"""Events of PyTorch handed to the recorder of `npusim.trace.capture`: phases, names and tensors as in a live capture.

| event                                         | what happens                                                       |
|------------------------------------------------|--------------------------------------------------------------------|
| operation that calls products or is a composite | its children are looked at                                        |
| any other operation                            | recorded as one; what it calls inside is its own business          |
| under `autograd::engine::evaluate_function`    | backward; tied to its forward operation by the sequence number     |
| `Optimizer.step#NAME`                          | one update per parameter that has a gradient                       |
| `Optimizer.zero_grad`                          | nothing                                                            |

Parameters are the tensors that stand where operations take weights, and what the optimizer changes; they are named by
the order of their layers (`conv1.weight`, `linear2.bias`), because the files do not name them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError, TraceError
from npusim.graph import Conv, Op, StepGraph, Tensor, Vector
from npusim.trace.handlers import HANDLERS
from npusim.trace.products import Call, named_like_a_product
from npusim.trace.recorder import Frame, Recorder
from npusim.trace.vectors import tensors_in, vector

if TYPE_CHECKING:
    from npusim.trace.imports.pytorch_events import Event, Seen

BACKWARD = "autograd::engine::evaluate_function"
OPTIMIZERS = {"SGD": ("momentum_buffer",), "Adam": ("exp_avg", "exp_avg_sq"), "AdamW": ("exp_avg", "exp_avg_sq")}
# Where operations take parameters: position -> part; the first title names the layer.
WEIGHTS = {
    "convolution": ("conv", {1: "weight", 2: "bias"}), "addmm": ("linear", {2: "weight", 0: "bias"}),
    "mm": ("linear", {1: "weight"}), "native_batch_norm": ("batch_norm", {1: "weight", 2: "bias"}),
    "_native_batch_norm_legit": ("batch_norm", {1: "weight", 2: "bias"}),
    "cudnn_batch_norm": ("batch_norm", {1: "weight", 2: "bias"}),
    "native_layer_norm": ("layer_norm", {2: "weight", 3: "bias"}),
    "native_group_norm": ("group_norm", {1: "weight", 2: "bias"}), "embedding": ("embedding", {0: "weight"}),
}  # fmt: skip
BUFFERS = {op: {3: "running_mean", 4: "running_var"} for op in WEIGHTS if op.endswith(("batch_norm", "norm_legit"))}
COMPOSITE = frozenset((
    "conv1d", "conv2d", "conv3d", "linear", "matmul", "batch_norm", "_batch_norm_impl_index", "layer_norm",
    "group_norm", "instance_norm", "max_pool1d", "max_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "cross_entropy_loss", "nll_loss", "nll_loss_nd", "nll_loss2d", "softmax", "log_softmax", "dropout",
    "feature_dropout", "reshape",
    "flatten", "contiguous", "to", "einsum", "scaled_dot_product_attention", "relu6", "selu", "square",
    "type_as", "expand_as", "view_as", "unflatten", "chunk", "tensor_split", "std", "var", "where", "pad", "rms_norm",
    "_batch_norm_impl_index_backward",
))  # fmt: skip
RENAMED = {"cudnn_batch_norm": "native_batch_norm"}


def replay(
    roots: list[Event], path: str, name: str, meta: dict[str, Any], skip_unknown: bool,
    prepare: Callable[[list[Event], str], None] | None = None,
) -> StepGraph:  # fmt: skip
    """The step graph of nested events; TraceError names the event that stands in the way.

    `prepare` completes the operations to record.
    """
    steps = [event for root in roots for event in root.walk() if event.name.startswith("Optimizer.step#")]
    if len(steps) > 1:
        raise TraceError(f"{path}: holds {len(steps)} optimizer steps; record one training step")
    events = list(chosen(roots))
    if prepare is not None:
        prepare(events, path)
    model = _Model(events, steps)
    rec = Recorder(model, name)
    for event in events:
        try:
            _record(rec, model, event)
        except NpusimError as error:
            raise TraceError(f"{path}: {event.label}: {error}") from None
        except (TypeError, ValueError, IndexError, AttributeError, KeyError, ZeroDivisionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise TraceError(
                f"{path}: {event.label}: its operands are not those of aten::{event.op} ({reason})"
            ) from None
    skipped = list(dict.fromkeys(rec.unseen))
    if skipped and not skip_unknown:
        listing = "\n  ".join(skipped[:20])
        raise TraceError(
            f"{path}: holds matrix products that npusim does not know:\n  {listing}\n"
            "record such attention under torch.nn.attention.sdpa_kernel(SDPBackend.MATH) and recurrent layers under "
            "torch.backends.mkldnn.flags(enabled=False), or leave such operations out with --skip-unknown"
        )
    _updates(rec, steps, path, model.changed)
    products = [op for op in rec.ops if op.macs and op.phase == "forward"]
    if not products or not any(op.phase in ("grad_input", "grad_weight") for op in rec.ops):
        missing = "backward" if products else "convolution, linear layer or matrix product"
        raise TraceError(f"{path}: the events hold no {missing}; record one whole training step")
    first = products[0].dims
    batch = first.n if isinstance(first, Conv) else 1
    graph = rec.graph(meta={**meta, "method": "dense", "batch": batch, "skipped": skipped, "updates": _by(steps)})
    try:
        graph.verify()
    except NpusimError as error:
        raise TraceError(f"{path}: {error}") from None
    return graph


def _by(steps: list[Event]) -> str:
    return _optimizer(steps[0]) if steps else "none recorded"


def _optimizer(step: Event) -> str:
    return step.name.partition("#")[2].partition(".")[0][:60]


def chosen(roots: list[Event]) -> Iterator[Event]:
    """The operations to record, in order; `sequence` and `backward` are those of the node they run in."""
    waiting = [(event, False, -1) for event in roots[::-1]]
    while waiting:
        event, backward, sequence = waiting.pop()
        if event.name.startswith(("Optimizer.step#", "Optimizer.zero_grad")):
            continue
        if event.name.startswith("aten::"):
            known = event.op in HANDLERS
            inside = event.op in COMPOSITE or _calls_products(event)
            if known or not (inside and event.children):
                yield replace(event, backward=backward, sequence=sequence if backward else event.sequence, children=[])
                continue
        elif event.name.startswith(BACKWARD):
            nodes = (event, *(child for child in event.children if not child.name.startswith("aten::")))
            backward, sequence = True, max(node.sequence for node in nodes)
        elif backward and event.sequence >= 0:
            sequence = event.sequence
        waiting += [(child, backward, sequence) for child in event.children[::-1]]


def _calls_products(event: Event) -> bool:
    return any(inner.op in HANDLERS or named_like_a_product(inner.op) for child in event.children
               for inner in child.walk() if inner.name.startswith("aten::"))  # fmt: skip


class _Model:
    """Stands for the module: its parameters and buffers, found by where operations read them."""

    weight = None

    def __init__(self, events: list[Event], steps: list[Event]) -> None:
        self.parameters: dict[str, Seen] = {}
        self.buffers: dict[str, Seen] = {}
        self.modules: dict[int, str] = {}
        self.written: set[int] = set()
        forward = [event for event in events if not event.backward]
        counts: dict[str, int] = {}
        for event in forward:
            self._layer(event, counts)
            self._note(event)
        self.written.clear()
        changed = {arg.storage for step in steps for event in step.walk() for arg in tensors_in(event.args)}
        self.changed = {name for name, value in self.parameters.items() if value.storage in changed}
        for event in forward:
            for value in tensors_in(event.args):
                if self._is_new(value) and value.storage in changed and value.dim():
                    counts[""] = counts.get("", 0) + 1
                    self._add(self.parameters, f"parameter{counts['']}.weight", value)
                    self.changed.add(f"parameter{counts['']}.weight")
            self._note(event)

    def _layer(self, event: Event, counts: dict[str, int]) -> None:
        """Parameters and buffers of a layer, when its weight is met for the first time."""
        title, places = WEIGHTS.get(event.op, ("", {}))
        fresh = [place for place in places if place < len(event.args) and self._is_new(event.args[place])]
        if not title or next(iter(places)) not in fresh:
            return
        counts[title] = counts.get(title, 0) + 1
        for group, part_of in ((self.parameters, places), (self.buffers, BUFFERS.get(event.op, {}))):
            for place, part in part_of.items():
                if place < len(event.args) and self._is_new(event.args[place]):
                    self._add(group, f"{title}{counts[title]}.{part}", event.args[place])

    def _note(self, event: Event) -> None:
        read = {value.storage for value in tensors_in(event.args)}
        self.written |= {value.storage for value in tensors_in(event.out)} - read

    def _is_new(self, value: Any) -> bool:
        known = value is None or not hasattr(value, "storage") or value.storage in self.written
        return not known and value.storage not in self.modules and value.is_floating_point()

    def _add(self, group: dict[str, Seen], name: str, value: Seen) -> None:
        turned = value.dim() == 2 and value.stride(0) == 1 and value.stride(1) == value.shape[0] > 1
        shape = type(value.shape)(value.shape[::-1]) if turned else value.shape
        group[name] = replace(value, shape=shape)
        self.modules[value.storage] = name.rpartition(".")[0]

    def named_parameters(self) -> Any:
        return self.parameters.items()

    def named_buffers(self) -> Any:
        return self.buffers.items()


def _record(rec: Recorder, model: _Model, event: Event) -> None:
    op = RENAMED.get(event.op, event.op)
    args = tuple(_number(rec, arg) for arg in event.args)
    rec.backward_began |= event.backward
    sequence = event.sequence if event.sequence >= 0 else None
    call = Call(op, args, {}, event.out, event.backward, sequence, op.endswith("_"), event.label)
    if not any(True for _ in tensors_in((args, event.out))):
        return
    owner = next((model.modules[v.storage] for v in tensors_in(args) if v.storage in model.modules), "")
    frame = Frame(owner if op in WEIGHTS else "", SimpleNamespace(weight=None))
    rec.frames.append(frame)
    try:
        if handler := HANDLERS.get(op):
            handler(rec, call)
        elif named_like_a_product(op):
            rec.unseen.append(event.label)
            for value in tensors_in(event.out):
                rec.produce(value, f"{op}:y", "activation")
        else:
            vector(rec, call)
    finally:
        rec.frames.pop()


def _number(rec: Recorder, arg: Any) -> Any:
    """Plain numbers are written down as tensors without dimensions that nothing computed."""
    if hasattr(arg, "storage") and not arg.shape and rec.known(arg) is None:
        return 1.0
    return arg


def _updates(rec: Recorder, steps: list[Event], path: str, changed: set[str]) -> None:
    """One update per parameter with a gradient; `changed` are those that the optimizer wrote."""
    if not steps:
        return
    kind = _optimizer(steps[0])
    if kind not in OPTIMIZERS:
        raise TraceError(f"{path}: optimizer {kind!r} is not known: {', '.join(OPTIMIZERS)} are")
    states = OPTIMIZERS[kind]
    scaled = {event.op for event in steps[0].walk()}
    if kind == "SGD" and not scaled & {"mul_", "_foreach_mul_", "_fused_sgd_"}:
        states = ()
    gradients = {t.grad_of: t for t in rec.tensors.values() if t.kind == "weight_gradient" and t.grad_of}
    for name, shape in rec.parameters.items():
        if name not in gradients and name in changed and name in rec.tensors:
            # Summed over a broadcast: the gradient goes by the name of what it was summed from.
            gradients[name] = Tensor(f"{name}.grad", tuple(shape), "weight_gradient", grad_of=name)
            rec.tensors[gradients[name].name] = gradients[name]
        if name not in gradients:
            continue
        tensor = rec.tensors[name]
        held = tuple(f"{name}.{part}" for part in states)
        for part in held:
            rec.tensors[part] = Tensor(part, tuple(shape), "state", tensor.dtype)
        update = ("sgd", "momentum", "adam")[len(held)]
        operands = (name, gradients[name].name, *held)
        module = name.rpartition(".")[0]
        rec.ops.append(Op(module, "update", update, Vector(max(tensor.elements, 1)), operands, (name, *held), name))
