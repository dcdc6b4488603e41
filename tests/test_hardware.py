"""The machine description: presets, exact integer arithmetic, replacement and its errors."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim import catalogue, npu
from npusim.errors import ConfigError
from npusim.graph import TENSOR_KINDS

PRESETS = ("edge-16x16", "edge-32x32", "mcu-8x8", "server-128x128")


@pytest.fixture(scope="module")
def edge():
    return npu.load("edge-16x16")


def test_presets_are_as_their_names_say():
    for name in PRESETS:
        machine = npu.load(name)
        assert machine.name == name
        assert f"{machine.array.rows}x{machine.array.cols}" == name.partition("-")[2]
    assert npu.load("edge-16x16").sram_bytes == 256 * 1024
    assert npu.load("server-128x128").sram_bytes == 16 * 1024 * 1024


@pytest.mark.parametrize("name", PRESETS)
def test_accumulator_port_reads_and_writes_one_sum_per_column_and_cycle(name):
    machine = npu.load(name)
    port_bits = 8 * machine.buffers.accumulator.bytes_per_cycle
    assert port_bits >= 2 * machine.array.cols * machine.precision.accumulator_bits


@pytest.mark.parametrize("name", PRESETS)
def test_every_number_of_a_preset_has_a_source_or_a_reason(name):
    shared = ""
    for line in catalogue.find("hardware", name).read_text().splitlines():
        key = line.partition(" ")[0]
        if line.startswith("["):
            shared = line.partition("#")[2]
        elif "=" in line and key not in ("#", "name", "description", "source", "standard", "model", "table"):
            assert line.partition("#")[2] or shared, line


def test_printed_form(edge):
    assert str(edge) == ("edge-16x16: 16x16 PEs fp16+fp32 at 800 MHz, 256 KiB SRAM, LPDDR4 12.8 GB/s, 28 nm")


def test_every_tensor_kind_has_a_width(edge):
    assert {kind: edge.precision.bits(kind) for kind in TENSOR_KINDS} == {
        "activation": 16, "weight": 16, "gradient": 16, "weight_gradient": 16, "state": 32, "mask": 1,
    }  # fmt: skip


def test_slots_of_a_double_buffered_buffer(edge):
    # 96 KiB in two halves of 48 KiB = 49152 bytes.
    assert (edge.buffers.a.slots, edge.buffers.a.slot_bytes) == (2, 49152)
    single = edge.replace({"buffers.a.double_buffered": False}).buffers.a
    assert (single.slots, single.slot_bytes) == (1, 98304)


def test_dram_cycles_by_hand(edge):
    # 12.8 GB/s at 800 MHz: 16 bytes per cycle; bursts of 32 bytes take 2 cycles.
    # 0 -> 0; 1 and 32 -> one burst; 33 -> two; 1000 -> 32 bursts (1024 bytes) = 64 cycles.
    assert edge.dram_cycles(np.array([0, 1, 32, 33, 1000])).tolist() == [0, 2, 2, 4, 64]
    # 100 ns at 800 MHz = 80 cycles; 101 ns = 80.8, so 81.
    assert edge.dram_latency_cycles == 80
    assert edge.replace(latency_ns="101ns").dram_latency_cycles == 81
    assert edge.dram_cycles(np.array([], dtype=np.int64)).size == 0


@given(
    sizes=st.lists(st.integers(0, 2**50), min_size=1, max_size=20),
    clock=st.integers(1, 10**11),
    bandwidth=st.integers(10**6, 10**15),
    burst=st.integers(1, 4096),
)
def test_dram_cycles_are_exact(sizes, clock, bandwidth, burst):
    machine = npu.load("edge-16x16").replace(clock_hz=clock, bandwidth_bytes_per_s=bandwidth, burst_bytes=burst)
    exact = [ceil(Fraction(ceil(Fraction(n, burst)) * burst * clock, bandwidth)) for n in sizes]
    if max(exact) >= 2**63:
        with pytest.raises(OverflowError):
            machine.dram_cycles(np.array(sizes))
    else:
        result = machine.dram_cycles(np.array(sizes))
        assert result.dtype == np.int64
        assert result.tolist() == exact


def test_replace_by_path_and_by_short_name(edge):
    changed = edge.replace({"array.rows": 32, "buffers.a.bytes": "192KiB"}, cols=8, clock_hz="1GHz")
    assert (changed.array.rows, changed.array.cols, changed.clock_hz) == (32, 8, 10**9)
    assert changed.buffers.a.bytes == 192 * 1024
    assert edge.array.rows == 16
    assert changed.peak_macs_per_cycle == 256


def test_replace_reports_unknown_and_ambiguous_keys(edge):
    with pytest.raises(ConfigError) as caught:
        edge.replace({"array.row": 1}, banks=2, lane=4)
    assert str(caught.value) == "\n  ".join(
        [
            "hardware 'edge-16x16' cannot be changed:",
            "array.row: unknown key (did you mean 'array.rows'?)",
            "banks: ambiguous, write one of buffers.a.banks, buffers.b.banks, buffers.accumulator.banks, "
            "buffers.mask.banks",
            "lane: unknown key (did you mean 'lanes'?)",
        ]
    )


def test_replace_validates_again(edge):
    with pytest.raises(ConfigError) as caught:
        edge.replace({"array.rows": 0, "dram.bandwidth_bytes_per_s": 0})
    assert str(caught.value) == "\n  ".join(
        [
            "hardware 'edge-16x16' with array.rows = 0, dram.bandwidth_bytes_per_s = 0: 2 problems",
            "array.rows = 0: must be greater than or equal to 1",
            "dram.bandwidth_bytes_per_s = 0: must be greater than or equal to 1",
        ]
    )


def test_contradictions_name_both_keys(edge):
    with pytest.raises(ConfigError) as caught:
        edge.replace({"buffers.a.bytes": 101, "buffers.mask.bytes_per_cycle": "1MiB"})
    assert str(caught.value).splitlines()[1:] == [
        "  buffers.a: banks = 8 does not divide bytes = 101",
        "  buffers.a: bytes_per_cycle = 128 is more than bytes = 101",
        "  buffers.a: bytes = 101 is odd, but double_buffered needs two equal slots",
        "  buffers.mask: bytes_per_cycle = 1048576 is more than bytes = 8192",
    ]
    with pytest.raises(ConfigError) as caught:
        edge.replace(weight_gradient_bits=64)
    assert str(caught.value) == (
        "hardware 'edge-16x16' with precision.weight_gradient_bits = 64: 1 problem\n"
        "  precision.accumulator_bits = 32 is less than precision.weight_gradient_bits = 64"
    )


def test_digest_ignores_words_and_sees_numbers(edge):
    assert edge.replace(name="other", source="elsewhere").digest() == edge.digest()
    assert edge.replace(rows=17).digest() != edge.digest()


def test_a_users_file(tmp_path, edge):
    text = catalogue.find("hardware", "edge-16x16").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("rows = 16", "rows = 24").replace('name = "edge-16x16"', 'name = "mine"'))
    assert npu.load(path) == edge.replace(name="mine", rows=24)
    path.write_text(text.replace("rows = 16", "row = 16"))
    with pytest.raises(ConfigError) as caught:
        npu.load(path)
    assert str(caught.value) == (
        f"{path}: 2 problems\n  array.rows: missing\n"
        "  array.row: unknown key (did you mean 'rows'?); allowed: rows, cols, fold_overlap, pe_registers, gating, "
        "timing, gather"
    )
