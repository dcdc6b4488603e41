"""Recording of everything that is not a matrix product: normalisation, pooling, elementwise operations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from npusim.graph import Dims, Pool, Vector
from npusim.trace.products import Call, bias_gradient, pair
from npusim.trace.recorder import Forward, Known, Recorder
from npusim.trace.reshape import pooled

if TYPE_CHECKING:
    import torch

ACTIVATIONS = (
    "relu", "hardtanh", "clamp", "clamp_min", "gelu", "silu", "sigmoid", "tanh", "leaky_relu", "elu", "hardswish",
    "hardsigmoid", "mish", "softplus", "log_sigmoid_forward", "prelu", "_prelu_kernel", "celu", "selu",
)  # fmt: skip
LOSSES = ("nll_loss_forward", "nll_loss2d_forward", "nll_loss_backward", "nll_loss2d_backward")
KINDS = {
    **dict.fromkeys(ACTIVATIONS, "activation"),
    **dict.fromkeys(("add", "sub", "rsub"), "add"),
    "mul": "mul",
    **dict.fromkeys(("_softmax", "_safe_softmax"), "softmax"),
    "_log_softmax": "softmax_loss",
    **dict.fromkeys(("native_layer_norm", "native_group_norm", "_fused_rms_norm"), "layer_norm"),
}
# Kinds whose backward operations keep the kind; the others' are plain elementwise work.
SAME_BACKWARD = ("activation", "mul", "softmax", "softmax_loss", "layer_norm", "batch_norm", "pool")
BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update")
# Backward operations that are handed the input for its shape alone.
SHAPE_ONLY = ("avg_pool2d_backward", "_adaptive_avg_pool2d_backward")


def tensors_in(value: Any) -> Iterable[Any]:
    """The tensors in nested lists and tuples."""
    if hasattr(value, "untyped_storage"):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def vector(rec: Recorder, call: Call) -> None:
    """Record an operation that is not a matrix product, by what its operands are."""
    base = call.op.removesuffix("_")
    operands = list(tensors_in((call.args, tuple(call.kwargs.values()))))
    outputs = list(tensors_in(call.out)) or list(tensors_in(call.args[:1]))
    roles = {rec.role(value) for value in operands}
    aliases = {value.untyped_storage()._cdata for value in operands}
    if not call.mutates and all(value.untyped_storage()._cdata in aliases for value in outputs):
        return
    if base == "clone" and _copy(rec, call):
        return
    integers = not any(value.is_floating_point() for value in (*operands, *outputs))
    if roles <= {"constant"} or integers or base in LOSSES or _initialises(call, base):
        for value in outputs:
            rec.follow(value, Known("", "constant"))
    elif call.backward:
        _backward(rec, call, operands, outputs)
    else:
        _forward(rec, call, base, operands, outputs)


def _copy(rec: Recorder, call: Call) -> bool:
    """A copy is the same value: on a machine it costs addressing, not an operation. Autograd makes one
    before an in-place function that it must be able to differentiate, and numbers it after that function."""
    source = call.args[0]
    if rec.role(source) not in ("activation", "gradient", "external") or not source.is_floating_point():
        return False
    rec.use(source, "activation", "input")
    known = rec.known(source)
    assert known is not None
    rec.follow(call.out, known)
    rec.cloned_at = call.sequence
    return True


def forward_sequence(rec: Recorder, call: Call) -> int | None:
    """Number of the autograd node of a forward call, seen through the copy made before it."""
    if call.sequence is not None and call.mutates and rec.cloned_at == call.sequence:
        return call.sequence - 1
    return call.sequence


def _initialises(call: Call, base: str) -> bool:
    """True for operations that give a tensor new contents that come from no other tensor."""
    if base.startswith(("empty", "zeros", "ones", "full", "rand", "new_", "arange", "scalar_tensor", "lift_fresh")):
        return True
    return base in ("zero", "fill", "bernoulli", "uniform", "normal", "random", "_foreach_zero")


def _forward(rec: Recorder, call: Call, base: str, operands: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
    role = _result_role(rec, operands, outputs)
    if role != "activation":
        _parameter_work(rec, call, base, role, operands, outputs)
        return
    kind = KINDS.get(base, "elementwise")
    dims: Dims = Vector(_elements(operands, outputs))
    data = [value for value in operands if rec.role(value) in ("activation", "external")]
    param = ""
    if base in BATCH_NORMS:
        kind = "batch_norm" if _training(base, call.args) else "elementwise"
        dims = Vector(int(call.args[0].numel()), 0 if kind == "batch_norm" else 2)
    elif pool := pool_dims(base, call.args):
        kind, dims = "pool", pool
    elif kind in ("add", "mul") and len([v for v in operands if v.dim()]) < 2:
        kind = "elementwise"
    if kind == "elementwise" and isinstance(dims, Vector) and not dims.lane_ops:
        dims = Vector(dims.elements, 1)
    weights = [value for value in operands if rec.role(value) == "weight" and value.is_floating_point()]
    if weights and (known := rec.known(weights[0])) and known.name in rec.parameters:
        param = known.name
    name = rec.op_name(kind if kind != "elementwise" else base.strip("_"))
    noise = [v for v in operands if rec.role(v) == "constant" and v.is_floating_point() and v.dim()]
    read = [*data, *weights[: 1 if kind in ("batch_norm", "layer_norm") else None], *noise]
    inputs = tuple(dict.fromkeys(rec.use(v, _input_kind(rec, v), _input_name(rec, v, name)) for v in read))
    output = rec.produce(outputs[0], f"{name}:y", "activation")
    if not call.mutates:
        for extra in outputs[1:]:
            rec.follow(extra, Known("", "constant"))
    op = rec.emit(name, "forward", kind, dims, inputs, (output,), param)
    sequence = forward_sequence(rec, call)
    if sequence is not None:
        bias = next((k.name for v in operands[1:] if (k := rec.known(v)) and k.role == "weight"), "")
        rec.forward[sequence] = Forward(op, inputs, output, bias)


def _input_kind(rec: Recorder, value: torch.Tensor) -> str:
    return "mask" if rec.role(value) == "constant" else "activation"


def _input_name(rec: Recorder, value: torch.Tensor, op_name: str) -> str:
    return f"{op_name}:noise" if rec.role(value) == "constant" else "input"


def _training(base: str, args: tuple[Any, ...]) -> bool:
    """True when the batch norm computes batch statistics."""
    flags = [value for value in args if isinstance(value, bool)]
    return base == "_batch_norm_with_update" or not flags or flags[0]


def _elements(operands: list[torch.Tensor], outputs: list[torch.Tensor]) -> int:
    """Elements of the largest tensor processed; a table that is only indexed does not count."""
    sizes = [int(value.numel()) for value in (*operands, *outputs) if value.is_floating_point()]
    return max(sizes, default=1) or 1


def _result_role(rec: Recorder, operands: list[torch.Tensor], outputs: list[torch.Tensor]) -> str:
    """What a forward-side operation computes: activations, or something about weights or gradients."""
    roles = {rec.role(value) for value in operands}
    if roles & {"activation"}:
        return "activation"
    if "weight_gradient" in roles:
        return "weight_gradient"
    if "weight" in roles:
        largest = max(int(v.numel()) for v in operands if rec.role(v) == "weight")
        grows = any(int(v.numel()) > largest for v in operands if rec.role(v) == "external" and v.is_floating_point())
        indexed = any(not v.is_floating_point() and rec.role(v) == "external" for v in operands)
        return "activation" if grows or (indexed and not rec.backward_began) else "weight"
    return "weight" if rec.backward_began else "activation"


def _parameter_work(
    rec: Recorder, call: Call, base: str, role: str, operands: list[torch.Tensor], outputs: list[torch.Tensor]
) -> None:
    """Work on weights, masks or weight gradients: phase aux, but a plain W -= lr * dW is an update."""
    owners = rec.owners(operands)
    param = rec.masked_parameter(owners)
    target = rec.known(outputs[0])
    in_place = call.mutates and target is not None and target.name in rec.parameters
    updates = in_place and role == "weight_gradient"
    kind = "sgd" if updates else {"mul": "mul", "add": "add"}.get(base, "elementwise")
    if kind in ("add", "mul") and len([v for v in operands if v.dim()]) < 2:
        kind = "elementwise"
    module, short = param.rpartition(".")[0], base.strip("_")
    inside = rec.frames[-1].path or not module
    name = rec.op_name(short, aux=True) if inside else rec.unique(f"{module}.{short}")
    inputs = [rec.use(v, "mask", f"{name}:mask") for v in operands if v.dim() or rec.known(v)]
    elements = sum(int(v.numel()) for v in outputs) if len(outputs) > 1 else _elements(operands, outputs)
    names = []
    for value in outputs:
        known = rec.known(value)
        if known and known.name in rec.parameters and call.mutates:
            names.append(known.name)
            continue
        own = known.owners if call.mutates and known else owners
        label = f"{known.name.split('@')[0]}" if call.mutates and known and known.name else f"{name}:y"
        grad_of = rec.tensors[known.name].grad_of if known and known.name in rec.tensors else ""
        names.append(rec.produce(value, label, role, grad_of, own))
    phase = "update" if updates else "aux"
    dims = Vector(elements, 1 if kind == "elementwise" else 0)
    op = rec.emit_owned(name, phase, kind, dims, dict.fromkeys(inputs), names, owners)
    if call.sequence is not None:
        rec.forward[call.sequence] = Forward(op, tuple(inputs), names[0], aux=True)


def _backward(rec: Recorder, call: Call, operands: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
    forward = rec.forward.get(call.sequence) if call.sequence is not None else None
    roles = {rec.role(value) for value in operands}
    gradients = [v for v in operands if rec.role(v) in ("gradient", "weight_gradient")]
    if call.op in ("add", "add_") and len(gradients) == 2:
        _accumulate(rec, gradients, outputs[0])
    elif "weight_gradient" in roles or (forward and forward.aux):
        _weight_side(rec, call, forward, operands, outputs)
    elif forward and call.op == "sum" and forward.bias and _shape_of(rec, forward.bias) == int(outputs[0].numel()):
        dy = rec.gradient_of(operands[0], forward.output)
        bias_gradient(rec, forward, dy, outputs[0], int(operands[0].numel()))
    elif call.op == "embedding_dense_backward":
        _embedding_backward(rec, forward, operands, outputs)
    else:
        _activation_side(rec, call, forward, operands, outputs)


def _shape_of(rec: Recorder, parameter: str) -> int:
    return int(rec.parameters[parameter].numel()) if parameter in rec.parameters else -1


def _accumulate(rec: Recorder, gradients: list[torch.Tensor], out: torch.Tensor) -> None:
    """The sum that autograd forms where a value was used more than once."""
    role = rec.role(gradients[0])
    names = [rec.use(value, role, "grad") for value in gradients]
    targets = [rec.tensors[name].grad_of for name in names]
    # A gradient passes unchanged through an addition, so it may be known as that of the sum; the one
    # whose operation came last belongs to the value that was used twice.
    target = targets[1] if targets[0] != targets[1] else targets[0]
    order = list(rec.tensors)
    if all(targets) and targets[0] != targets[1]:
        target = min(targets, key=order.index)
    base = target.split(":")[0] or "grad"
    name = rec.unique(f"{base}.accumulate")
    owners = rec.owners(gradients)
    result = rec.produce(out, f"{target or name}.grad", role, target, owners)
    phase = "grad_weight" if role == "weight_gradient" else "grad_input"
    if role != "weight_gradient":
        owners = frozenset()
    rec.emit_owned(name, phase, "add", Vector(int(out.numel())), names, (result,), owners)


def _weight_side(
    rec: Recorder, call: Call, forward: Forward | None, operands: list[torch.Tensor], outputs: list[torch.Tensor]
) -> None:
    """Gradients on their way from a computed weight to the parameters behind it."""
    base = call.op.removesuffix("_")
    owners = rec.owners(operands)
    op_name = f"{forward.op.name}" if forward else rec.op_name(base.strip("_"), aux=True)
    inputs = [rec.use(v, "mask", f"{op_name}:mask") for v in operands if v.dim() or rec.known(v)]
    inputs.sort(key=lambda name: rec.tensors[name].kind != "weight_gradient")
    target = _target(rec, forward, inputs, outputs[0])
    kind = "mul" if base == "mul" and len(inputs) > 1 else "elementwise"
    result = rec.produce(outputs[0], f"{target or op_name}.grad", "weight_gradient", target, owners)
    dims = Vector(_elements(operands, outputs), 1 if kind == "elementwise" else 0)
    rec.emit_owned(op_name, "aux", kind, dims, dict.fromkeys(inputs), (result,), owners)


def _target(rec: Recorder, forward: Forward | None, read: list[str], out: torch.Tensor) -> str:
    """Which input of the forward operation `out` is the gradient of, or ''."""
    fitting = [n for n in forward.inputs if rec.tensors[n].elements == int(out.numel())] if forward else []
    others = [name for name in fitting if name not in read]
    return (others or fitting or [""])[0]


def _embedding_backward(
    rec: Recorder, forward: Forward | None, operands: list[torch.Tensor], outputs: list[torch.Tensor]
) -> None:
    output, param = (forward.output, forward.op.param) if forward else ("", "")
    dy = rec.gradient_of(operands[0], output)
    name = forward.op.name if forward else rec.op_name("embedding")
    result = rec.produce(outputs[0], f"{param or name}.grad", "weight_gradient", param, {param} if param else ())
    rec.emit(name, "grad_weight", "elementwise", Vector(int(operands[0].numel()), 1), (dy,), (result,), param)


def _activation_side(
    rec: Recorder, call: Call, forward: Forward | None, operands: list[torch.Tensor], outputs: list[torch.Tensor]
) -> None:
    """Backward of anything elementwise, normalising or pooling."""
    base = call.op.removesuffix("_")
    kind = forward.op.kind if forward and forward.op.kind in SAME_BACKWARD else "elementwise"
    dims: Dims = Vector(_elements(operands, outputs), 1 if kind == "elementwise" else 0)
    if kind in ("pool", "batch_norm", "layer_norm") and forward:
        dims = forward.op.dims
    name = forward.op.name if forward else rec.op_name(base.strip("_"))
    output = forward.output if forward else ""
    inputs: list[str] = []
    for i, value in enumerate(operands):
        role = rec.role(value)
        if role == "gradient" or (role == "constant" and i == 0 and kind != "softmax_loss" and value.dim()):
            inputs.insert(0, rec.gradient_of(value, output))
        elif role in ("activation", "external") and value.is_floating_point() and call.op not in SHAPE_ONLY:
            inputs.append(rec.use(value, "activation", "input"))
        elif (known := rec.known(value)) and known.name and kind not in ("batch_norm", "layer_norm"):
            inputs.append(known.name)
            rec.use(value, "weight", known.name)
    results = _gradients(rec, call, forward, inputs, outputs)
    rec.emit(name, "grad_input", kind, dims, dict.fromkeys(inputs), results, forward.op.param if forward else "")


def _gradients(
    rec: Recorder, call: Call, forward: Forward | None, inputs: list[str], outputs: list[torch.Tensor]
) -> list[str]:
    """Names of the results: dX, and for a normalisation the gradients of its scale and shift."""
    norm = "norm_backward" in call.op
    first = call.out[0] if isinstance(call.out, (list, tuple)) else call.out
    names = []
    for value in outputs:
        if norm and value is not first:
            module = forward.op.name.split("@")[0] if forward else "norm"
            part = "weight" if call.out[1] is value else "bias"
            param = f"{module}.{part}"
            if part == "weight" and forward and forward.op.param:
                param = forward.op.param
            elif part == "bias" and forward and forward.op.param.endswith("weight"):
                param = forward.op.param.removesuffix("weight") + "bias"
            grad_of = param if param in rec.parameters else ""
            names.append(rec.produce(value, f"{param}.grad", "weight_gradient", grad_of, {param}))
            continue
        if value is not first:
            rec.follow(value, Known("", "constant"))
            continue
        target = _target(rec, forward, inputs, value)
        base = forward.op.name if forward else call.op
        names.append(rec.produce(value, f"{target or base}.grad", "gradient", target))
    return names


def pool_dims(base: str, args: tuple[Any, ...]) -> Pool | None:
    """Window of a pooling operation; a mean over all pixels is adaptive pooling to 1x1."""
    known = ("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "mean")
    if base not in known or args[0].dim() < 3 or (base == "mean" and not _over_pixels(args)):
        return None
    x = args[0]
    n = int(x.shape[0]) if x.dim() == 4 else 1
    c, h, w = (int(v) for v in x.shape[-3:])
    if base in ("max_pool2d_with_indices", "avg_pool2d"):
        r, s = pair(args[1])
        stride = pair(args[2]) if len(args) > 2 and args[2] else (r, s)
        padding = pair(args[3]) if len(args) > 3 else (0, 0)
        ceil = bool(args[{"avg_pool2d": 4}.get(base, 5)]) if len(args) > {"avg_pool2d": 4}.get(base, 5) else False
        p, q = (pooled(*item, ceil) for item in zip((h, w), (r, s), stride, padding, strict=True))
        return Pool(n, c, h, w, p, q, r, s, stride, padding)
    p, q = (1, 1) if base == "mean" else pair(args[1])
    return adaptive_pool(n, c, h, w, p, q)


def _over_pixels(args: tuple[Any, ...]) -> bool:
    x = args[0]
    axes = {int(d) % x.dim() for d in args[1]} if len(args) > 1 and isinstance(args[1], (list, tuple)) else set()
    return x.dim() == 4 and axes == {2, 3}


def adaptive_pool(n: int, c: int, h: int, w: int, p: int, q: int) -> Pool:
    """Pooling whose windows follow the input size."""
    return Pool(n, c, h, w, p, q, -(-h // p), -(-w // q), (max(h // p, 1), max(w // q, 1)), adaptive=True)
