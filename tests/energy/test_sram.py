"""SRAM figures: grid points, interpolation, how well holes are filled, and the edges of the table."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from npusim.energy import kriging, scaling, sram
from npusim.errors import ConfigError


@pytest.fixture(scope="module")
def figures():
    return sram.load()


def test_measured_points_are_reproduced(figures):
    with sram.FIGURES.open(newline="") as file:
        for point in csv.DictReader(file):
            cell = point["cell"].removeprefix("itrs-")
            macro = figures.macro(int(point["size_B"]), int(point["width_b"]), cell, float(point["node_nm"]))
            measured = [float(point[column]) for column in sram.COLUMNS]
            got = [macro.read_pj, macro.write_pj, macro.leakage_mw, macro.area_mm2]
            assert got == pytest.approx(measured, rel=1e-9)
            assert macro.notes == ()


@pytest.mark.parametrize(
    ("column", "limit"), [("rd_pJ", 0.054), ("wr_pJ", 0.037), ("leak_mW", 0.018), ("area_mm2", 0.045)]
)
def test_cross_validation_error(column, limit):
    """Mean error of filled points, one left out and an eighth left out, over all cell types and in each."""
    cells = np.array([point.cell for point in sram.read_points(sram.FIGURES)])
    for errors in (kriging.leave_one_out()[column], kriging.cross_validation(seed=1)[column]):
        assert np.abs(errors).mean() <= limit
        assert all(np.abs(errors[cells == cell]).mean() <= 0.06 for cell in sram.CELLS)


def test_sizes_widths_and_nodes_off_the_grid(figures):
    """CACTI 7.0 runs at places between the table's: mean error of every column 6 % or less, bias 2 %."""
    path = Path(__file__).parents[2] / "validation" / "energy" / "cacti_offgrid.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    errors = np.array([off(figures, row) for row in rows])
    assert len(rows) == 239
    assert (np.abs(errors).mean(axis=0) <= 0.06).all()
    assert (np.abs(errors.mean(axis=0)) <= 0.02).all()


def off(figures, row):
    macro = figures.macro(int(row["size_B"]), int(row["width_b"]), row["cell"], float(row["node_nm"]))
    got = (macro.read_pj, macro.write_pj, macro.leakage_mw, macro.area_mm2)
    return [value / float(row[column]) - 1 for value, column in zip(got, sram.COLUMNS, strict=True)]


def test_closed_form_of_leave_one_out_is_leaving_one_out():
    points = sram.read_points(sram.FIGURES)
    left_out = points[200]
    filled = {point.place: point for point in kriging.fill(points[:200] + points[201:])}
    error = filled[left_out.place].read_pj / left_out.read_pj - 1
    assert error == pytest.approx(kriging.leave_one_out()["rd_pJ"][200], rel=1e-6)


def test_shipped_filled_points_come_from_the_figures():
    shipped, again = sram.read_points(sram.FILLED), kriging.fill(sram.read_points(sram.FIGURES))
    assert len(shipped) == 57
    assert [point.place for point in shipped] == [point.place for point in again]
    assert np.array([p.values for p in shipped]) == pytest.approx(np.array([p.values for p in again]), rel=1e-4)


def test_interpolation_at_twice_the_spacing():
    points = sram.read_points(sram.FIGURES)
    odd = sorted({point.size_bytes for point in points})[1:-1:2]
    kept = [point for point in points if point.size_bytes not in odd]
    coarse = sram.build(kept + kriging.fill(kept))
    errors = []
    for point in points:
        if point.size_bytes in odd:
            macro = coarse.macro(point.size_bytes, point.width_bits, point.cell, point.node_nm)
            errors.append(abs(macro.read_pj / point.read_pj - 1))
    assert np.mean(errors) < 0.07


def test_between_grid_points_by_hand(figures):
    # 45 nm lop, 128 bits: 8 KiB 3.864 pJ, 16 KiB 7.30519... pJ (CACTI). Half way in log(size) is 8 KiB * sqrt(2);
    # the energy there is the geometric mean.
    low, high = figures.macro(8192, 128, "lop", 45), figures.macro(16384, 128, "lop", 45)
    middle = figures.macro(8192 * math.sqrt(2), 128, "lop", 45)
    assert middle.read_pj == pytest.approx(math.sqrt(low.read_pj * high.read_pj))
    # 28 nm lies between 22 and 32 nm at ln(28/22) / ln(32/22) = 0.2412 / 0.3747 = 0.6436 of the way.
    at = {node: figures.macro(16384, 128, "lop", node).read_pj for node in (22, 28, 32)}
    assert at[28] == pytest.approx(at[22] ** (1 - 0.6436) * at[32] ** 0.6436, rel=1e-4)


def test_outside_the_table_is_an_error_that_states_the_range(figures):
    with pytest.raises(ConfigError) as caught:
        figures.macro(4096, 32, "hp", 45)
    assert str(caught.value) == (
        "SRAM bank size in bytes = 4096 is outside the CACTI figures, 8192 to 8388608 (nearest: 8192); "
        'energy.sram_outside = "power-law" of the machine chooses to extrapolate'
    )
    with pytest.raises(ConfigError, match=r"word width in bits = 1024 .* 32 to 512 \(nearest: 512\)"):
        figures.macro(8192, 1024, "hp", 45)
    with pytest.raises(ConfigError) as caught:
        figures.macro(8192, 32, "hp", 14)
    assert str(caught.value) == (
        "node_nm = 14: the SRAM figures cover 22 to 45 nm (nearest: 22); "
        'choose [sram] node_rule = "stillmaker-baas" in the energy table to scale from there'
    )
    with pytest.raises(ConfigError, match="cell = 'sram': must be one of hp, lop, lstp"):
        figures.macro(8192, 32, "sram", 45)


def test_power_law_extends_the_last_slope_and_says_so(figures):
    at = {size: figures.macro(size, 64, "lop", 45).read_pj for size in (8192, 16384)}
    below = figures.macro(4096, 64, "lop", 45, outside=sram.POWER_LAW)
    assert below.read_pj == pytest.approx(at[8192] ** 2 / at[16384])
    assert len(below.notes) == 1 and "extrapolated by the power law" in below.notes[0]
    with pytest.raises(ConfigError, match="the power law is trusted from 1024 to 67108864"):
        figures.macro(512, 64, "lop", 45, outside=sram.POWER_LAW)


def test_leakage_over_node_is_linear_in_node(figures):
    # 28 nm is 0.6 of the way from 22 to 32 nm.
    at = {node: figures.macro(16384, 128, "lop", node).leakage_mw for node in (22, 28, 32)}
    assert at[28] == pytest.approx(28 * (0.4 * at[22] / 22 + 0.6 * at[32] / 32))


def test_one_read_and_one_write_port_cost_cacti_ratios(figures):
    one, two = figures.macro(16384, 128, "lop", 28), figures.macro(16384, 128, "lop", 28, ports="1r1w")
    assert two.read_pj == pytest.approx(1.38 * one.read_pj) and two.area_mm2 == pytest.approx(2.03 * one.area_mm2)
    assert "one read and one write port" in two.source


def test_wires_between_banks(figures):
    # One bank: its wires are in its figures. Four of 0.25 mm2 fill 1 mm2: a quarter of the side along, half across.
    assert sram.wire_mm(1, 1.0) == 0 and sram.wire_mm(4, 1.0) == 0.75
    # Half of the bits toggle.
    assert figures.wire_pj_per_bit_mm("hp", 45) == pytest.approx(0.249489 / 2)
    with pytest.raises(ConfigError, match="node_nm = 14"):
        figures.wire_pj_per_bit_mm("hp", 14)
    shrunk = figures.wire_pj_per_bit_mm("hp", 14, scaling.RULE)
    assert shrunk == pytest.approx(0.155511 / 2 * scaling.energy_factor(22, 14))


def test_stillmaker_baas_scales_from_the_nearest_node_and_says_so(figures):
    base = figures.macro(8192, 64, "hp", 22)
    scaled = figures.macro(8192, 64, "hp", 14, node_rule=scaling.RULE)
    assert scaled.read_pj == pytest.approx(base.read_pj * scaling.energy_factor(22, 14))
    assert scaled.area_mm2 == pytest.approx(base.area_mm2 * scaling.area_factor(22, 14))
    assert "scaled from 22 to 14 nm" in scaled.notes[0]


def test_scaling_by_hand():
    # HP45 at 0.9 V: 1.018*0.81 - 0.3107*0.9 + 0.1539 = 0.69885; HP32: 0.8367*0.81 - 0.4341*0.9 + 0.1701 = 0.45714.
    assert scaling.energy_factor(45, 32) == pytest.approx(0.45714 / 0.69885, rel=1e-4)
    assert scaling.area_factor(45, 32) == pytest.approx(0.46)
    assert scaling.energy_factor(45, 45) == 1
    with pytest.raises(ConfigError, match="node_nm = 5: Stillmaker-Baas scaling covers 7 to 90 nm"):
        scaling.energy_factor(45, 5)
