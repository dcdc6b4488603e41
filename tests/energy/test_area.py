"""Area by hand."""

from __future__ import annotations

import pytest

from npusim import npu
from npusim.catalogue import load_dataflow
from npusim.energy import area, sram, table


def test_mcu_by_hand():
    machine = npu.load("mcu-8x8")
    result = area.area(machine, table.load("generic-45nm"))
    # PE: int8+int32 MAC 419 um2; registers 3*8 + 32 + 16*8 = 184 bits = 23 bytes of 47.8 um2 = 1099.4 um2.
    # 64 PEs at a density of 0.7.
    assert result.mm2["pe_array"] == pytest.approx(64 * (419 + 1099.4) / 0.7 / 1e6)
    # 63 int32 adders of 137 um2; 8 lanes of 4206 um2; 8 index decoders of 578 um2.
    assert result.mm2["adder_tree"] == pytest.approx(63 * 137 / 0.7 / 1e6)
    assert result.mm2["vector"] == pytest.approx(8 * 4206 / 0.7 / 1e6)
    assert result.mm2["index"] == pytest.approx(8 * 578 / 0.7 / 1e6)
    assert result.mm2["control"] == pytest.approx(8 * 328.2 / 0.7 / 1e6)
    # Buffer A: two banks of 24 KiB with 8-byte words.
    assert result.mm2["sram_a"] == pytest.approx(2 * sram.load().macro(24 * 1024, 64, "lstp", 45).area_mm2)
    assert result.total_mm2 == pytest.approx(sum(result.mm2.values()))
    assert result.node_nm == 45
    assert set(result.sources) == set(result.mm2)
    assert len(result.notes) == 1 and result.notes[0].startswith("buffer mask")


def test_without_the_reduction_spatial_mode_there_is_no_adder_tree():
    machine = npu.load("edge-16x16").replace(pe_registers=0)
    assert area.area(machine, table.load("generic-28nm")).mm2["adder_tree"] == 0


def test_selection_networks_by_hand():
    machine, energy = npu.load("edge-16x16"), table.load("generic-28nm")
    mux, register = energy.mux_bit.area_um2, energy.register_byte.area_um2

    def selection(name):
        found = area.area(machine, energy, dataflow=load_dataflow(name))
        return found.mm2["selection"] * energy.logic.placement_density * 1e6

    # 256 PEs of 16-bit words. Two stages of 2:1; 32 groups of 8 PEs with two edge words for each of two X registers.
    assert selection("reduction-window") == pytest.approx(256 * 2 * 16 * mux + 32 * 4 * 2 * register)
    # 63 multiplexers per bit and PE, two indices of 6 bits; 48 bus words more than columns in each of 16 rows.
    registers = (256 * 2 * 6 + 16 * 48 * 16) / 8
    assert selection("element-gather") == pytest.approx(256 * 63 * 16 * mux + registers * register)
    # Two 16-bit indices per column.
    assert selection("column-set") == pytest.approx(16 * 4 * register)
    assert "selection" not in area.area(machine, energy, dataflow=load_dataflow("reduction-spatial")).mm2
