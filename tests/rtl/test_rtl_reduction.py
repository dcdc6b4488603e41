"""The reduction-spatial array in RTL against reduction_grid: cycles, reads, writes, and every count it reports."""

from __future__ import annotations

from pathlib import Path

import pytest
import rtl_expected
from rtl_points import Tile, reduction_tiles
from rtl_simulator import REDUCTION, mismatches, run

from npusim.reduction_kernels import ReductionArray

pytestmark = pytest.mark.rtl

# (PEs per group, groups, registers, operand bytes, port A bytes, port B bytes), points, blocks per tile at most.
ARRAYS = [
    (ReductionArray(1, 1, 1, 1, 1, 1), 16, 3),
    (ReductionArray(1, 7, 4, 2, 1, 1), 16, 2),
    (ReductionArray(2, 5, 3, 2, 3, 5), 24, 3),
    (ReductionArray(4, 2, 8, 1, 4, 4), 40, 3),
    (ReductionArray(4, 4, 4, 4, 6, 64), 24, 3),
    (ReductionArray(8, 2, 16, 1, 8, 2), 24, 2),
    (ReductionArray(8, 8, 8, 1, 16, 16), 16, 2),
    (ReductionArray(64, 1, 4, 2, 32, 16), 8, 2),
]
NIGHTLY = [
    (ReductionArray(group, groups, registers, operand, port_a, port_b), 64, 3)
    for group, groups in ((1, 4), (2, 2), (4, 3), (8, 4), (16, 4), (32, 1))
    for registers in (1, 5, 16)
    for operand, port_a, port_b in ((1, 1, 16), (2, 8, 3), (4, 16, 4))
]


def _compare(folder: Path, hardware: ReductionArray, tiles: list[Tile], mutation: int = 0) -> list[str]:
    parameters = {
        "LANES": hardware.group,
        "GROUPS": hardware.groups,
        "REGISTERS": hardware.registers,
        "OPERAND_BYTES": hardware.operand_bytes,
        "PORT_A_BYTES": hardware.port_a_bytes,
        "PORT_B_BYTES": hardware.port_b_bytes,
        "MUTATION": mutation,
    }
    measured = run(folder, REDUCTION, parameters, [tile.reduction_text(i) for i, tile in enumerate(tiles)])
    return mismatches(tiles, [rtl_expected.reduction(tile, hardware) for tile in tiles], measured)


@pytest.mark.parametrize(("hardware", "count", "blocks"), ARRAYS)
def test_cycles_and_accesses_equal_rtl(tmp_path, hardware, count, blocks):
    tiles = reduction_tiles(hardware.group, hardware.groups, hardware.registers, count, blocks, seed=1)
    assert _compare(tmp_path, hardware, tiles) == []


@pytest.mark.slow
@pytest.mark.parametrize(("hardware", "count", "blocks"), NIGHTLY)
def test_nightly_grid_equals_rtl(tmp_path, hardware, count, blocks):
    tiles = reduction_tiles(hardware.group, hardware.groups, hardware.registers, count, blocks, seed=2)
    assert _compare(tmp_path, hardware, tiles) == []


MUTATIONS = {
    1: "the next batch's load starts one cycle late",
    2: "a batch takes one cycle more than its last element",
    3: "a pass ends one cycle late",
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=MUTATIONS.values())
def test_an_off_by_one_in_the_rtl_is_caught(tmp_path, mutation):
    hardware = ReductionArray(4, 2, 8, 1, 4, 4)
    assert _compare(tmp_path, hardware, reduction_tiles(4, 2, 8, 40, 3, seed=1), mutation)
