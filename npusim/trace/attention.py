"""Recording of PyTorch's fused attention as what it computes: two products and a softmax, forward and backward.

With queries Q [batch, heads, L, E], keys K [.., S, E] and values V [.., S, F], per batch entry and head:

| phase      | operation                         | product (M, N, K) or elements |
|------------|-----------------------------------|-------------------------------|
| forward    | S = Q K^T; P = softmax(S); Y = P V| L, S, E; L S; L, F, S         |
| grad_input | dV = P^T dY; dP = dY V^T          | S, F, L; L, S, F              |
| grad_input | dS = softmax'(P, dP)              | L S                           |
| grad_input | dQ = dS K; dK = dS^T Q            | L, E, S; S, E, L              |

That is attention as an array without a fused unit runs it: P is kept for the backward pass (the fused kernel computes
it again, block by block), scale and mask are part of the softmax, and a causal mask leaves out no products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from npusim.graph import Gemm, Vector
from npusim.trace.products import Call
from npusim.trace.recorder import Forward, Recorder

if TYPE_CHECKING:
    import torch

FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
BACKWARD = f"{FORWARD}_backward"


def _sizes(call: Call, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[int, int, int, int, int] | None:
    """(batch * heads, L, S, E, F); None for what is not expanded: dropout, or fewer heads of keys than of queries."""
    fits = q.dim() == k.dim() == v.dim() == 4 and q.shape[:2] == k.shape[:2] == v.shape[:2]
    dropout = not call.backward and len(call.args) > 3 and isinstance(call.args[3], float) and call.args[3] > 0
    if not fits or dropout:
        return None
    (batch, heads, rows, inner), width = q.shape, v.shape[-1]
    return int(batch) * int(heads), int(rows), int(k.shape[-2]), int(inner), int(width)


def attention(rec: Recorder, call: Call) -> None:
    """The forward operation: (Q, K, V, ...) -> (Y, ...)."""
    q, k, v = call.args[:3]
    sizes = _sizes(call, q, k, v)
    outputs = list(call.out) if isinstance(call.out, (list, tuple)) else [call.out]
    if call.backward or sizes is None:
        rec.unseen.append(f"{call.op} in {call.where or 'the step'}: with dropout, or fewer heads of keys than queries")
        rec.produce(outputs[0], f"{call.op}:y", "activation")
        return
    n, rows, columns, inner, width = sizes
    name = rec.op_name("attention")
    q_name, k_name, v_name = (rec.use(value, "activation", "input") for value in (q, k, v))
    scores, shares = (
        rec.invent(f"{name}.{part}:y", (n, rows, columns), "activation", q_name) for part in ("scores", "softmax")
    )
    rec.emit(f"{name}.scores", "forward", "matmul", Gemm(n, rows, columns, inner), (q_name, k_name), (scores,))
    rec.emit(f"{name}.softmax", "forward", "softmax", Vector(n * rows * columns), (scores,), (shares,))
    output = rec.produce(outputs[0], f"{name}:y", "activation")
    op = rec.emit(name, "forward", "matmul", Gemm(n, rows, width, columns), (shares, v_name), (output,))
    if call.sequence is not None:
        rec.forward[call.sequence] = Forward(op, (q_name, k_name, v_name, scores, shares), output)


def attention_backward(rec: Recorder, call: Call) -> None:
    """The backward operation: (dY, Q, K, V, ...) -> (dQ, dK, dV)."""
    dy, q, k, v = call.args[:4]
    forward = rec.forward.get(call.sequence) if call.sequence is not None else None
    sizes = _sizes(call, q, k, v)
    if forward is None or len(forward.inputs) != 5 or sizes is None:
        rec.unseen.append(f"{call.op} in {call.where or 'the step'}: its forward is not known")
        return
    n, rows, columns, inner, width = sizes
    name, (q_name, k_name, v_name, scores, shares) = forward.op.name, forward.inputs
    dy_name = rec.gradient_of(dy, forward.output)
    d_shares, d_scores = (
        rec.invent(f"{of}.grad", (n, rows, columns), "gradient", dy_name, of) for of in (shares, scores)
    )
    dq, dk, dv = (
        rec.produce(value, f"{of}.grad", "gradient", of)
        for value, of in zip(call.out[:3], (q_name, k_name, v_name), strict=True)
    )
    within, kind = f"{name}.scores", "matmul"
    rec.emit(name, "grad_input", kind, Gemm(n, columns, width, rows), (shares, dy_name), (dv,))
    rec.emit(name, "grad_input", kind, Gemm(n, rows, columns, width), (dy_name, v_name), (d_shares,))
    rec.emit(f"{name}.softmax", "grad_input", "softmax", Vector(n * rows * columns), (d_shares, shares), (d_scores,))
    rec.emit(within, "grad_input", kind, Gemm(n, rows, inner, columns), (d_scores, k_name), (dq,))
    rec.emit(within, "grad_input", kind, Gemm(n, columns, inner, rows), (d_scores, q_name), (dk,))
