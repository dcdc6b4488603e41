"""Operations, dimensions and consistency of a step."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from npusim.errors import TraceError
from npusim.graph import Conv, Gemm, Op, Pool, StepGraph, Tensor, Vector, describe
from npusim.masks import Mask
from npusim.synthesis import from_layers

LAYERS = [
    {"name": "image", "kind": "input", "shape": (2, 3, 9, 9)},
    {"name": "a", "kind": "conv", "out": 8, "kernel": 3, "stride": 2, "padding": 1},
    {"name": "r", "kind": "activation"},
    {"name": "f", "kind": "flatten"},
    {"name": "fc", "kind": "linear", "out": 10, "bias": True},
]


@pytest.fixture
def step():
    return from_layers(LAYERS, "net")


def problems(step):
    with pytest.raises(TraceError) as caught:
        step.verify()
    return str(caught.value)


def test_convolution_sizes():
    # ResNet-18's stem: (224 + 2*3 - 7) // 2 + 1 = 112; 112*112*64*3*7*7 = 118,013,952 MACs
    stem = Conv(1, 3, 224, 224, 64, 7, 7, (2, 2), (3, 3))
    assert (stem.p, stem.q, stem.t, stem.weights, stem.macs) == (112, 112, 12_544, 9_408, 118_013_952)
    # Dilation 2 spreads 3 taps over 5 pixels: 9 - 5 + 1 = 5
    dilated = Conv(2, 4, 9, 9, 6, 3, 3, dilation=(2, 2))
    assert (dilated.p, dilated.macs) == (5, 2 * 25 * 6 * 4 * 9)
    depthwise = Conv(1, 32, 8, 8, 32, 3, 3, (1, 1), (1, 1), groups=32)
    assert (depthwise.weights, depthwise.macs) == (288, 64 * 288)
    assert Gemm(2, 3, 4, 5).macs == 120 and Vector(9).macs == 0 and Pool(1, 1, 4, 4, 2, 2, 2, 2).macs == 0
    assert Tensor("s", (), "state").elements == 1


def test_description_of_dimensions():
    assert describe(Conv(1, 3, 8, 9, 4, 3, 5, (2, 2), (1, 1), (2, 2), 1)) == "N1 C3 8x9 K4 3x5 s2 p1 d2"
    assert describe(Conv(1, 4, 8, 8, 4, groups=4)) == "N1 C4 8x8 K4 1x1 g4"
    assert describe(Gemm(2, 3, 4, 5)) == "2x[3x5]x[5x4]"
    assert describe(Vector(7)) == "7 elements"


def test_a_sound_step_verifies_prints_and_keeps_its_digest(step):
    step.verify()
    lines = str(step).splitlines()
    assert lines[0] == f"step net: {len(step.ops)} ops, {len(step.tensors)} tensors"
    assert lines[1] == "   0 forward     conv         a                            N2 C3 9x9 K8 3x3 s2 p1"
    again = pickle.loads(pickle.dumps(step))
    assert again.digest() == step.digest() and again.ops == step.ops
    assert replace(step, meta={"note": 1}).digest() == step.digest()
    assert replace(step, name="other").digest() != step.digest()
    assert replace(step, update_masks={"a.weight": Mask.of(np.ones((8, 3, 3, 3)))}).digest() != step.digest()
    with pytest.raises(TypeError):
        step.tensors["x"] = None


def test_every_inconsistency_is_listed(step):
    first, second, *rest = step.ops
    wrong = (
        replace(first, phase="sleep", dims=replace(first.dims, groups=2, n=0)),
        replace(second, kind="magic", inputs=("nowhere",)),
        replace(rest[0], dims=Vector(1)),
        *rest[1:],
    )
    text = problems(replace(step, ops=wrong))
    for words in ("op 0 a:sleep: unknown phase 'sleep'", "n = 0 is outside 1..2^40", "unknown kind 'magic'",
                  "unknown tensor 'nowhere'", "needs Conv dimensions, not Vector"):  # fmt: skip
        assert words in text
    assert "no operations" in problems(StepGraph("empty", (), {}))


def test_windows_and_groups_must_fit(step):
    op = step.ops[0]
    text = problems(replace(step, ops=(replace(op, dims=replace(op.dims, groups=2)),)))
    assert "groups = 2 does not divide C = 3" in text
    text = problems(replace(step, ops=(replace(op, dims=replace(op.dims, h=1, w=1, padding=(0, 0))),)))
    assert "window 3x3 does not fit the input 1x1" in text


def test_masks_must_fit_their_parameter(step):
    good = Mask.of(np.ones((8, 3, 3, 3)))
    replace(step, task_masks={"a.weight": good}, update_masks={"fc.weight": Mask.of(np.ones((10, 200)))}).verify()
    assert "has shape (3, 8, 3, 3), the parameter has (8, 3, 3, 3)" in problems(
        replace(step, update_masks={"a.weight": Mask.of(np.ones((3, 8, 3, 3)))})
    )
    assert "task_masks: no convolution or linear op has the parameter 'b'" in problems(
        replace(step, task_masks={"b": good})
    )


def test_many_problems_are_cut_short(step):
    bad = Op("x", "forward", "conv", Vector(1))
    text = problems(replace(step, ops=(bad,) * 30))
    assert text.count("\n") == 21 and "and 10 more" in text
