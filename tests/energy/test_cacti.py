"""An external CACTI: good, wrong, silent and hanging ones, and the cache."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from npusim import npu
from npusim.energy import account, area, cacti, sram, table
from npusim.errors import ConfigError

HEADER = ("Tech node (nm), Capacity (bytes), Number of banks, Associativity, Output width (bits), Access time (ns), "
          "Random cycle time (ns), Dynamic search energy (nJ), Dynamic read energy (nJ), Dynamic write energy (nJ), "
          "Standby leakage per bank(mW), Area (mm2), Ndwl")  # fmt: skip
# CACTI 7.0 for 8192 bytes, 32 bits, hp cells at 45 nm.
ROW = "45, 8192, 1, 1, 32, 0.287487, 0.252669, N/A, 0.00465953, 0.00405939, 4.60643, 0.0256655, 2"


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cacti._answer.cache_clear()
    yield
    cacti._answer.cache_clear()


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Makes a program of a shell script and names it in NPUSIM_CACTI."""

    def make(script):
        path = tmp_path / "cacti"
        path.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("NPUSIM_CACTI", str(path))
        return cacti.binary()

    return make


def writes(*lines):
    return "\n".join(f"echo '{line}' >> macro.cfg.out" for line in lines)


def ask(program, size=8192, width=32, ports="1rw"):
    return cacti.macro(program, size, width, "hp", 45, ports)


def test_a_good_answer_is_kept(fake, tmp_path):
    program = fake(writes(HEADER, ROW))
    expected = cacti.Answer(4.65953, 4.05939, 4.60643, 0.0256655)
    assert ask(program) == pytest.approx(expected)
    cacti._answer.cache_clear()
    assert ask(program) == pytest.approx(expected)
    assert (tmp_path / "runs").read_text() == "run\n"
    (kept,) = cacti.cache_folder().iterdir()
    assert json.loads(kept.read_text())["read_pj"] == pytest.approx(4.65953)
    # A damaged answer is asked for again; another binary has answers of its own.
    kept.write_text('{"read_pj": -1}')
    cacti._answer.cache_clear()
    assert ask(program) == pytest.approx(expected)
    ask(fake(writes(HEADER, ROW) + "\n# another"))
    assert (tmp_path / "runs").read_text() == "run\n" * 3
    assert len(list(cacti.cache_folder().iterdir())) == 2


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("true", r"wrote no result \(exit code 0\); it says: nothing"),
        ("echo 'Block size must >= 1'", r"wrote no result \(exit code 0\); it says: Block size must >= 1"),
        (writes(HEADER, ROW) + "\nexit 3", r"wrote no result \(exit code 3\)"),
        (writes("garbage"), r"8192 bytes x 32 bits: 1 lines, not a header and one row"),
        (writes("a, b", "1, 2"), r"Tech node \(nm\) = None"),
        (writes(HEADER, ROW, ROW), r"3 lines, not a header and one row"),
        (writes(HEADER, ROW.replace("8192", "4096")), r"Capacity \(bytes\) = 4096, not 8192"),
        (writes(HEADER, ROW.replace("0.00465953", "nan")), r"Dynamic read energy \(nJ\) = nan"),
        (writes(HEADER, ROW.replace("4.60643", "-1")), r"Standby leakage per bank\(mW\) = -1"),
        (writes(HEADER, ROW.replace("0.0256655", "N/A")), r"Area \(mm2\) = 'N/A'"),
    ],
)
def test_a_wrong_answer_is_not_believed(fake, script, message):
    program = fake(script)
    with pytest.raises(ConfigError, match=message):
        ask(program)
    assert not cacti.cache_folder().exists()


def test_a_program_that_hangs_is_ended_with_its_children(fake, monkeypatch, tmp_path):
    monkeypatch.setattr(cacti, "TIMEOUT_SECONDS", 0.5)
    program = fake(f"sleep 60 & echo $! > {tmp_path}/child; wait")
    begin = time.monotonic()
    with pytest.raises(ConfigError, match=r"no answer within 0\.5 s"):
        ask(program)
    assert time.monotonic() - begin < 20
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not running(child):
            break
        time.sleep(0.05)
    assert not running(child)


def running(process):
    """Whether a process lives; one that has ended and was not yet collected does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_variable_must_name_a_program(monkeypatch, tmp_path):
    monkeypatch.setenv("NPUSIM_CACTI", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"NPUSIM_CACTI = .*absent: is not a program that can be run"):
        cacti.binary()
    monkeypatch.delenv("NPUSIM_CACTI")
    assert cacti.binary() is None


def test_parts_of_bytes_cannot_be_asked_for(fake):
    with pytest.raises(ConfigError, match=r"not a bank of 8192 bytes with words of 12 bits"):
        ask(fake("true"), width=12)


def test_the_configuration_names_macro_and_ports():
    text = cacti.configuration(16384, 128, "lop", 28, "1r1w")
    for line in ("-size (bytes) 16384", "-block size (bytes) 16", "-technology (u) 0.0280", "-read-write port 0",
                 "-exclusive read port 1", '-Data array cell type - "itrs-lop"', '-cache type "ram"'):  # fmt: skip
        assert f"{line}\n" in text
    assert "{" not in text


def test_buffers_are_priced_by_it_and_say_so(fake):
    fake(
        "eval $(sed -n 's/^-size (bytes) /size=/p; s/^.output.input bus width /width=/p' macro.cfg)\n"
        f"echo '{HEADER}' > macro.cfg.out\n"
        "echo \"28, $size, 1, 1, $width, 1, 1, N/A, 0.004, 0.005, 3, 0.02, 2\" >> macro.cfg.out"
    )  # fmt: skip
    machine = npu.load("edge-16x16")
    numbers = table.load(machine.energy.table)
    memory = area.memories(machine, numbers)["a"]
    # 8 banks with words of 16 bytes: 4 pJ and 5 pJ per access, 3 mW and 0.02 mm2 each.
    assert (memory.read_pj_per_byte, memory.write_pj_per_byte) == pytest.approx((4 / 16, 5 / 16))
    assert (memory.leakage_mw, memory.area_mm2) == pytest.approx((24, 0.16))
    priced = account.prices(machine, numbers)
    assert priced.sources["sram_a"].startswith("CACTI run here (300 K), NPUSIM_CACTI = ")


@pytest.mark.skipif("NPUSIM_REAL_CACTI" not in os.environ, reason="NPUSIM_REAL_CACTI names no CACTI 7 binary")
def test_a_real_cacti_gives_the_figures(monkeypatch):
    monkeypatch.setenv("NPUSIM_CACTI", os.environ["NPUSIM_REAL_CACTI"])
    program = cacti.binary()
    for point in sram.read_points(sram.FIGURES)[::40]:
        found = cacti.macro(program, point.size_bytes, point.width_bits, point.cell, point.node_nm, "1rw")
        assert found == pytest.approx(point.values, rel=1e-4), point
