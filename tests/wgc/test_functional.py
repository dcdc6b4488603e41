"""Every selective dataflow on numbers: dW is autograd's dW times the mask, by exactly the work that timing counts."""

from __future__ import annotations

import numpy as np
import pytest
from examples import random_conv

from npusim import npu, structure
from npusim.catalogue import load_dataflow
from npusim.functional.execute import execute, im2col, reference
from npusim.graph import Conv, Op
from npusim.mapping.lower import _map
from npusim.mapping.problem import problems
from npusim.mapping.tiling import Tiling
from npusim.masks import Mask

DATAFLOWS = (
    "selective-row", "channel-skipping", "kernel-packed", "column-set", "element-gather", "ws-selective",
    "reduction-spatial", "reduction-window",
)  # fmt: skip
STRUCTURES = ("element", "kernel", "output_channel", "input_channel", "tap", "column_set", "n_m", "layer")
# Sums of up to some hundred products of standard normal numbers in single precision.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def small():
    return npu.load("edge-16x16").replace({"array.rows": 4, "array.cols": 8, "array.pe_registers": 3})


def _numbers(rng, dims):
    dy = rng.standard_normal((dims.n, dims.k, dims.p, dims.q)).astype(np.float32)
    return dy, rng.standard_normal((dims.n, dims.c, dims.h, dims.w)).astype(np.float32)


def _tiling(rng, problem):
    """Any extents: whole image rows, or parts of one, or several images, as the tiling search makes them."""
    n, p, q = [(1, 1, int(rng.integers(1, problem.q + 1))), (1, int(rng.integers(1, problem.p + 1)), problem.q),
               (int(rng.integers(1, problem.n + 1)), problem.p, problem.q)][int(rng.integers(3))]  # fmt: skip
    if problem.groups > 1 and rng.integers(2):
        return Tiling(int(rng.integers(1, problem.groups + 1)), problem.m, problem.c, n, p, q, bool(rng.integers(2)))
    m, c = int(rng.integers(1, problem.m + 1)), int(rng.integers(1, problem.c + 1))
    return Tiling(1, m, c, n, p, q, bool(rng.integers(2)))


def _check(dims, mask, dataflow, hw, rng):
    (problem,) = problems(Op("layer", "grad_weight", "conv", dims))
    tiling, (dy, x) = _tiling(rng, problem), _numbers(rng, dims)
    run = execute(dims, mask, dy, x, dataflow, tiling, hw)
    np.testing.assert_allclose(run.dw, reference(dims, dy, x) * mask, **TOLERANCE)
    np.testing.assert_array_equal(run.writes, mask)
    np.testing.assert_array_equal(run.terms, mask * dims.t)
    counts = _map(problem, tiling, dataflow, hw, Mask.of(mask)).counts
    assert (run.macs_done, run.macs_gated) == (counts["macs_done"], counts["macs_gated"])


@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize("name", DATAFLOWS)
def test_every_dataflow_on_every_structure(small, name, kind):
    rng = np.random.default_rng([DATAFLOWS.index(name), STRUCTURES.index(kind)])
    for _ in range(3):
        dims = random_conv(rng, groups=False)
        shape = (dims.k, dims.c, dims.r, dims.s)
        mask = structure.generate(shape, structure.Structure(kind, rows=4, m=4), rng.random(), int(rng.integers(99)))
        _check(dims, mask, load_dataflow(name), small, rng)


@pytest.mark.parametrize("name", DATAFLOWS)
def test_random_shapes_with_groups(small, name):
    rng = np.random.default_rng(DATAFLOWS.index(name))
    for _ in range(10):
        dims = random_conv(rng)
        mask = rng.random((dims.k, dims.c // dims.groups, dims.r, dims.s)) < rng.random()
        _check(dims, mask, load_dataflow(name), small, rng)


@pytest.mark.parametrize(
    "stride, padding, dilation", [(1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 2, 2), (1, 0, 1), (2, 0, 1)]
)
def test_windows_of_shared_words_hold_at_every_edge(small, stride, padding, dilation):
    rng = np.random.default_rng(7)
    for h, w, s in ((9, 8, 3), (8, 7, 2), (7, 11, 3)):
        dims = Conv(2, 3, h, w, 5, 3, s, (stride,) * 2, (padding,) * 2, (dilation,) * 2)
        mask = rng.random((5, 3, 3, s)) < 0.5
        _check(dims, mask, load_dataflow("reduction-window"), small, rng)


@pytest.mark.parametrize("name", ["reduction-window", "column-set"])
def test_equal_to_autograd(small, name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(11)
    dims = Conv(2, 6, 9, 10, 12, 3, 3, stride=(2, 1), padding=(1, 1), dilation=(1, 2))
    dy, x = _numbers(rng, dims)
    weight = torch.zeros(12, 6, 3, 3, requires_grad=True)
    y = torch.nn.functional.conv2d(torch.from_numpy(x), weight, stride=(2, 1), padding=1, dilation=(1, 2))
    y.backward(torch.from_numpy(dy))
    mask = rng.random((12, 6, 3, 3)) < 0.3
    run = execute(dims, mask, dy, x, load_dataflow(name), Tiling(1, 5, 4, 1, 2, dims.q, False), small)
    np.testing.assert_allclose(run.dw, weight.grad.numpy() * mask, **TOLERANCE)


def test_im2col_by_hand():
    # One channel 2x3, window 1x2, padding 1 on columns only: outputs at columns -1..2.
    dims = Conv(1, 1, 2, 3, 1, 1, 2, padding=(0, 1))
    x = np.arange(1.0, 7.0).reshape(1, 1, 2, 3)
    assert im2col(dims, x).tolist() == [[0, 1, 2, 3, 0, 4, 5, 6], [1, 2, 3, 0, 4, 5, 6, 0]]
