"""Gemmini's command model on whole GEMMs: cycles within the bounds, DMA traffic exactly as the RTL counted it."""

import csv
from pathlib import Path

import pytest

from npusim.errors import ConfigError
from npusim.validate import gemmini
from npusim.validate.gemmini_model import Gemmini, matmul_layer, memory, run

DATA = Path(__file__).parents[2] / "validation" / "gemmini" / "end_to_end.csv"


def test_cycles_are_within_the_bounds():
    found = gemmini.validate(DATA)
    (summary,) = found.summaries
    assert found.held
    assert summary.simulated == summary.rows == 42
    assert summary.mean_pct < 0.5
    assert summary.max_pct < 3


def test_bytes_are_those_of_the_rtl():
    with DATA.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        m, k, n, ti, tj, tk, latency = (
            int(row[c]) for c in ("M", "K", "N", "tile_i", "tile_j", "tile_k", "memory_latency")
        )
        if m * k * n > 2**24:
            continue
        result = run(matmul_layer(m, k, n, (ti, tj, tk), 4), Gemmini(), memory(latency))
        assert result.read_bytes == int(row["dram_read_bytes"]), row
        assert result.written_bytes == int(row["dram_written_bytes"]), row


def test_one_block_by_hand():
    # 8 cycles of queues, 6 commands; B and A: 32 requests of which 16 fly, 27 cycles each; 16 rows of preload and 16 of
    # compute, 38 through the mesh; 64 beats out and one more latency. The RTL took 263.
    assert gemmini.end_to_end(16, 16, 16, (1, 1, 1), 20) == 263


def test_a_longer_latency_never_helps():
    cycles = [gemmini.end_to_end(48, 100, 80, (2, 2, 3), latency) for latency in (5, 20, 50, 100, 400)]
    assert cycles == sorted(cycles)


@pytest.mark.parametrize(("tile", "what"), [((8, 1, 120), "operands"), ((8, 5, 1), "sums")])
def test_a_tile_must_fit(tile, what):
    with pytest.raises(ConfigError, match=what):
        gemmini.end_to_end(4096, 4096, 4096, tile, 20)
