"""SRAM against CACTI and layers against mappers: figures, bounds, mistakes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from npusim.errors import ConfigError
from npusim.validate import energy, mappers

HERE = Path(__file__).parents[2] / "validation"
HEADER = "node_nm,size_B,width_b,cell,rd_pJ,wr_pJ,leak_mW,area_mm2\n"


def test_bounds_hold_on_macros_off_the_grid_and_left_out():
    found = energy.validate(HERE / "energy" / "cacti_offgrid.csv")
    assert found.held and len(found.summaries) == 8
    assert [s.simulated for s in found.summaries] == [239] * 4 + [438] * 4
    assert all(s.mean_pct > 1 for s in found.summaries)


def test_a_macro_outside_the_table_is_not_simulated(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + "45,4096,32,itrs-hp,4,4,4,0.02\n45,8192,32,itrs-hp,4.65953,4.05939,4.60643,0.0256655\n")
    first = [row for row in energy.validate(path).rows if row.group == "CACTI 7.0 read energy"]
    assert first[0].simulated is None and "(nearest: 8192)" in first[0].note
    assert first[1].simulated == pytest.approx(4.65953)


def test_mistakes_of_a_file_are_listed(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + "45,big,32,sram,4,4,0,0.02\n")
    with pytest.raises(ConfigError) as caught:
        energy.validate(path)
    assert "size_B = 'big': must be a number, more than 0" in str(caught.value)
    assert "cell = 'sram': must be hp, lop, lstp" in str(caught.value)
    assert "leak_mW = '0': must be a number, more than 0" in str(caught.value)
    with pytest.raises(ConfigError, match="needs --configs"):
        mappers.validate(HERE / "mappers" / "layers.csv")


@pytest.fixture(scope="module")
def points():
    return mappers.Points(HERE / "mappers" / "configs")


def test_the_machine_of_the_mappers_prices_nothing_that_they_leave_out(points):
    point = points.of("conv4_2", 16, 16)
    spent = {name for name, pj in point.pj.items() if pj}
    assert spent == {"mac", "sram_a", "sram_b", "sram_accumulator", "dram_access"}
    # 8 pJ/bit on every byte moved; 0.887 pJ per MAC.
    assert point.pj["dram_access"] == pytest.approx(64 * point.dram_bytes)
    assert point.pj["mac"] == pytest.approx(0.887 * 115605504)
    # X 256 x 14 x 14, W 256 x 256 x 9, Y 256 x 14 x 14, two bytes each.
    assert point.least_bytes == 2 * (2 * 256 * 14 * 14 + 256 * 256 * 9)


def test_a_layer_that_moves_every_tensor_about_once_costs_what_timeloop_says(points):
    assert points.of("wg_gemm_conv4_2", 16, 16).pj_per_mac == pytest.approx(2.150, rel=0.06)


def test_every_difference_is_explained_by_its_own_numbers(points):
    spec = importlib.util.spec_from_file_location("crosscheck", HERE / "energy_crosscheck.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    point, frugal = points.of("gemm512", 16, 16), points.of("gemm512", 16, 16, "energy")
    assert frugal.pj_per_mac <= point.pj_per_mac
    again = (point.dram_bytes - point.least_bytes) * 64 / point.macs
    (reason,) = page.explanation(point, frugal, 524288, 524288, 1.913)
    moved = f"npusim moves {point.dram_bytes / 1e6:.2f} MB, 1.57 is the least"
    assert reason.startswith(f"DRAM, +{again:.2f} pJ/MAC: {moved}")
    # 3 pJ/MAC above npusim's work on the chip are 3 / 64 bytes per MAC.
    dear = page.on_chip(point) + 3
    assert f"implied traffic {3 / 64 * 512**3 / 1e6:.1f} MB" in page.explanation(point, frugal, 524288, 524288, dear)[0]
    assert page.explanation(point, frugal, 5242880, 524288, 5)[0].startswith("array: its mapping takes 10.0 times")
    # A mapper that could hardly move the tensors: what it has left for the chip is less than npusim's MAC.
    assert page.explanation(point, frugal, 524288, 524288, 1.0)[-1].startswith("chip, ")
