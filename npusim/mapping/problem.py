"""What a MAC operation asks of the array: one or more blocked GEMMs over rows M, channels C, taps and pixels T.

| phase                  | A operand   | B operand (im2col on the fly) | output       | streams / reduces |
|------------------------|-------------|-------------------------------|--------------|-------------------|
| forward                | W[K, C*RS]  | X[C, pixels]                  | Y[K, T]      | C*RS              |
| grad_input             | W'[C, K*RS] | dY[K, pixels]                 | dX[C, N*H*W] | K*RS              |
| grad_weight            | dY[K, T]    | X[C, pixels]                  | dW[K, C*RS]  | T                 |
| matmul (all phases)    | [M, K]      | [K, N]                        | [M, N]       | K                 |

grad_input with a stride is a transposed convolution; it is split into stride_h * stride_w dense
sub-convolutions, one per output residue class, so that no inserted zero is ever multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from npusim.graph import PIXELS, TAPS, Conv, Gemm, Op, Tensor


@dataclass(frozen=True, slots=True)
class Problem:
    """`groups` equal products. role PIXELS: out[M, T] reduces C*taps; role TAPS: out[M, C*taps] reduces T.

    T = n*p*q output positions; the B operand is an image of `h` x `w` per channel, from which output row i
    reads the rows [i*stride + start, i*stride + start + extent), clipped to the image.
    `a_kind`, `b_kind` and `out_kind` are tensor kinds (they decide the operand widths). `window` (taps per direction)
    and `dilation` are those of forward and grad_weight.
    """

    role: str
    groups: int
    m: int
    c: int
    taps: int
    n: int
    p: int
    q: int
    h: int
    w: int
    stride: tuple[int, int]
    start: tuple[int, int]
    extent: tuple[int, int]
    a_kind: str
    b_kind: str
    out_kind: str
    window: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    @property
    def t(self) -> int:
        return self.n * self.p * self.q

    @property
    def macs(self) -> int:
        return self.groups * self.m * self.c * self.taps * self.t


def problems(op: Op, tensors: Mapping[str, Tensor] | None = None) -> list[Problem]:
    """The problems of a MAC operation, in the order in which they run; `taps` 0 means zeros to be written.

    The operands of a matmul are any two of activations, gradients and weights: `tensors` says which.
    """
    if isinstance(op.dims, Gemm):
        d = op.dims
        kinds = _operand_kinds(op, tensors or {})
        return [Problem(PIXELS, d.batch, d.m, d.k, 1, 1, 1, d.n, 1, d.n, (1, 1), (0, 0), (1, 1), *kinds)]
    assert isinstance(op.dims, Conv)
    if op.phase == "grad_input":
        return _grad_input(op.dims)
    return [_convolution(op.dims, TAPS if op.phase == "grad_weight" else PIXELS)]


def _operand_kinds(op: Op, tensors: Mapping[str, Tensor]) -> tuple[str, str, str]:
    """Kinds of A, B and the result of a matmul, whose inputs are listed in the order of the product."""
    names = (op.inputs[0], op.inputs[-1], op.outputs[0]) if op.inputs and op.outputs else ()
    a, b, out = (tensors[name].kind if name in tensors else "activation" for name in names or ("", "", ""))
    return a, b, out


def _convolution(d: Conv, role: str) -> Problem:
    extent = (d.dilation[0] * (d.r - 1) + 1, d.dilation[1] * (d.s - 1) + 1)
    kinds = ("weight", "activation", "activation") if role == PIXELS else ("gradient", "activation", "weight_gradient")
    start = (-d.padding[0], -d.padding[1])
    return Problem(
        role, d.groups, d.k // d.groups, d.c // d.groups, d.r * d.s, d.n, d.p, d.q, d.h, d.w, d.stride, start, extent,
        *kinds, (d.r, d.s), d.dilation,
    )  # fmt: skip


def _grad_input(d: Conv) -> list[Problem]:
    parts = []
    for rows in _residues(d.h, d.r, d.stride[0], d.padding[0], d.dilation[0]):
        for columns in _residues(d.w, d.s, d.stride[1], d.padding[1], d.dilation[1]):
            (height, taps_r, start_r, extent_r), (width, taps_s, start_s, extent_s) = rows, columns
            shape = (d.groups, d.c // d.groups, d.k // d.groups, taps_r * taps_s, d.n, height, width, d.p, d.q)
            window = ((1, 1), (start_r, start_s), (extent_r, extent_s))
            parts.append(Problem(PIXELS, *shape, *window, "weight", "gradient", "gradient"))
    return parts


def _residues(size: int, window: int, stride: int, padding: int, dilation: int) -> list[tuple[int, int, int, int]]:
    """(outputs, taps, first dY row, extent in dY rows) of each residue class of input rows that has outputs.

    Input row i gets contributions from output rows (i + padding - r*dilation) / stride for the taps r where
    that division is exact; the exact taps depend only on (i + padding) mod stride.
    """
    found = []
    present = (residue for residue in range(stride) if (residue - padding) % stride < size)
    for residue, taps in zip(present, residue_taps(size, window, stride, padding, dilation), strict=True):
        first = (residue - padding) % stride
        if taps:
            start = (first + padding - taps[-1] * dilation) // stride
            extent = (taps[-1] - taps[0]) * dilation // stride + 1
        else:
            start, extent = 0, 0
        found.append((-(-(size - first) // stride), len(taps), start, extent))
    return found


def residue_taps(size: int, window: int, stride: int, padding: int, dilation: int) -> list[tuple[int, ...]]:
    """The taps of each residue class of input rows that has outputs, in the order of the problems of grad_input."""
    return [
        tuple(r for r in range(window) if (r * dilation - residue) % stride == 0)
        for residue in range(stride)
        if (residue - padding) % stride < size
    ]
