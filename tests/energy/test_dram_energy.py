"""DRAM energy from command counts: by hand, against the engine's own sum, and its sources."""

from __future__ import annotations

import numpy as np
import pytest

from npusim import npu
from npusim.counters import COUNTERS
from npusim.energy import account, dram, table
from npusim.engine.dram import energy_pj
from npusim.engine.dram_standards import load_standard, standards
from npusim.errors import ConfigError


@pytest.fixture(scope="module")
def numbers():
    return table.load("generic-28nm")


def use(config, prices, **counts):
    work = np.zeros((1, len(dram.WORK)), np.int64)
    for name, amount in counts.items():
        work[0, dram.WORK.index(name)] = amount
    return dram.Use(work, prices)


def test_ddr4_by_hand(numbers):
    # DDR4-2400, 8 devices at 1.2 V, clocks of 0.833 ns: mA x V x ns = pJ.
    config = load_standard("ddr4-2400")
    prices = dram.command_prices(config, "ddr4-2400", numbers)
    per = 1.2 * 8 * 0.833
    assert prices.activate_pj == pytest.approx(per * (48 * 56 - 43 * 39 - 34 * 17))
    assert prices.read_core_pj == pytest.approx(per * (135 - 43) * 4)
    assert prices.io_pj == pytest.approx(4.6 * 512)
    assert prices.refresh_pj == pytest.approx(per * (250 - 43) * 420)
    assert (prices.open_pj, prices.closed_pj) == pytest.approx((per * 43, per * 34))
    found = dram.dram_energy(use(config, prices, activates=2, read_bursts=10, refreshes=1, closed_clocks=100))[0]
    hand = [10 * (prices.read_core_pj + 4.6 * 512), 2 * prices.activate_pj, prices.refresh_pj + 100 * per * 34]
    assert found == pytest.approx(hand)


@pytest.mark.parametrize("name", standards())
def test_three_terms_are_those_of_the_engine(name, numbers):
    """I/O apart, the terms sum to `energy_pj`, which is held to DRAMsim3; every kind of work is priced once."""
    config = load_standard(name)
    prices = dram.command_prices(config, name, numbers)
    ranks, clocks, closed = config.channels * config.ranks, 1000, 700
    work = use(config, prices, activates=3, read_bursts=5, write_bursts=7, refreshes=2, bank_refreshes=4,
               open_clocks=ranks * clocks - closed, closed_clocks=closed)  # fmt: skip
    counts = {"ACT": 3, "RD": 5, "WR": 7, "REF": 2, "REFB": 4}
    engine = energy_pj(config, counts, clocks, closed)
    access, activate, background = dram.dram_energy(work)[0]
    assert access - 12 * prices.io_pj == pytest.approx(engine["read"] + engine["write"])
    assert activate == pytest.approx(engine["act"])
    assert background == pytest.approx(engine["refresh"] + engine["background"])
    assert prices.confidence == ("medium" if name.startswith("ddr4") else "low")
    assert bool(prices.notes) == (prices.confidence == "low")


def test_commands_are_booked_to_their_components(numbers):
    machine = npu.load("edge-16x16")
    config = load_standard("lpddr4-3200")
    prices = dram.command_prices(config, "lpddr4-3200", numbers)
    counts, cycles = np.zeros((1, len(COUNTERS)), np.int64), np.zeros(1, np.int64)
    counts[0, COUNTERS.index("dram_read_bytes")] = 640
    done = use(config, prices, activates=1, read_bursts=10, closed_clocks=50)
    energy = account.account(counts, cycles, machine, numbers, use=done)
    booked = {name: pj for name, pj in zip(energy.components, energy.pj[0], strict=True) if pj}
    # Bytes have no price of their own when bursts have one.
    assert set(booked) == {"dram_access", "dram_activate", "dram_background"}
    assert list(booked.values()) == pytest.approx(dram.dram_energy(done)[0].tolist())
    assert "dram_access" in energy.prices.doubtful()
    assert any("LOW" not in note and "lpddr4-3200: low confidence" in note for note in energy.prices.notes)
    with pytest.raises(ValueError, match="go with counts"):
        account.apply(counts, cycles, energy.prices)


def test_streaming_reads_cost_what_is_published():
    """pJ/bit of reads alone: LPDDR4 8.5 of the 9.2 at IDD4R, DDR4-2400 5.7 + 4.6, HBM2 1.6 + 0.8, LPDDR5 4.1."""
    expected = {"lpddr4-3200": 8.47, "ddr4-2400": 10.35, "hbm2-2000": 2.37, "lpddr5-6400": 4.06}
    for name, pj_per_bit in expected.items():
        config = load_standard(name)
        prices = dram.command_prices(config, name, table.load("generic-45nm"))
        bits = 8 * config.burst_bytes
        assert (prices.read_core_pj + prices.io_pj) / bits == pytest.approx(pj_per_bit, rel=0.005)


def test_a_users_row_wins(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nbase = "generic-28nm"\n[dram_command."lpddr4-3200"]\nactivate_pj = 1000\n'
        "read_pj_per_bit = 2\nwrite_pj_per_bit = 3\nio_pj_per_bit = 1\nrefresh_pj = 9\nopen_mw = 80\nclosed_mw = 40\n"
        'source = "our board"\nconfidence = "high"\n'
    )
    config = load_standard("lpddr4-3200")
    prices = dram.command_prices(config, "lpddr4-3200", table.load(path))
    assert (prices.read_core_pj, prices.write_core_pj, prices.io_pj) == (1024, 1536, 512)
    # 80 mW over one clock of 0.625 ns.
    assert (prices.open_pj, prices.closed_pj, prices.confidence) == (50, 25, "high")


def test_lpddr4x_only_as_user_input(numbers):
    with pytest.raises(ConfigError, match="LPDDR4X is priced only by your own figures"):
        numbers.flat_dram("LPDDR4X")


def test_a_standard_without_currents_cannot_be_priced(numbers, tmp_path):
    text = (dram_file("lpddr4-3200")).read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text[: text.index("# LOW CONFIDENCE: DRAMSys")])
    with pytest.raises(ConfigError, match=r"mine.toml has no section \[currents\].*dram_command"):
        dram.command_prices(load_standard(str(path)), str(path), numbers)
    path.write_text(text[: text.index("[energy]")])
    with pytest.raises(ConfigError, match=r"section \[energy\] is missing"):
        dram.command_prices(load_standard(str(path)), str(path), numbers)


def dram_file(name):
    from npusim.engine.dram_standards import data_files

    return data_files()[name]
