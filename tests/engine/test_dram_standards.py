"""Bad DRAM files: every message names the file, both keys and their values."""

from __future__ import annotations

import pytest

from npusim.engine.dram_standards import data_files, load_standard, standards
from npusim.errors import CatalogueError, ConfigError

MISTAKES = [
    ("ras = 52 ", "ras = 20 ", "timing.ras = 20 is less than timing.rcd_rd = 22"),
    ("rp = 22 ", "rp = 22\nrc = 60 ", "timing.rc = 60 is less than timing.ras = 52 + timing.rp = 22"),
    ("burst_length = 8 ", "burst_length = 2048 ", "burst_length = 2048 is longer than a row of organisation.col"),
    ("rows = 65536 ", "rows = 60000 ", "organisation.rows = 60000 is not a power of two, but address_map = 'bg-co-"),
    ("columns = 1024 ", "columns = 1000 ", "organisation.columns = 1000 is not a power of two, but address_map"),
    ("bank_groups = 4 ", "bank_groups = 0 ", "organisation.bank_groups = 0 is not a power of two"),
    ("bus_bits = 64 ", "bus_bits = 48 ", "organisation.bus_bits = 48 must be a power of two, 8 or more"),
    ("device_bits = 8 ", "device_bits = 24 ", "bus_bits = 64 is no multiple of organisation.device_bits = 24"),
    ("burst_clocks = 4 ", "burst_clocks = 9 ", "burst_clocks = 9 must be from 1 to organisation.burst_length = 8"),
    ("ccd_s = 4 ", "ccd_s = 2 ", "timing.ccd_s = 2 is less than organisation.burst_clocks = 4: bursts would overlap"),
    ("ccd_l = 8 ", "ccd_l = 3 ", "timing.ccd_l = 3 is less than timing.ccd_s = 4"),
    ("rrd_l = 8 ", "rrd_l = 3 ", "timing.rrd_l = 3 is less than timing.rrd_s = 4"),
    ("wtr_l = 12 ", "wtr_l = 3 ", "timing.wtr_l = 3 is less than timing.wtr_s = 4"),
    ("rp_all = 22 ", "rp_all = 3 ", "timing.rp_all = 3 is less than timing.rp = 22"),
    ("faw = 34 ", "faw = 3 ", "timing.faw = 3 is less than timing.rrd_s = 4"),
    ("refi = 12480 ", "refi = 560 ", "timing.refi = 560 is not more than timing.rfc = 560: no time would be left"),
    ("idd4r = 168", "idd4r = 30", "currents.idd4r = 30 is less than currents.idd3n = 52"),
    ("idd0 = 57", "idd0 = 40", "currents.idd0 = 40 is less than the standby within it, currents.idd3n = 52"),
    ("ras = 52 ", "ras = 52.5 ", "timing.ras = 52.5 must be a whole number, 0 or more"),
    ("ras = 52 ", "ras = -1 ", "timing.ras = -1 must be a whole number, 0 or more"),
    ("ras = 52 ", "rass = 52 ", "timing.ras is missing; timing.rass is not a key (did you mean 'ras'?)"),
    ("tck_ns = 0.625 ", "tck_ns = 0 ", "tck_ns = 0 must be a number of nanoseconds, more than 0"),
    ("[timing]", "[timings]", "timing is missing; timings is not a key (did you mean 'timing'?)"),
    ("[organisation]", "[commands]\ndual_bus = 1\n[organisation]", "commands.dual_bus = 1 must be true or false"),
    ('"bg-co-ba-ra-ch-ro" ', '"bg-co-ra-ch-ro" ', "address_map 'bg-co-ra-ch-ro' does not hold all bits of bank"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES, ids=[new.strip() for _, new, _ in MISTAKES])
def test_a_contradiction_names_both_keys(old, new, message, tmp_path):
    text = data_files()["ddr4-3200"].read_text()
    assert old in text
    path = tmp_path / "bad.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_standard(str(path))
    assert message in str(caught.value)
    assert str(caught.value).startswith("bad.toml: ") or "address_map" in message


def test_a_file_that_is_no_toml_is_the_users_mistake(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[timing\n")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_standard(str(path))


def test_an_unknown_standard_lists_the_known():
    with pytest.raises(CatalogueError, match=r"unknown DRAM standard 'ddr5'.*known: .*lpddr5-6400"):
        load_standard("ddr5")


def test_a_stated_row_cycle_time_is_used(tmp_path):
    path = tmp_path / "slow.toml"
    path.write_text(data_files()["ddr4-3200"].read_text().replace("rp = 22 ", "rp = 22\nrc = 80 "))
    slow, usual = load_standard(str(path)), load_standard("ddr4-3200")
    assert [c.cycles for c in slow.constraints if (c.scope, c.before, c.after) == ("bank", "ACT", "ACT")] == [80]
    assert (slow.currents.t_rc, usual.currents.t_rc) == (80, 74)


@pytest.mark.parametrize("name", standards())
def test_every_shipped_standard_says_where_its_currents_come_from(name):
    assert load_standard(name).currents is not None
