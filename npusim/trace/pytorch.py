"""Capture of one whole training step from PyTorch: forward, gradients and optimizer, with masks.

A dispatch mode sees every operation below autograd. Backward operations find their forward operation
through the running autograd node's sequence number, which is private API: the torch version is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from npusim.errors import CaptureError, NpusimError, closest
from npusim.graph import Conv, StepGraph, Tensor, Vector
from npusim.masks import Mask
from npusim.trace.handlers import HANDLERS
from npusim.trace.products import Call, named_like_a_product
from npusim.trace.recorder import Frame, Recorder
from npusim.trace.vectors import tensors_in, vector

SUPPORTED = ("2.13",)
OPTIMIZERS = ("sgd", "momentum", "adam")


def capture(
    model: torch.nn.Module,
    step: Callable[[], Any],
    *,
    grad_masks: Mapping[str, Any] | None = None,
    task_masks: Mapping[str, Any] | None = None,
    name: str = "",
    method: str = "dense",
    observe: bool = False,
    batch: int | None = None,
) -> StepGraph:
    """Run `step()`, one real training step of `model`, and return what it did.

    `step` calls zero_grad, forward, loss, backward and optimizer.step() once each. `grad_masks` (which
    elements get a gradient and are updated) and `task_masks` (which weights are active) map parameter
    names to arrays or tensors of the parameter's shape; non-zero means selected. With `observe` the
    zero-bitmaps of MAC inputs and weight gradients are kept in `graph.observed`. `batch` is noted in
    `meta`; it defaults to N of the first convolution or linear op. CaptureError lists what could not be
    recorded, and what to do.
    """
    check_torch()
    rec = Recorder(model, name or type(model).__name__, observe, StorageWeakRef)
    with recording(rec, model):
        step()
    return finish(rec, model, grad_masks, task_masks, {"method": method, "batch": batch})


def check_torch() -> None:
    """CaptureError unless this torch is one whose private parts were tested."""
    version = torch.__version__
    if ".".join(version.split(".")[:2]) not in SUPPORTED or not hasattr(torch._C, "_current_autograd_node"):
        raise CaptureError(
            f"capture knows torch {', '.join(SUPPORTED)}, this is {version}: it reads autograd's private node numbers, "
            f"so install torch=={SUPPORTED[-1]}.* (npusim[torch])"
        )


class _Mode(TorchDispatchMode):
    def __init__(self, rec: Recorder) -> None:
        super().__init__()
        self.rec = rec
        self.paused = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        node = torch._C._current_autograd_node()
        backward = node is not None and not torch.is_grad_enabled()
        sequence = self._sequence(node, backward, args)
        out = func(*args, **kwargs)
        namespace, _, op = func._schema.name.partition("::")
        if namespace in ("prim", "profiler"):
            return out
        self.rec.backward_began |= backward
        where = node.name() if node is not None else self.rec.frames[-1].path
        with _unpatched(self):
            self.record(Call(op, args, kwargs, out, backward, sequence, func._schema.is_mutable, where), func)
        return out

    @staticmethod
    def _sequence(node: Any, backward: bool, args: Any) -> int | None:
        if backward:
            return int(node._sequence_nr())
        if torch.is_grad_enabled() and any(value.requires_grad for value in tensors_in(args)):
            return int(torch.autograd._get_sequence_nr()) - 1  # type: ignore[attr-defined]
        return None

    def record(self, call: Call, func: Any) -> None:
        if not any(True for _ in tensors_in((call.args, tuple(call.kwargs.values()), call.out))):
            return
        if handler := HANDLERS.get(call.op):
            handler(self.rec, call)
        elif product_like(func):
            self.rec.unseen.append(f"{call.op} in {call.where or 'the step'}")
            for value in tensors_in(call.out):
                self.rec.produce(value, f"{call.op}:y", "activation")
        else:
            vector(self.rec, call)


def product_like(func: Any) -> bool:
    """True for operations that multiply matrices, by PyTorch's own FLOP registry or by their name."""
    return func.overloadpacket in flop_registry or named_like_a_product(func._schema.name.partition("::")[2])


@contextmanager
def _unpatched(mode: _Mode) -> Any:
    """What the recorder itself asks of tensors is not recorded."""
    mode.paused += 1
    try:
        yield
    finally:
        mode.paused -= 1


@contextmanager
def recording(rec: Recorder, model: torch.nn.Module) -> Any:
    """Follow module calls, optimizer steps and operations."""
    mode = _Mode(rec)

    def enter(path: str) -> Callable[..., None]:
        return lambda module, args: rec.frames.append(Frame(path, module))

    def leave(module: Any, args: Any, out: Any) -> None:
        rec.frames.pop()

    def before(optimizer: Any, args: Any, kwargs: Any) -> None:
        mode.paused += 1

    def after(optimizer: Any, args: Any, kwargs: Any) -> None:
        mode.paused -= 1
        record_optimizer(rec, optimizer)

    with ExitStack() as stack:
        for path, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(enter(path)).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        stack.callback(register_optimizer_step_pre_hook(before).remove)
        stack.callback(register_optimizer_step_post_hook(after).remove)
        stack.enter_context(mode)
        yield mode


def record_optimizer(rec: Recorder, optimizer: torch.optim.Optimizer) -> None:
    """One update op per parameter that got a gradient, whichever kernel (loop, foreach, fused) ran."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = {
                key: value
                for key, value in optimizer.state.get(parameter, {}).items()
                if key != "step" and isinstance(value, torch.Tensor) and value.shape == parameter.shape
            }
            if not state and type(optimizer).__name__ not in ("SGD", "ASGD"):
                raise CaptureError(f"optimizer {type(optimizer).__name__} is not known: use SGD, Adam or AdamW")
            update(rec, parameter, list(state))


def update(rec: Recorder, parameter: torch.Tensor, state: list[str]) -> None:
    """The update op of one parameter: (W, dW, state...) -> (W, state...)."""
    grad = parameter.grad
    assert grad is not None
    owners = rec.owners((parameter, grad))
    known = rec.known(parameter)
    param = rec.masked_parameter(owners)
    if known is not None and known.name in rec.parameters:
        param = rec.canonical.get(known.name, known.name)
    w_name = rec.use(parameter, "weight", f"{param or 'weight'}.values")
    dw_name = rec.use(grad, "weight_gradient", f"{w_name}.grad", w_name)
    tensor = rec.tensors[w_name]
    names = []
    for key in state:
        label = f"{w_name}.{key}"
        rec.tensors.setdefault(label, Tensor(label, tensor.shape, "state", tensor.dtype))
        names.append(label)
    kind = OPTIMIZERS[min(len(state), 2)]
    op_name = (param or w_name).rpartition(".")[0] or w_name
    inputs, outputs = (w_name, dw_name, *names), (w_name, *names)
    rec.emit(op_name, "update", kind, Vector(max(tensor.elements, 1)), inputs, outputs, param)


def finish(
    rec: Recorder,
    model: torch.nn.Module,
    grad_masks: Mapping[str, Any] | None,
    task_masks: Mapping[str, Any] | None,
    meta: dict[str, Any],
) -> StepGraph:
    """Check that the step is complete, attach declared masks and provenance."""
    products = [op for op in rec.ops if op.macs and op.phase == "forward"]
    if rec.unseen:
        listing = "\n  ".join(dict.fromkeys(rec.unseen))
        raise CaptureError(
            f"the step runs operations whose matrix products cannot be seen:\n  {listing}\n"
            "run such attention under torch.nn.attention.sdpa_kernel(SDPBackend.MATH), recurrent layers under "
            "torch.backends.mkldnn.flags(enabled=False), and write other products with nn.Linear, nn.Conv2d or matmul"
        )
    if not products:
        raise CaptureError("step() ran no convolution, linear layer or matrix product: is it this model's step?")
    if not any(op.phase in ("grad_input", "grad_weight") for op in rec.ops):
        raise CaptureError("step() ran no backward: it must perform one whole training step")
    first = products[0].dims
    if meta.get("batch") is None:
        meta["batch"] = first.n if isinstance(first, Conv) else 1
    meta = {"made_by": "npusim.trace.capture", "torch": torch.__version__, "model": type(model).__name__, **meta}
    graph = rec.graph(
        task_masks=_declared(rec, task_masks, "task_masks"),
        update_masks=_declared(rec, grad_masks, "grad_masks"),
        meta=meta,
    )
    try:
        graph.verify()
    except NpusimError as error:
        raise CaptureError(f"the captured step does not hold together: {error}") from error
    return graph


def _declared(rec: Recorder, masks: Mapping[str, Any] | None, argument: str) -> dict[str, Mask]:
    """Declared masks, packed; all wrong names and shapes are reported together."""
    shapes = {op.param: op.dims for op in rec.ops if op.param and isinstance(op.dims, Conv)}
    packed, bad = {}, []
    for param, value in (masks or {}).items():
        bits = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if param not in shapes:
            bad.append(f"{param!r} is no weight of a convolution or linear op{closest(param, list(shapes))}")
            continue
        dims = shapes[param]
        shape = (dims.k, dims.c // dims.groups, dims.r, dims.s)
        if param in rec.flipped:
            bits = bits.T
        if bits.ndim == 3 and (*bits.shape[:2], 1, bits.shape[2]) == shape:
            bits = bits.reshape(shape)
        if bits.shape != shape and (shape[2:] != (1, 1) or bits.shape != shape[:2]):
            expected = shape if shape[2:] != (1, 1) else shape[:2]
            bad.append(f"{param!r} has shape {bits.shape}, the weight has {expected}")
            continue
        packed[param] = Mask.of(bits != 0)
    if bad:
        raise CaptureError(f"{argument}: " + "; ".join(bad))
    return packed
