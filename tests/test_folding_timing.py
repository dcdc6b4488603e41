"""The latencies of an array reach the tiles that dataflows price."""

from __future__ import annotations

import numpy as np
import pytest

from npusim import array_timing, catalogue, npu
from npusim.dataflow import TileGrid
from npusim.graph import PIXELS


@pytest.mark.parametrize("preset", ["gemmini-16x16", "axis-systolic-4x8", "scalesim-example-32x32", "edge-16x16"])
@pytest.mark.parametrize(("flow", "dataflow"), [("dense-os", "OS"), ("dense-is", "WS")])
@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 16, 16), (33, 70, 45)])
def test_a_tile_takes_what_the_array_takes(preset, flow, dataflow, shape):
    machine = npu.load(preset)
    m, k, n = (np.array(size).reshape(1, 1, 1, 1) for size in shape)
    tile = TileGrid(PIXELS, np.ones((1, 1, 1, 1), np.int64), m, k, n, 1, 8, 8)
    cycles = catalogue.load_dataflow(flow).cost(tile, machine).cycles
    assert int(np.asarray(cycles).item()) == array_timing.gemm(dataflow, *shape, machine.array)
