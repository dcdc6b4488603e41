"""Energy tables: scaling between the shipped ones, partial tables of users, errors."""

from __future__ import annotations

import tomllib

import pytest

from npusim import catalogue, npu
from npusim.energy import account, scaling, table
from npusim.errors import ConfigError


def test_horowitz_figures():
    t = table.load("generic-45nm")
    # int8 0.2 + 0.1; fp16 1.1 + 0.4; fp32 3.7 + 0.9 (Horowitz, ISSCC 2014).
    assert (t.mac["int8+int32"].pj, t.mac["fp16+fp16"].pj, t.mac["fp32+fp32"].pj) == pytest.approx((0.3, 1.5, 4.6))


def test_28_nm_is_45_nm_scaled():
    old, new = table.load("generic-45nm"), table.load("generic-28nm")
    energy, area = scaling.energy_factor(45, 28), scaling.area_factor(45, 28)
    for group in ("mac", "adder", "vector"):
        rows = getattr(old, group)
        assert set(rows) == set(getattr(new, group))
        for key, row in rows.items():
            assert new.row(group, key).pj == pytest.approx(row.pj * energy, rel=0.01)
            assert new.row(group, key).area_um2 == pytest.approx(row.area_um2 * area, rel=0.01)
    assert new.register_byte.pj == pytest.approx(old.register_byte.pj * energy, rel=0.01)
    assert new.index_decode.pj == pytest.approx(old.index_decode.pj * energy, rel=0.01)
    assert new.dram == old.dram


def test_low_confidence_of_lpddr4_is_stated():
    assert table.load("generic-28nm").dram["LPDDR4"].confidence == "low"


def test_a_partial_table_overrides_its_base_key_by_key(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nbase = "generic-28nm"\n'
        '[dram.LPDDR4]\npj_per_bit = 4.0\nsource = "measured on our board"\nconfidence = "high"\n'
        '[dram.LPDDR4X]\npj_per_bit = 3.0\nsource = "vendor"\nconfidence = "medium"\n'
        "[gating]\nfraction = 0.25\n"
    )
    mine, base = table.load(path), table.load("generic-28nm")
    assert (mine.name, mine.node_nm) == ("mine", 28)
    assert mine.dram["LPDDR4"].pj_per_bit == 4.0
    assert mine.dram["LPDDR4X"].source == "vendor"
    assert mine.gating.fraction == 0.25 and mine.gating.source == base.gating.source
    assert mine.mac == base.mac and mine.dram["HBM2"] == base.dram["HBM2"]


def test_a_base_of_another_node_is_scaled_when_that_is_chosen(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nbase = "generic-28nm"\nnode_nm = 16\n')
    with pytest.raises(ConfigError) as caught:
        table.load(path)
    assert str(caught.value).startswith(
        f"{path}: node_nm = 16, but the prices of base = 'generic-28nm' are those of 28"
    )
    own = '[adder.int32]\npj = 0.01\narea_um2 = 9.0\nsource = "ours"\nconfidence = "high"\n'
    path.write_text(path.read_text() + own + '[sram]\nnode_rule = "stillmaker-baas"\n')
    mine, base = table.load(path), table.load("generic-28nm")
    energy, area = scaling.energy_factor(28, 16), scaling.area_factor(28, 16)
    assert 0.3 < energy < 0.6 and 0.3 < area < 0.6
    assert mine.mac["fp16+fp32"].pj == pytest.approx(energy * base.mac["fp16+fp32"].pj)
    assert mine.mac["fp16+fp32"].area_um2 == pytest.approx(area * base.mac["fp16+fp32"].area_um2)
    assert "28 to 16 nm) of: x0.518" in mine.mac["fp16+fp32"].source
    assert mine.adder["int32"].pj == 0.01 and mine.adder["int32"].source == "ours"
    assert mine.control.address_counters == base.control.address_counters
    assert mine.clock.pj_per_register_bit == pytest.approx(energy * base.clock.pj_per_register_bit)
    assert (mine.dram, mine.gating, mine.logic) == (base.dram, base.gating, base.logic)
    assert mine.scaled.startswith("logic scaled: x0.")
    edge = npu.load("edge-16x16").replace({"energy.node_nm": 16})
    notes = account.prices(edge, mine).notes
    assert notes[-1] == mine.scaled
    assert sum("SRAM scaled from 22 to 16 nm (Stillmaker-Baas" in note for note in notes) == 4


def test_errors_of_tables(tmp_path, monkeypatch):
    path = tmp_path / "energy" / "mine.toml"
    path.parent.mkdir()
    path.write_text(
        'name = "mine"\nbase = "generic-28nm"\n[dram.LPDDR4]\npj_per_bit = -1\n[mac."fp8+fp16"]\npj = 1.0\n'
    )
    with pytest.raises(ConfigError) as caught:
        table.load(path)
    assert str(caught.value) == (
        f"{path}: 4 problems\n"
        "  mac.fp8+fp16.source: missing\n"
        "  mac.fp8+fp16.confidence: missing\n"
        "  mac.fp8+fp16.area_um2: missing\n"
        "  dram.LPDDR4.pj_per_bit = -1: must be greater than or equal to 0"
    )
    path.write_text('name = "mine"\nbase = "mine"\n')
    monkeypatch.setenv("NPUSIM_PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="base tables form a circle"):
        table.load("mine")


def test_a_missing_row_lists_the_rows():
    with pytest.raises(ConfigError) as caught:
        table.load("generic-45nm").row("dram", "LPDDR3")
    assert str(caught.value) == (
        "energy table 'generic-45nm' has no row dram.'LPDDR3' (did you mean 'LPDDR5'?); "
        "it has: LPDDR4, LPDDR5, DDR4, HBM2, HyperRAM"
    )


@pytest.mark.parametrize("name", ["generic-45nm", "generic-28nm"])
def test_every_number_has_a_source_and_a_confidence(name):
    def walk(value, inherited):
        own = inherited or {"source", "confidence"} <= set(value)
        for key, item in value.items():
            if isinstance(item, dict):
                walk(item, own)
            elif isinstance(item, int | float) and key != "node_nm":
                assert own, key

    walk(tomllib.loads(catalogue.find("energy", name).read_text()), False)
