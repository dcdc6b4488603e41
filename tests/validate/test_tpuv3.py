"""The TPUv3 preset on measured operations."""

from pathlib import Path

import pytest

from npusim import npu
from npusim.errors import ConfigError
from npusim.validate import tpuv3

DATA = Path(__file__).parents[2] / "validation" / "tpuv3" / "layers.csv"


@pytest.fixture(scope="module")
def machine():
    return npu.load("tpuv3")


def test_errors_are_within_the_bounds():
    found = tpuv3.validate(DATA)
    assert found.held
    assert all(row.simulated is not None for row in found.rows)
    stated = {s.group: s.mean_pct for s in found.summaries if s.bound}
    assert set(stated) == {"gemm", "conv", "attention"}
    assert max(stated.values()) < 3


def test_one_tile_by_hand(machine):
    # 450 GB/s at 940 MHz: 141 cycles of latency (150 ns). A: 256*256*4 bytes in 548 cycles, B likewise behind it; two
    # folds of 256 rows and 382 of fill and drain; C as A. The second latency overlaps nothing.
    load = -(-256 * 256 * 4 * 940 // 450_000)
    compute = 2 * 256 + 2 * 128 + 128 - 2
    expected = tpuv3.START_CYCLES + 2 * load + 141 + compute + load + 141
    assert tpuv3.operation_cycles(machine, "gemm", (256, 256, 256)) == expected


@pytest.mark.parametrize(
    ("kind", "small", "large"),
    [
        ("gemm", (256, 256, 256), (256, 256, 512)),
        ("gemm", (4096, 2048, 256), (4096, 4096, 256)),
        ("conv", (8, 56, 56, 64, 64, 3, 1, 1), (16, 56, 56, 64, 64, 3, 1, 1)),
        ("conv", (1, 224, 224, 3, 64, 7, 3, 2), (2, 224, 224, 3, 64, 7, 3, 2)),
        ("softmax", (512, 512), (65536, 512)),
        ("attention", (1, 128, 64), (2, 128, 64)),
    ],
)
def test_more_work_takes_longer(machine, kind, small, large):
    assert tpuv3.operation_cycles(machine, kind, small) < tpuv3.operation_cycles(machine, kind, large)


def test_what_does_not_fit_is_not_simulated(machine, tmp_path):
    path = tmp_path / "large.csv"
    path.write_text("Workload,TPUv3\nattention_12x4096x64,1000\n")
    (row,) = tpuv3.validate(path).rows
    assert row.simulated is None
    assert "do not fit the vector memory" in row.note


def test_wrong_names_are_listed(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("Workload,TPUv3\ngemm_256x256,1000\npool_3,1\nconv_1x4x4x8x8x9x1x1,5\ngemm_0x1x1,1\n")
    with pytest.raises(ConfigError) as error:
        tpuv3.validate(path)
    assert "4 problems" in str(error.value)
    assert "line 2: Workload = 'gemm_256x256': must be one of gemm_MxKxN, conv_" in str(error.value)
