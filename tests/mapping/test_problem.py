"""The GEMMs of a layer, against loops over every output and tap."""

import numpy as np
import pytest
from examples import random_conv

from npusim.graph import Conv, Gemm, Op
from npusim.mapping.problem import problems
from npusim.synthesis import from_layers


def pairs_of_grad_input(d, size, window, stride, padding, dilation, outputs):
    """(input row, tap) pairs whose division is exact: those that a dense sub-convolution multiplies."""
    return sum((i + padding - r * dilation) % stride == 0 for i in range(size) for r in range(window))


@pytest.mark.parametrize("seed", range(50))
def test_grad_input_multiplies_exactly_the_taps_that_reach_an_input(seed):
    d = random_conv(np.random.default_rng(seed))
    rows = pairs_of_grad_input(d, d.h, d.r, d.stride[0], d.padding[0], d.dilation[0], d.p)
    columns = pairs_of_grad_input(d, d.w, d.s, d.stride[1], d.padding[1], d.dilation[1], d.q)
    parts = problems(Op("x", "grad_input", "conv", d))
    assert sum(p.macs for p in parts) == d.n * rows * columns * d.c * d.k // d.groups
    assert sum(p.t for p in parts) == d.n * d.h * d.w


@pytest.mark.parametrize("seed", range(20))
def test_a_part_reads_the_gradient_rows_that_its_outputs_need(seed):
    d = random_conv(np.random.default_rng(seed))
    for part in problems(Op("x", "grad_input", "conv", d)):
        if part.taps:
            # Output i of the residue class reads rows start + i .. start + i + extent - 1 of dY.
            assert part.start[0] + (part.p - 1) >= -part.extent[0] + 1 - d.r * d.dilation[0]
            assert part.extent[0] >= 1


def test_resnet_downsampling_by_hand():
    # 3x3 stride 2 padding 1 on 56x56: residue classes of 28x28 outputs with 1 and 2 taps per axis, so
    # 1+2+2+4 = 9 taps in all: 64*128*9*28*28 MACs, as in the forward pass.
    d = Conv(1, 64, 56, 56, 128, 3, 3, (2, 2), (1, 1))
    parts = problems(Op("x", "grad_input", "conv", d))
    assert sorted(p.taps for p in parts) == [1, 2, 2, 4]
    assert sum(p.macs for p in parts) == d.macs == 64 * 128 * 9 * 28 * 28


def test_inputs_that_no_tap_reaches_are_only_written():
    # 1x1 stride 2: three of four residue classes have no tap.
    parts = problems(Op("x", "grad_input", "conv", Conv(1, 8, 8, 8, 16, stride=(2, 2))))
    assert [p.taps for p in parts] == [1, 0, 0, 0]


def test_attention_products_are_groups():
    (p,) = problems(Op("x", "forward", "matmul", Gemm(12, 197, 64, 197)))
    assert (p.groups, p.m, p.t, p.c, p.macs) == (12, 197, 64, 197, 12 * 197 * 64 * 197)


def test_operands_of_attention_have_their_own_widths():
    # Of scores = Q K^T: dQ = dS K reads the gradient as A; dK = dS^T Q, as Q^T dS, as B.
    layers = [
        {"name": "x", "kind": "input", "shape": (2, 5, 8)},
        {"name": "q", "kind": "linear", "out": 6},
        {"name": "k", "kind": "linear", "inputs": ["x"], "out": 6},
        {"name": "scores", "kind": "matmul", "inputs": ["q", "k"], "transposed": True},
    ]
    step = from_layers(layers, "attention")
    found = [problems(op, step.tensors)[0] for op in step.ops if op.kind == "matmul"]
    assert [(p.a_kind, p.b_kind, p.out_kind) for p in found] == [
        ("activation", "activation", "activation"),
        ("gradient", "activation", "gradient"),
        ("activation", "gradient", "gradient"),
    ]
