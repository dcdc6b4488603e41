"""What the dataflow files charge for a tile, the numbers that a simulation reports, against RTL."""

from __future__ import annotations

import numpy as np
import pytest
from rtl_points import STRUCTURES, Tile, random_tile
from rtl_simulator import REDUCTION, SYSTOLIC, Measured, mismatches, run

from npusim import catalogue, npu
from npusim.dataflow import MaskGrid, TileCost, TileGrid
from npusim.graph import TAPS

pytestmark = pytest.mark.rtl

MODE_OF = {"dense-os": "dense", "selective-row": "rows", "channel-skipping": "channels"}
ROWS, COLS, REGISTERS, PORT_BYTES = 4, 6, 5, 4
COUNT = 20


def _hardware(overlap: bool) -> npu.Hardware:
    changes = {"array.rows": ROWS, "array.cols": COLS, "array.fold_overlap": overlap, "array.pe_registers": REGISTERS}
    changes |= {
        f"buffers.{name}.{key}": value
        for name in "ab"
        for key, value in (("bytes_per_cycle", PORT_BYTES), ("banks", 1))
    }
    return npu.load("edge-16x16").replace(changes)


def _cost(dataflow: str, tile: Tile, overlap: bool) -> TileCost:
    """The dataflow's cost of a grad_weight tile: dY is left, X is right, unless an operand is held (see below)."""
    m, t, columns = tile.left.shape[0], tile.terms.size, tile.right.shape[0]
    if dataflow == "dense-ws":  # dY is held: its reduction length is on the rows, the X columns stream
        m, t, columns = columns, m, tile.left.shape[1]
    elif dataflow == "dense-is":  # X is held, the dY rows stream
        m, t = tile.left.shape[1], m
    start, sizes = np.zeros(1, np.int64), (np.array([m]), np.array([columns]))
    mask = None if dataflow.startswith("dense") else MaskGrid(tile.mask, start, sizes[0], start, sizes[1])
    axes = [np.full((1, 1, 1), value, np.int64) for value in (1, m, columns // tile.taps, t)]
    grid = TileGrid(TAPS, *axes, taps=tile.taps, a_bits=8, b_bits=8, mask=mask)
    return catalogue.load_dataflow(dataflow).cost(grid, _hardware(overlap))


def _simulated(dataflow: str, tile: Tile, overlap: bool) -> Measured:
    cost = _cost(dataflow, tile, overlap)
    left, right = (cost.b_words, cost.a_words) if dataflow == "dense-ws" else (cost.a_words, cost.b_words)
    writes = cost.outputs if dataflow == "reduction-spatial" else cost.updates
    return Measured(*(int(np.sum(value)) for value in (cost.cycles, left, right, writes)), errors=0)


def _tile(rng: np.random.Generator, i: int, structure: str, **options) -> Tile:
    taps = (1, 3, 9)[i % 3]
    channels = int(rng.integers(1, 25 // taps + 2))
    return random_tile(rng, int(rng.integers(1, 13)), channels, taps, int(rng.integers(1, 20)), structure, **options)


@pytest.mark.parametrize("overlap", [False, True], ids=["serial", "overlap"])
@pytest.mark.parametrize("dataflow", ["dense-os", "dense-ws", "dense-is", "selective-row", "channel-skipping"])
def test_systolic_dataflows(tmp_path, dataflow, overlap):
    rng = np.random.default_rng(6)
    held = dataflow in ("dense-ws", "dense-is")
    options = {"stationary": True} if held else {"mode": MODE_OF[dataflow]}
    structures = ("full",) if dataflow.startswith("dense") else STRUCTURES
    tiles = [
        _tile(rng, 0 if held else i, structures[i % len(structures)], overlap=overlap, **options) for i in range(COUNT)
    ]
    parameters = {"ROWS": ROWS, "COLS": COLS}
    measured = run(tmp_path, SYSTOLIC, parameters, [tile.systolic_text(i) for i, tile in enumerate(tiles)])
    assert mismatches(tiles, [_simulated(dataflow, tile, overlap) for tile in tiles], measured) == []


def test_reduction_spatial_dataflow(tmp_path):
    """The dataflow takes the grouping with the fewest cycles: the RTL runs them all, and the fastest must be equal."""
    rng = np.random.default_rng(7)
    tiles = [_tile(rng, i, STRUCTURES[i % len(STRUCTURES)]) for i in range(COUNT)]
    points = [tile.reduction_text(i) for i, tile in enumerate(tiles)]
    dataflow = catalogue.load_dataflow("reduction-spatial")
    runs = []
    for array in dataflow.cost.__globals__["arrays"](_hardware(False), 8, 8):
        parameters = {"LANES": array.group, "GROUPS": array.groups, "REGISTERS": array.registers}
        parameters |= {"OPERAND_BYTES": 1, "PORT_A_BYTES": PORT_BYTES, "PORT_B_BYTES": PORT_BYTES}
        runs.append(run(tmp_path / str(array.group), REDUCTION, parameters, points))
    fastest = [min(choices, key=lambda one: one.cycles) for choices in zip(*runs, strict=True)]
    fastest = [Measured(one.cycles, one.left_reads, one.right_reads, one.writes, one.errors) for one in fastest]
    simulated = [_simulated("reduction-spatial", tile, False) for tile in tiles]
    assert mismatches(tiles, simulated, fastest) == []
