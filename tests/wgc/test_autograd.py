"""dW of every selective dataflow and mask structure against PyTorch's autograd, on random convolutions and tilings."""

from __future__ import annotations

import numpy as np
import pytest
from functional_cases import DATAFLOWS, STRUCTURES, TOLERANCE, numbers, random_tiling

from npusim import npu, structure
from npusim.catalogue import load_dataflow
from npusim.functional.execute import execute, reference
from npusim.graph import Conv, Op
from npusim.mapping.lower import _map
from npusim.mapping.problem import problems
from npusim.masks import Mask

torch = pytest.importorskip("torch")
QUICK, LONG = 1, 12


@pytest.fixture(scope="module")
def small():
    return npu.load("edge-16x16").replace({"array.rows": 4, "array.cols": 8, "array.pe_registers": 3})


def _convolution(rng) -> Conv:
    """Any window, stride, padding, dilation; one group, several, or depthwise with one or two rows per channel."""
    r, s, stride_h, stride_w, dil_h, dil_w = (int(v) for v in rng.integers(1, (4, 4, 4, 4, 3, 3)))
    pad_h, pad_w = (int(v) for v in rng.integers(0, 3, 2))
    groups = int(rng.choice([1, 2, 5]))
    k, c = (int(v) for v in rng.integers(1, (14, 6)))
    if rng.integers(3) == 0:
        groups, k, c = int(rng.integers(2, 24)), int(rng.integers(1, 3)), 1
    n, h, w = (int(v) for v in rng.integers((1, 5, 5), (4, 13, 13)))
    return Conv(
        n, groups * c, h, w, groups * k, r, s, (stride_h, stride_w), (pad_h, pad_w), (dil_h, dil_w), groups,
    )  # fmt: skip


def _autograd(dims: Conv, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dW of torch.nn.functional.conv2d in single precision, [K, C/G, R, S]."""
    weight = torch.zeros(dims.k, dims.c // dims.groups, dims.r, dims.s, requires_grad=True)
    y = torch.nn.functional.conv2d(
        torch.from_numpy(x), weight, None, dims.stride, dims.padding, dims.dilation, dims.groups
    )
    y.backward(torch.from_numpy(dy))
    return weight.grad.numpy()


def _mask(rng, kind: str, dims: Conv) -> np.ndarray:
    form = structure.Structure(kind, rows=4, m=4, per_group=dims.k // dims.groups)
    shape = (dims.k, dims.c // dims.groups, dims.r, dims.s)
    return structure.generate(shape, form, rng.random(), int(rng.integers(99)))


def _check(rng, name: str, kind: str, hw) -> None:
    dims = _convolution(rng)
    mask, (dy, x) = _mask(rng, kind, dims), numbers(rng, dims)
    (problem,) = problems(Op("layer", "grad_weight", "conv", dims))
    tiling, flow = random_tiling(rng, problem), load_dataflow(name)
    run = execute(dims, mask, dy, x, flow, tiling, hw)
    np.testing.assert_allclose(run.dw, _autograd(dims, dy, x) * mask, **TOLERANCE, err_msg=f"{dims} {tiling}")
    # Each selected element is written once, from all its terms; nothing else is computed.
    np.testing.assert_array_equal(run.writes, mask)
    np.testing.assert_array_equal(run.terms, mask * dims.t)
    counts = _map(problem, tiling, flow, hw, Mask.of(mask)).counts
    assert (run.macs_done, run.macs_gated) == (counts["macs_done"], counts["macs_gated"]), f"{dims} {tiling}"


@pytest.mark.parametrize("count", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize("name", DATAFLOWS)
def test_every_dataflow_on_every_structure(small, name, kind, count):
    rng = np.random.default_rng([DATAFLOWS.index(name), STRUCTURES.index(kind), count])
    for _ in range(count):
        _check(rng, name, kind, small)


def test_the_reference_is_autograd():
    rng = np.random.default_rng(8)
    for _ in range(20):
        dims = _convolution(rng)
        dy, x = numbers(rng, dims)
        np.testing.assert_allclose(reference(dims, dy, x), _autograd(dims, dy, x), **TOLERANCE)
