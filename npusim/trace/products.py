"""Recording of convolutions and matrix products, forward and backward."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npusim.errors import CaptureError
from npusim.graph import Conv, Gemm, Vector
from npusim.trace.recorder import Forward, Recorder

if TYPE_CHECKING:
    import torch


_PRODUCT_LIKE = re.compile(
    r"attention|rnn|lstm|gru|conv|linear|matmul|bilinear|einsum|tensordot|cdist|_trilinear"
    r"|(^|_)(mm|bmm|addmm|mv|addmv|addbmm|dot|vdot|addr|ger|outer|kron|inner)(_|$)|^linalg_|fft|grouped_mm|scaled_mm"
)
_HARMLESS = re.compile(r"upsample|convert|reorder|_linalg_check|linalg_(vector|matrix)_norm")


@dataclass(frozen=True)
class Call:
    """One framework operation after it ran. `sequence` ties a backward call to its forward call."""

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    backward: bool
    sequence: int | None
    mutates: bool
    where: str = ""


def pair(value: Any) -> tuple[int, int]:
    """(rows, columns) of a framework's size list; one number serves both, one dimension lies in columns."""
    numbers = [int(n) for n in value] if isinstance(value, (list, tuple)) else [int(value)]
    if len(numbers) == 1:
        return numbers[0], numbers[0]
    return numbers[0], numbers[1]


def conv_dims(call: Call, x: torch.Tensor, w: torch.Tensor, options: tuple[Any, ...]) -> Conv:
    """Dimensions of a 1-D or 2-D convolution; a 1-D one has one row."""
    stride, padding, dilation, transposed, _, groups = options
    if transposed or w.dim() > 4:
        what = "transposed" if transposed else f"{w.dim() - 2}-D"
        where = call.where or "the step"
        raise CaptureError(f"{where} runs a {what} convolution; only 1-D and 2-D convolutions are known")
    flat = w.dim() == 3
    batched = x.dim() == w.dim()
    n = int(x.shape[0]) if batched else 1
    c, *extent = (int(v) for v in (x.shape[1:] if batched else x.shape))
    k, _, *taps = (int(v) for v in w.shape)
    (h, width), (r, s) = ((1, *extent), (1, *taps)) if flat else (extent, taps)
    steps, around, apart = (((1, int(v[0])) if flat else pair(v)) for v in (stride, padding, dilation))
    if min(*steps, *apart, int(groups)) < 1 or min(around) < 0:
        raise CaptureError(f"stride {steps}, padding {around}, dilation {apart}, {groups} groups: out of range")
    return Conv(n, c, h, width, k, r, s, steps, (0, around[1]) if flat else around, apart, int(groups))


def _remember(rec: Recorder, call: Call, forward: Forward) -> None:
    if call.sequence is not None:
        rec.forward[call.sequence] = forward


def convolution(rec: Recorder, call: Call) -> None:
    x, w, bias, *options = call.args
    if call.backward:
        rec.unseen.append(f"{call.op} in the backward of {call.where}: let autograd derive it")
        return
    dims = conv_dims(call, x, w, tuple(options))
    name = rec.op_name("conv")
    param = rec.weight_name(w, name)
    inputs = (rec.use(x, "activation", "input"), rec.use(w, "weight", f"{name}.weight"))
    rec.see(inputs[0], x)
    output = rec.produce(call.out, f"{name}:y", "activation")
    op = rec.emit(name, "forward", "conv", dims, inputs, (output,), param)
    _remember(rec, call, Forward(op, inputs, output, _bias_name(rec, bias)))


def _bias_name(rec: Recorder, bias: torch.Tensor | None) -> str:
    known = rec.known(bias) if bias is not None else None
    return known.name if known else ""


def convolution_backward(rec: Recorder, call: Call) -> None:
    dy, x, w, _, *options, wanted = call.args
    forward = rec.forward.get(call.sequence) if call.sequence is not None else None
    if forward is None:
        rec.unseen.append(f"{call.op} of a custom autograd function {call.where}: its forward is not known")
        return
    op, (x_name, w_name) = forward.op, forward.inputs
    dims = conv_dims(call, x, w, tuple(options))
    dy_name = rec.gradient_of(dy, forward.output)
    dx, dw, db = call.out
    if wanted[0]:
        out = rec.produce(dx, f"{x_name}.grad", "gradient", x_name)
        rec.emit(op.name, "grad_input", "conv", dims, (dy_name, w_name), (out,), op.param)
    if wanted[1]:
        weight_gradient(rec, forward, (dy_name, x_name), dw, dw)
    if wanted[2]:
        bias_gradient(rec, forward, dy_name, db, dy.numel())


def weight_gradient(
    rec: Recorder, forward: Forward, inputs: tuple[str, str], dw: torch.Tensor, upright: torch.Tensor
) -> None:
    """dW of a convolution or linear op; `upright` is `dw` in the weight's own orientation."""
    op, w_name = forward.op, forward.inputs[1]
    owners = rec.owners([dw]) | {op.param or w_name}
    out = rec.produce(dw, f"{w_name}.grad", "weight_gradient", w_name, owners)
    rec.see(out, upright)
    rec.emit(op.name, "grad_weight", op.kind, op.dims, inputs, (out,), op.param)


def bias_gradient(rec: Recorder, forward: Forward, dy_name: str, db: torch.Tensor, elements: int) -> None:
    bias = forward.bias or f"{forward.op.name}.bias"
    out = rec.produce(db, f"{bias}.grad", "weight_gradient", bias if bias in rec.parameters else "", {bias})
    rec.emit(forward.op.name, "grad_weight", "bias_grad", Vector(int(elements)), (dy_name,), (out,), bias)


def _operands(call: Call) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    if call.op in ("addmm", "baddbmm"):
        return call.args[1], call.args[2], call.args[0]
    return call.args[0], call.args[1], None


def product(rec: Recorder, call: Call) -> None:
    """mm, addmm, bmm, baddbmm: a linear layer when one operand is a weight, attention otherwise."""
    a, b, bias = _operands(call)
    if call.backward:
        _product_backward(rec, call, a, b)
        return
    roles = (rec.role(a), rec.role(b))
    if roles == ("weight", "weight"):
        _matmul(rec, call, a, b, aux=True)
    elif roles[1] == "weight":
        _linear(rec, call, a, b, bias, weight_second=True)
    elif roles[0] == "weight":
        _linear(rec, call, b, a, bias, weight_second=False)
    else:
        _matmul(rec, call, a, b, aux=False)


def _linear(
    rec: Recorder, call: Call, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, weight_second: bool
) -> None:
    name = rec.op_name("linear")
    param = rec.weight_name(w, name)
    inputs = (rec.use(x, "activation", "input"), rec.use(w, "weight", f"{name}.weight"))
    if weight_second and w.dim() == 2 and w.stride(1) == 1 and w.shape[1] > 1:
        rec.flipped.add(param)
    rec.see(inputs[0], x)
    output = rec.produce(call.out, f"{name}:y", "activation")
    op = rec.emit(name, "forward", "linear", _linear_dims(x, w, weight_second), inputs, (output,), param)
    _remember(rec, call, Forward(op, inputs, output, _bias_name(rec, bias)))


def _linear_dims(x: torch.Tensor, w: torch.Tensor, weight_second: bool) -> Conv:
    """Tokens N, C inputs, K outputs; a different weight per batch entry is a grouped layer."""
    c, k = (w.shape[-2], w.shape[-1]) if weight_second else (w.shape[-1], w.shape[-2])
    n = x.shape[-2] if weight_second else x.shape[-1]
    batch = int(w.shape[0]) if w.dim() == 3 else 1
    if batch == 1 or w.stride(0) == 0:
        return Conv(int(n) * batch, int(c), 1, 1, int(k))
    return Conv(int(n), int(c) * batch, 1, 1, int(k) * batch, groups=batch)


def _gemm(a: torch.Tensor, b: torch.Tensor) -> Gemm:
    return Gemm(int(a.shape[0]) if a.dim() == 3 else 1, int(a.shape[-2]), int(b.shape[-1]), int(a.shape[-1]))


def _matmul(rec: Recorder, call: Call, a: torch.Tensor, b: torch.Tensor, aux: bool) -> None:
    name = rec.op_name("matmul", aux)
    inputs = (rec.use(a, "activation", "input"), rec.use(b, "activation", "input"))
    role = "weight" if aux else "activation"
    output = rec.produce(call.out, f"{name}:y", role, owners=rec.owners((a, b)) if aux else ())
    op = rec.emit(name, "aux" if aux else "forward", "matmul", _gemm(a, b), inputs, (output,))
    _remember(rec, call, Forward(op, inputs, output, aux=aux))


def _product_backward(rec: Recorder, call: Call, a: torch.Tensor, b: torch.Tensor) -> None:
    forward = rec.forward.get(call.sequence) if call.sequence is not None else None
    if forward is None or forward.op.kind not in ("linear", "matmul"):
        rec.unseen.append(f"{call.op} of a custom autograd function {call.where}: its forward is not known")
    elif forward.op.kind == "linear":
        _linear_backward(rec, call, forward, a, b)
    else:
        _matmul_backward(rec, call, forward, a, b)


def _linear_backward(rec: Recorder, call: Call, forward: Forward, a: torch.Tensor, b: torch.Tensor) -> None:
    op, (x_name, w_name) = forward.op, forward.inputs
    names = [known.name if (known := rec.known(value)) else "" for value in (a, b)]
    if w_name in names:
        dy = b if names[0] == w_name else a
        dy_name = rec.gradient_of(dy, forward.output)
        out = rec.produce(call.out, f"{x_name}.grad", "gradient", x_name)
        rec.emit(op.name, "grad_input", "linear", op.dims, (dy_name, w_name), (out,), op.param)
        return
    dy_first = names[1] == x_name
    dy_name = rec.gradient_of(a if dy_first else b, forward.output)
    in_rows = dy_first != (op.param in rec.flipped)
    upright = call.out if in_rows else call.out.transpose(-1, -2)
    weight_gradient(rec, forward, (dy_name, x_name), call.out, upright)


def _matmul_backward(rec: Recorder, call: Call, forward: Forward, a: torch.Tensor, b: torch.Tensor) -> None:
    """C = A B: dA = dC B^T has dC first, dB = A^T dC has it second."""
    op = forward.op
    first = _is_gradient(rec, a, forward.inputs)
    dc, other, target = (a, b, forward.inputs[0]) if first else (b, a, forward.inputs[1])
    dc_name = rec.gradient_of(dc, forward.output)
    other_name = rec.use(other, "activation", "input")
    names = (dc_name, other_name) if first else (other_name, dc_name)
    role, phase = ("weight_gradient", "aux") if forward.aux else ("gradient", "grad_input")
    owners = rec.tensors[target].name
    out = rec.produce(call.out, f"{target}.grad", role, target, {owners} if forward.aux else ())
    rec.emit(op.name, phase, "matmul", _gemm(a, b), names, (out,))


def _is_gradient(rec: Recorder, value: torch.Tensor, inputs: tuple[str, ...]) -> bool:
    known = rec.known(value)
    return known is None or known.name not in inputs


PRODUCTS: dict[str, Callable[[Recorder, Call], None]] = {
    "convolution": convolution,
    "convolution_backward": convolution_backward,
    "mm": product,
    "addmm": product,
    "bmm": product,
    "baddbmm": product,
}


def named_like_a_product(op: str) -> bool:
    """Whether an operation's name says that it multiplies matrices."""
    return bool(_PRODUCT_LIKE.search(op)) and not _HARMLESS.search(op)
