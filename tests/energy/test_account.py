"""Accounting: every counter priced exactly once, components add up, numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from npusim import npu
from npusim.counters import COUNTERS, index
from npusim.energy import account, area, sram, table
from npusim.errors import ConfigError


@pytest.fixture(scope="module")
def figures():
    return sram.load()


@pytest.fixture(scope="module")
def edge():
    return npu.load("edge-16x16")


@pytest.fixture(scope="module")
def numbers(edge):
    return table.load(edge.energy.table)


def one(counter, amount=1):
    counts = np.zeros((1, len(COUNTERS)), dtype=np.int64)
    counts[0, index(counter)] = amount
    return counts


# What costs nothing on a machine without crossbars.
FREE = ("macs_skipped", "macs_crossbar", "cell_reads", "dac_drives", "adc_samples", "shift_adds", "cell_writes")
NO_TIME = np.zeros(1, dtype=np.int64)
BUFFER_BYTES = [f"{name}_{way}_bytes" for name in area.BUFFERS for way in ("read", "write")]


@pytest.mark.parametrize("counter", COUNTERS)
def test_every_counter_is_priced_exactly_once(counter, edge, numbers, figures):
    """Once per component: a buffer's bytes pay the macro and, apart, the wires that join its banks."""
    priced = account.prices(edge, numbers, figures)
    mine = [action for action in priced.actions if action.work == counter]
    assert len({action.component for action in mine}) == len(mine) == (2 if counter in BUFFER_BYTES else 1)
    energy = account.apply(one(counter, 1000), NO_TIME, priced)
    booked = {name: pj for name, pj in zip(energy.components, energy.pj[0], strict=True) if pj}
    assert booked == {action.component: pytest.approx(1000 * action.pj) for action in mine if action.pj}
    free = counter in FREE or all(action.component == "sram_wires" for action in mine)
    assert (not booked) == free


def test_crossbars_are_priced_where_there_are_any(figures):
    machine = npu.load("reram-128x128")
    priced = account.prices(machine, table.load(machine.energy.table), figures)
    free = {price.work for price in priced.actions if not price.pj and price.component != "sram_wires"}
    assert free == {"macs_skipped", "macs_crossbar"}
    assert [price.component for price in priced.actions if price.work == "cell_writes"] == ["cell_write"]
    assert priced.confidence["cell_write"] == "low"
    assert "ISAAC" in priced.sources["crossbar"]
    # 16384 cells, 128 drivers and one converter with its shift-adder: 25.1 + 21.2 + 1260 um2.
    assert area.area(machine, table.load(machine.energy.table), figures).mm2["crossbar"] == pytest.approx(
        131072 * (16384 * 0.00153 + 128 * 0.166 + 1260) / 1e6
    )
    with pytest.raises(ConfigError, match=r"energy table 'generic-28nm' has no row crossbar\.'cell_read'"):
        account.prices(machine, table.load("generic-28nm"), figures)


def test_every_price_has_work_and_a_component(edge, numbers, figures):
    priced = account.prices(edge, numbers, figures)
    assert {action.work for action in priced.actions} == {*COUNTERS, account.CYCLES}
    names = [str(action) for action in priced.actions]
    assert len(names) == len(set(names))
    none = {"dram_activate", "dram_background"}
    assert {action.component for action in priced.actions} == set(account.COMPONENTS) - none


def test_components_and_actions_sum_to_the_total(edge, numbers, figures):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 10**9, size=(50, len(COUNTERS)))
    cycles = rng.integers(0, 10**9, size=50)
    energy = account.account(counts, cycles, edge, numbers, figures)
    by_hand = 0.0
    for action in energy.prices.actions:
        amount = cycles if action.work == account.CYCLES else counts[:, index(action.work)]
        by_hand += float(amount.sum()) * action.pj
    assert energy.total_pj == pytest.approx(by_hand, rel=1e-12)
    assert energy.by_action.sum(axis=1) == pytest.approx(energy.pj.sum(axis=1), rel=1e-12)
    assert energy.pj.shape == (50, len(account.COMPONENTS))
    assert (energy.pj >= 0).all()


def test_by_hand(edge, numbers, figures):
    def pj(counter, amount, machine=edge):
        return account.account(one(counter, amount), NO_TIME, machine, numbers, figures).total_pj

    # fp16+fp32 at 28 nm: 1.04 pJ; gated at a tenth of it; all of it without gating.
    assert pj("macs_done", 10) == pytest.approx(10.4)
    assert pj("macs_gated", 10) == pytest.approx(1.04)
    assert pj("macs_gated", 10, edge.replace(gating=False)) == pytest.approx(10.4)
    # LPDDR4: 9.2 pJ/bit = 73.6 pJ/byte.
    assert pj("dram_read_bytes", 32) == pytest.approx(32 * 73.6)
    # Buffer A: 8 banks of 12 KiB with 16-byte words: 128 bytes are one read of each bank.
    bank = figures.macro(12 * 1024, 128, "lop", 28)
    # They fill a square; bits travel 0.75 of its side: half of them toggle at 0.1015 pJ/mm (lop, 22 and 32 nm: 0.10448
    # and 0.099934, 0.6436 of the way in the logarithm).
    wires = 1024 * 0.75 * (8 * bank.area_mm2) ** 0.5 * 0.5 * 0.10448 ** (1 - 0.6436) * 0.099934**0.6436
    assert pj("a_read_bytes", 128) == pytest.approx(8 * bank.read_pj + wires, rel=1e-5)
    assert pj("a_write_bytes", 128) == pytest.approx(8 * bank.write_pj + wires, rel=1e-5)


def test_clock_and_control_by_hand(edge, numbers, figures):
    # A PE: 3 operands of 16 bits, a sum of 32, 16 words of dY of 16 bits: 336 bits, 256 PEs; 16 lanes with 3 x 32 bits.
    bits = 256 * 336 + 16 * 96
    assert area.register_bits(edge) == bits == 87552
    energy = account.account(np.zeros((1, len(COUNTERS)), np.int64), np.array([1000]), edge, numbers, figures)
    clock = energy.pj[0, account.COMPONENTS.index("clock")]
    assert clock == pytest.approx(1000 * (bits * 0.000735 + 8 * 0.201))


def test_leakage_by_hand(edge, numbers, figures):
    counts = np.zeros((2, len(COUNTERS)), dtype=np.int64)
    energy = account.account(counts, np.array([800, 1600]), edge, numbers, figures)
    # 800 cycles at 800 MHz are 1000 ns; 1 mW x 1 ns = 1 pJ.
    logic_mw = sum(area.logic_um2(edge, numbers).values()) / 1e6 * 12.0
    sram_mw = sum(m.leakage_mw for m in area.memories(edge, numbers, figures).values())
    leakage = energy.pj[:, account.COMPONENTS.index("leakage")]
    assert leakage == pytest.approx([1000 * (logic_mw + sram_mw), 2000 * (logic_mw + sram_mw)])


def test_no_ops_cost_nothing(edge, numbers, figures):
    empty = account.account(np.zeros((0, len(COUNTERS)), np.int64), np.zeros(0, np.int64), edge, numbers, figures)
    assert empty.total_pj == 0


def test_low_confidence_and_extrapolation_are_in_the_provenance(edge, numbers, figures):
    lines = account.account(one("macs_done"), NO_TIME, edge, numbers, figures).provenance()
    assert lines[0] == "energy table generic-28nm, 28 nm"
    assert any(line.startswith("dram_access: flat pJ/bit of LPDDR4: IDD4R") and "(low confi" in line for line in lines)
    assert not any(line.startswith("note") for line in lines)
    mcu = npu.load("mcu-8x8")
    priced = account.prices(mcu, table.load(mcu.energy.table), figures)
    assert len(priced.notes) == 1 and priced.notes[0].startswith("buffer mask: SRAM bank size in bytes = 4096")
    assert priced.confidence["sram_mask"] == "low" and priced.confidence["sram_a"] == "medium"


def test_a_buffer_that_cannot_be_priced_is_named_with_the_nearest_that_can(edge, numbers, figures):
    strict = numbers.model_copy(update={"sram": table.Sram(outside="error")})
    with pytest.raises(ConfigError) as caught:
        account.prices(edge.replace({"buffers.mask.bytes": 4096}), strict, figures)
    assert str(caught.value).startswith(
        "buffers.mask (bytes = 4096, bytes_per_cycle = 8, banks = 1): SRAM bank size in bytes = 4096 is outside the "
        "CACTI figures, 8192 to 8388608 (nearest: 8192)"
    )


def test_a_users_buffer_numbers_replace_the_figures(edge, numbers, figures):
    row = table.BufferRow(
        read_pj_per_byte=1.0, write_pj_per_byte=2.0, leakage_mw=3.0, area_mm2=4.0, source="ours", confidence="high"
    )
    mine = numbers.model_copy(update={"sram": table.Sram(outside="error", buffers={"a": row})})
    priced = account.prices(edge, mine, figures)
    prices = {str(action): action.pj for action in priced.actions}
    assert (prices["sram_a.read"], prices["sram_a.write"], prices["sram_wires.a_read"]) == (1.0, 2.0, 0.0)
    assert priced.sources["sram_a"] == "ours"
    assert area.area(edge, mine, figures).mm2["sram_a"] == 4.0


def test_table_and_machine_must_agree_on_the_node(edge, figures):
    with pytest.raises(ConfigError) as caught:
        account.prices(edge, table.load("generic-45nm"), figures)
    assert str(caught.value) == (
        "energy table 'generic-45nm' has node_nm = 45, but hardware 'edge-16x16' has energy.node_nm = 28; "
        "they must agree: change energy.node_nm or choose another table"
    )


@pytest.mark.parametrize("name", ["edge-16x16", "edge-32x32", "mcu-8x8", "server-128x128"])
def test_every_preset_can_be_priced(name, figures):
    machine = npu.load(name)
    priced = account.prices(machine, table.load(machine.energy.table), figures)
    one_bank = {name for name in area.BUFFERS if getattr(machine.buffers, name).banks == 1}
    free = {str(price) for price in priced.actions if price.work in FREE}
    free |= {f"sram_wires.{name}_{way}" for name in one_bank for way in ("read", "write")}
    assert {str(action) for action in priced.actions if action.pj == 0} == free
    assert set(priced.sources) == set(priced.confidence) == set(account.COMPONENTS)
