"""Every exact row of other people's RTL, the mechanisms behind them by hand, and what is said of wrong files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim import array, array_timing, dma, npu
from npusim.errors import ConfigError
from npusim.validate import rtl
from npusim.validate.result import EQUAL, Row, Validation

CYCLES = Path(__file__).parents[2] / "validation" / "rtl" / "cycles.csv"
HEADER = ",".join([*rtl.COLUMNS, "note"])


@pytest.fixture(scope="module")
def found():
    return rtl.validate(CYCLES)


def test_every_exact_row_is_equal(found):
    exact = [row for row in found.rows if row.group.endswith(" exact")]
    assert len(exact) == 209
    assert [(row.line, row.case, row.difference) for row in exact if row.difference != 0] == []


def test_exact_groups_have_the_bound_of_equality_and_hold_it(found):
    summaries = {s.group: s for s in found.summaries}
    for source in rtl.PRESETS:
        assert summaries[f"{source} exact"].bound == EQUAL
        assert summaries[f"{source} exact"].held
    assert all(s.simulated == 0 for group, s in summaries.items() if group.endswith("quoted"))


@pytest.mark.parametrize(
    ("source", "size", "dataflow", "shape", "cycles"),
    [
        # Command 13, preload 16, three blocks of 16, skew 15 + 15, drain 16, registers 2: 125 = 16 * 3 + 77.
        ("gemmini_rtl", (16, 16), "OS", (17, 1, 32), 16 * 4 + 77),
        # Two weight blocks: 16 rows and, behind the last, 4 although only 1 streams.
        ("gemmini_rtl", (16, 16), "WS", (1, 17, 16), 16 + 4 + 61),
        # 33 rows are blocks of 16, 16 and 1, before another weight block 16, 16 and 16.
        ("gemmini_rtl", (16, 16), "WS", (33, 16, 32), 48 + 36 + 61),
        ("scalesim_example_rtl", (4, 4), "OS", (1, 1, 1), 1 + 2 * 4 + 4 - 1),
        ("scalesim_example_rtl", (8, 4), "WS", (3, 9, 5), 2 * 2 * (3 + 3 * 8 + 4 - 1)),
        ("opentpu_rtl", (8, 8), "WS", (5, 8, 8), 5 + 16),
        ("axis_systolic_rtl", (8, 4), "OS", (8, 1, 4), 1 + 8 + 2 * 4),
        # 2 x 3 tiles of 40 hide the drain.
        ("axis_systolic_rtl", (8, 4), "OS", (9, 40, 9), 6 * 40 + 8 + 2 * 4),
        # Shorter tiles do not: output registers are taken for rows + columns.
        ("axis_systolic_rtl", (8, 4), "OS", (8, 3, 8), 2 * 12 + 8 + 2 * 4),
    ],
)
def test_shapes_by_hand(source, size, dataflow, shape, cycles):
    assert array_timing.gemm(dataflow, *shape, rtl.machine(source, *size).array) == cycles


def test_no_dataflow_is_faster_on_a_larger_array_than_its_macs_allow():
    gemmini = rtl.machine("gemmini_rtl", 16, 16).array
    for shape in ((1, 1, 1), (16, 16, 16), (100, 7, 33)):
        for dataflow in ("OS", "WS"):
            assert array_timing.gemm(dataflow, *shape, gemmini) * 256 >= np.prod(shape)


@given(
    folds=st.integers(0, 50), length=st.integers(1, 300), columns=st.integers(1, 40), rows=st.integers(1, 40),
    last=st.integers(1, 40), overlap=st.booleans(),
)  # fmt: skip
def test_the_default_timing_is_the_ideal_array(folds, length, columns, rows, last, overlap):
    machine = npu.Array(rows=rows, cols=40, fold_overlap=overlap, pe_registers=0, gating=False)
    sums = folds * columns
    for name in ("output_stationary", "operand_stationary"):
        ideal = getattr(array, name)(folds, length, sums, last, rows, overlap)
        assert int(getattr(array_timing, name)(folds, length, sums, last, machine)) == int(ideal)


@pytest.mark.parametrize("engine", ["fast", "simpy"])
@pytest.mark.parametrize(("write", "blocks", "latency"), [(False, 3, 16), (False, 2, 200), (True, 1, 5), (True, 4, 51),
                                                          (True, 4, 52), (True, 2, 200)])  # fmt: skip
def test_both_engines_move_blocks_in_the_cycles_of_the_rtl(engine, write, blocks, latency):
    machine = npu.load("gemmini-16x16").replace(latency_ns=latency)
    closed = latency + 23 + blocks * max(64, latency + 13) if write else 31 + blocks * (latency + 7)
    assert dma.block_cycles(machine, 16 * blocks, 64 if write else 16, write, engine) == closed


def test_short_latency_leaves_the_bus_as_the_bound():
    # One row of 16 bytes per cycle: 160 rows, the last one answered 1 + 6 cycles later, 16 cycles around it.
    machine = npu.load("gemmini-16x16").replace(latency_ns=0)
    assert dma.block_cycles(machine, 160, 16, write=False) == 159 + 7 + 16
    assert dma.block_cycles(machine, 0, 16, write=False) == 0


def test_requests_are_as_large_as_allowed():
    machine = npu.load("gemmini-16x16")
    # 130 bytes are three requests of at most 64; 64 bytes take four beats of 16.
    assert dma.requests(machine, 2, 130, write=False)[:2] == (6, 4)


def test_columns_that_are_missing_are_all_named(tmp_path):
    path = tmp_path / "cycles.csv"
    path.write_text("source,array,dataflow,op,m,K,N\n")
    with pytest.raises(ConfigError) as caught:
        rtl.validate(path)
    assert str(caught.value) == (
        f"{path}: 8 problems\n"
        "  column M: missing\n"
        "  column memory_latency: missing\n"
        "  column blocks: missing\n"
        "  column tile_i: missing\n"
        "  column tile_j: missing\n"
        "  column tile_k: missing\n"
        "  column measured_cycles: missing\n"
        "  column kind: missing"
    )


def test_cells_that_are_wrong_are_all_named(tmp_path):
    path = tmp_path / "cycles.csv"
    path.write_text(
        f"{HEADER}\n"
        "gemini_rtl,16x16,OS,compute,16,16,16,,,,,,93,exact,\n"
        "gemmini_rtl,16,OS,compute,16,x,16.5,,,,,,93,exact,\n"
        "gemmini_rtl,16x16,RS,compute,16,16,16,,,,,,,exact,\n"
        "gemmini_rtl,16x16,,dma_load,,,,-1,2,,,,93,fitted,\n"
    )
    with pytest.raises(ConfigError) as caught:
        rtl.validate(path)
    assert str(caught.value) == (
        f"{path}: 8 problems\n"
        "  line 2: source = 'gemini_rtl': must be gemmini_rtl or scalesim_example_rtl or opentpu_rtl or "
        "axis_systolic_rtl (did you mean 'gemmini_rtl'?)\n"
        "  line 3: array = '16': must be ROWSxCOLUMNS, for example 16x16\n"
        "  line 3: K = 'x': must be a whole number of 1 or more\n"
        "  line 3: N = '16.5': must be a whole number of 1 or more\n"
        "  line 4: measured_cycles = '': must be a whole number of 0 or more\n"
        "  line 4: dataflow = 'RS': must be OS or WS or IS (did you mean 'WS'?)\n"
        "  line 5: kind = 'fitted': must be exact or data\n"
        "  line 5: memory_latency = '-1': must be a whole number of 0 or more"
    )


@pytest.mark.parametrize(("text", "message"), [("", "column source: missing"), (f"{HEADER}\n", "no rows")])
def test_files_without_rows(tmp_path, text, message):
    path = tmp_path / "cycles.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        rtl.validate(path)


def test_a_difference_breaks_the_bound_and_is_in_the_record(tmp_path):
    path = tmp_path / "cycles.csv"
    path.write_text(f"{HEADER}\ngemmini_rtl,16x16,OS,compute,16,16,16,,,,,,92,exact,\n")
    found = rtl.validate(path)
    record = found.as_dict()
    assert not found.held
    assert not record["held"]
    assert record["rows"][0]["difference"] == 1
    assert record["summary"] == [
        {
            "group": "gemmini_rtl exact", "rows": 1, "simulated": 1, "equal": 0, "bound": "equal", "held": False,
            "mean_error_pct": pytest.approx(100 / 92), "max_error_pct": pytest.approx(100 / 92),
        }
    ]  # fmt: skip


def test_a_measured_zero_is_no_division_by_zero():
    found = Validation("rtl", [Row(2, "g", "", 0, 1), Row(3, "g", "", 0, 0)], {"g": EQUAL})
    assert [row.error_pct for row in found.rows] == [float("inf"), 0.0]
    assert found.as_dict()["rows"][0]["error_pct"] is None
    assert not found.held
