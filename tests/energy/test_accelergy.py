"""Prices out of an Accelergy ERT: units, names, and messages."""

from __future__ import annotations

import builtins

import pytest

from npusim import npu
from npusim.energy import account, table
from npusim.errors import ConfigError

# The form of Accelergy 0.4's ERT.yaml.
ERT = """
ERT:
  version: '0.4'
  tables:
    - name: system_top_level.DRAM[1..1]
      actions:
        - {name: read, arguments: {global_cycle_seconds: 1.0e-09}, energy: 512.0}
        - {name: write, arguments: {global_cycle_seconds: 1.0e-09}, energy: 512.0}
    - name: system_top_level.shared_glb[1..1]
      actions:
        - {name: read, arguments: {}, energy: 32.0}
        - {name: write, arguments: {}, energy: 24.0}
        - {name: leak, arguments: {}, energy: 0.5}
    - name: system_top_level.pe_spad[1..256]
      actions:
        - {name: write, arguments: {data_delta: 0}, energy: 0.1}
        - {name: write, arguments: {data_delta: 1}, energy: 0.3}
    - name: system_top_level.mac[1..256]
      actions:
        - {name: compute, arguments: {}, energy: 0.315}
    - name: other.mac
      actions:
        - {name: compute, arguments: null, energy: 1}
"""
TABLE = """
name = "mine"
base = "generic-28nm"
[accelergy]
file = "ERT.yaml"
source = "our plug-ins"
confidence = "medium"
[accelergy.prices]
'mac."fp16+fp32"' = { action = "system_top_level.mac.compute" }
'register_byte' = { action = "pe_spad.write", bits = 16, arguments = { data_delta = 1 } }
'sram.a.read' = { action = "shared_glb.read", bits = 64 }
'sram.a.write' = { action = "shared_glb.write", bits = 64 }
'sram.a.leak' = { action = "shared_glb.leak", ns = 2.0 }
'dram.LPDDR4' = { action = "DRAM.read", bits = 64 }
[sram.buffers.a]
area_mm2 = 0.25
"""


@pytest.fixture
def load(tmp_path):
    def loaded(text=TABLE, ert=ERT):
        (tmp_path / "ERT.yaml").write_text(ert)
        (tmp_path / "mine.toml").write_text(text)
        return table.load(tmp_path / "mine.toml")

    return loaded


def test_prices_in_the_units_of_the_table(load):
    mine = load()
    assert mine.mac["fp16+fp32"].pj == 0.315
    # 0.3 pJ for 16 bits are 0.15 per byte; 32 pJ for 8 bytes 4; 0.5 pJ in 2 ns 0.25 mW; 512 pJ for 64 bits 8.
    assert mine.register_byte.pj == pytest.approx(0.15)
    buffer = mine.sram.buffers["a"]
    assert (buffer.read_pj_per_byte, buffer.write_pj_per_byte, buffer.leakage_mw, buffer.area_mm2) == (4, 3, 0.25, 0.25)
    assert mine.dram["LPDDR4"].pj_per_bit == 8
    assert mine.mac["fp16+fp32"].area_um2 == table.load("generic-28nm").mac["fp16+fp32"].area_um2
    assert mine.mac["fp16+fp32"].source == "Accelergy ERT ERT.yaml, system_top_level.mac[1..256].compute: our plug-ins"
    priced = account.prices(npu.load("edge-16x16"), mine)
    assert {str(price): price.pj for price in priced.actions}["sram_a.read"] == 4
    assert priced.sources["dram_access"].startswith("flat pJ/bit of LPDDR4: Accelergy ERT")
    assert priced.confidence["dram_access"] == "medium"


def test_the_table_itself_wins(load):
    mine = load(TABLE + "[dram.LPDDR4]\npj_per_bit = 3.0\n")
    assert mine.dram["LPDDR4"].pj_per_bit == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("DRAM.read", "DRAN.read", "the ERT has no component 'DRAN' (did you mean 'DRAM'?); it has: system_top"),
        ("DRAM.read", "DRAM.reed", "DRAM[1..1] has no action 'reed' (did you mean 'read'?); it has: read, write"),
        ("system_top_level.mac.c", "mac.c", "component 'mac' is ambiguous: system_top_level.mac[1..256], other.mac"),
        ("bits = 16, arguments = { data_delta = 1 }", "bits = 16",
         "has several energies, choose by arguments: {'data_delta': 0} 0.1 pJ; {'d"),
        ('read", bits = 64 }', 'read" }', "shared_glb.read needs bits, how many one action moves"),
        (", ns = 2.0", "", "leakage needs ns"),
        ("'sram.a.leak'", "'sram.c.leak'", "accelergy.prices.sram.c.leak: is no price of npusim; known: mac."),
        ('file = "ERT.yaml"', 'file = "absent.yaml"', "absent.yaml: cannot be read: No such file or directory"),
        ('confidence = "medium"', 'confidence = "sure"', 'confidence = "sure": must be'),
        ("area_mm2 = 0.25", "", "sram.buffers.a.area_mm2: missing"),
    ],
)  # fmt: skip
def test_mistakes_say_what_there_is(load, old, new, message):
    assert old in TABLE
    with pytest.raises(ConfigError) as caught:
        load(TABLE.replace(old, new))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("ert", "message"),
    [
        ("a: [", "not YAML"),
        ("ERT: 3", "not an Accelergy ERT: there is no list ERT.tables"),
        ("- 1", "not an Accelergy ERT"),
        (ERT.replace("0.315", "-1"), "energy = -1 must be a number of pJ, 0 or more"),
        (ERT.replace("0.315", "cheap"), "energy = 'cheap' must be a number of pJ"),
    ],
)
def test_a_file_that_is_no_ert(load, ert, message):
    with pytest.raises(ConfigError) as caught:
        load(ert=ert)
    assert message in str(caught.value)


def test_without_pyyaml_the_message_says_what_to_install(load, monkeypatch):
    original = builtins.__import__

    def absent(name, *rest):
        if name == "yaml":
            raise ModuleNotFoundError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match=r'pip install "npusim\[accelergy\]"'):
        load()


BOMB = "ERT:\n  tables:\n    - {name: a, actions: [{name: x, energy: &a0 [1, 1]}]}\n"
for number in range(1, 20):
    again = ", ".join([f"*a{number - 1}"] * 9)
    BOMB += f"    - {{name: b{number}, actions: [{{name: mac, energy: &a{number} [{again}]}}]}}\n"


@pytest.mark.parametrize(
    ("ert", "said"),
    [
        (BOMB, "values when its aliases are followed"),
        (ERT.replace("energy: 32.0", "energy: [32.0]"), "energy must be a number"),
        (ERT.replace("energy: 32.0", "energy: {a: 1}"), "energy must be a number"),
        ("ERT: !!python/object/apply:os.system [true]", "not YAML"),
        ("[" * 100_000, "not YAML"),
    ],
)
def test_hostile_reference_tables_are_refused(load, ert, said):
    with pytest.raises(ConfigError, match=said):
        load(TABLE, ert)
