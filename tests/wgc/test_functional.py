"""Every selective dataflow on numbers: the reference's dW times the mask, by exactly the work that timing counts.

`test_autograd.py` holds all dataflows and structures, and the reference, to PyTorch.
"""

from __future__ import annotations

import numpy as np
import pytest
from examples import random_conv
from functional_cases import DATAFLOWS, TOLERANCE, numbers, random_tiling

from npusim import npu
from npusim.catalogue import load_dataflow
from npusim.functional.execute import execute, im2col, reference
from npusim.graph import Conv, Op
from npusim.mapping.lower import _map
from npusim.mapping.problem import problems
from npusim.masks import Mask


@pytest.fixture(scope="module")
def small():
    return npu.load("edge-16x16").replace({"array.rows": 4, "array.cols": 8, "array.pe_registers": 3})


def _check(dims, mask, dataflow, hw, rng):
    (problem,) = problems(Op("layer", "grad_weight", "conv", dims))
    tiling, (dy, x) = random_tiling(rng, problem), numbers(rng, dims)
    run = execute(dims, mask, dy, x, dataflow, tiling, hw)
    np.testing.assert_allclose(run.dw, reference(dims, dy, x) * mask, **TOLERANCE)
    np.testing.assert_array_equal(run.writes, mask)
    np.testing.assert_array_equal(run.terms, mask * dims.t)
    counts = _map(problem, tiling, dataflow, hw, Mask.of(mask)).counts
    assert (run.macs_done, run.macs_gated) == (counts["macs_done"], counts["macs_gated"])


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


def test_im2col_by_hand():
    # One channel 2x3, window 1x2, padding 1 on columns only: outputs at columns -1..2.
    dims = Conv(1, 1, 2, 3, 1, 1, 2, padding=(0, 1))
    x = np.arange(1.0, 7.0).reshape(1, 1, 2, 3)
    assert im2col(dims, x).tolist() == [[0, 1, 2, 3, 0, 4, 5, 6], [1, 2, 3, 0, 4, 5, 6, 0]]
