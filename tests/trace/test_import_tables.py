"""SCALE-Sim topologies, layer tables, and how a format is recognised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npusim import trace
from npusim.errors import NpusimError
from npusim.graph import Conv
from npusim.scalesim import topology

ROOT = Path(__file__).parents[2]
RUNS = sorted((ROOT / "validation" / "scalesim" / "runs").iterdir())
TABLE = """name,kind,inputs,shape,out,kernel,stride,padding,bias
image,input,,1x3x8x8,,,,,
conv1,conv,,,4,3,2,1,true
relu1,activation,,,,,,,
wide,conv,relu1,,4,1x3,,0x1,
sum,add,wide;relu1,,,,,,
flat,flatten,,,,,,,
fc,linear,,,10,,,,
"""


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_topologies_that_scalesim_ran(run):
    layers = topology.read(run / "topology.csv")
    step = trace.import_file(run / "topology.csv")
    for phase in ("forward", "grad_weight"):
        assert sum(op.macs for op in step.phase(phase)) == sum(layer.macs for layer in layers)
    assert sum(op.macs for op in step.phase("grad_input")) == sum(layer.macs for layer in layers[1:])
    names = [re.sub("Channel_[0-9]+$", "", layer.name) for layer in layers]
    assert [op.name for op in step.phase("forward")] == list(dict.fromkeys(names))


def test_scalesim_windows_over_the_edge_and_depthwise_lines(tmp_path):
    path = tmp_path / "t.csv"
    # A 17x17 image under 1x1 windows with stride 2: 9 windows; 8 with 2x2 windows, and a 9th over the edge.
    path.write_text(
        "name,h,w,r,s,c,k,stride,\na, 17, 17, 2, 2, 3, 5, 2,\ndDP, 10, 10, 3, 3, 6, 1, 1,\na, 4, 4, 1, 1, 2, 2, 1,\n"
    )
    step = trace.from_scalesim(path, optimizer="adam")
    dims = {op.name: op.dims for op in step.phase("forward")}
    assert dims["a"] == Conv(1, 3, 18, 18, 5, 2, 2, (2, 2)) and (dims["a"].p, dims["a"].q) == (9, 9)
    assert dims["dDP"] == Conv(1, 6, 10, 10, 6, 3, 3, groups=6) and dims["dDP"].macs == 8 * 8 * 9 * 6
    assert list(dims) == ["a", "dDP", "a@2"]
    assert step.phase("update")[0].inputs[2:] == ("a.weight.exp_avg", "a.weight.exp_avg_sq")


def test_layer_table_as_csv_equals_the_toml(tmp_path):
    (tmp_path / "net.csv").write_text(TABLE)
    (tmp_path / "net.toml").write_text(
        'name = "net"\nlayers = [\n'
        ' {name = "image", kind = "input", shape = [1, 3, 8, 8]},\n'
        ' {name = "conv1", kind = "conv", out = 4, kernel = 3, stride = 2, padding = 1, bias = true},\n'
        ' {name = "relu1", kind = "activation"},\n'
        ' {name = "wide", kind = "conv", inputs = ["relu1"], out = 4, kernel = [1, 3], padding = [0, 1]},\n'
        ' {name = "sum", kind = "add", inputs = ["wide", "relu1"]},\n'
        ' {name = "flat", kind = "flatten"},\n {name = "fc", kind = "linear", out = 10},\n]\n'
    )
    csv, toml = (trace.import_file(tmp_path / f"net.{kind}") for kind in ("csv", "toml"))
    assert csv.ops == toml.ops and csv.name == toml.name == "net"
    adam = trace.import_file(tmp_path / "net.toml", name="other", optimizer="adam")
    assert adam.name == "other" and adam.phase("update")[0].kind == "adam"


@pytest.mark.parametrize("old, new, words", [
    ("conv1,conv,,,4,3,2", "conv1,conv,,,4,3,two", "line 3: stride = 'two'; whole numbers are needed"),
    ("4,3,2,1,true", "4,3,2,1,yes", "line 3: bias = 'yes'; true or false"),
    ("fc,linear,,,10,,,,", "fc,linear,,,10,,,", "line 8: 8 cells, the heading has 9"),
    ("kernel,stride", "kernal,stride", "column 'kernal' is no key of a layer (did you mean 'kernel'?)"),
    ("padding,bias", "padding,padding", "column 'padding' appears twice"),
    ("wide;relu1", "wide;relu7", "reads 'relu7', which no earlier layer is"),
    ("4,1x3,,0x1", "4,9x9,,0x1", "window 9x9 does not fit"),
])  # fmt: skip
def test_wrong_tables(tmp_path, old, new, words):
    path = tmp_path / "net.csv"
    path.write_text(TABLE.replace(old, new))
    with pytest.raises(NpusimError) as caught:
        trace.from_layer_table(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


CELLS = st.sampled_from(
    ["", "1", "3x3", "1x3x8x8", "conv", "input", "add", "a;b", "true", "x", '"', "99999999999999", "-1"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(CELLS, min_size=9, max_size=9), max_size=5))
def test_any_table_gives_a_step_or_one_error(tmp_path, rows):
    path = tmp_path / "net.csv"
    path.write_text(TABLE.split("\n")[0] + "\nx,input,,1x3x8x8,,,,,\n" + "\n".join(",".join(row) for row in rows))
    try:
        trace.from_layer_table(path).verify()
    except NpusimError as error:
        assert "net.csv" in str(error)


@pytest.mark.parametrize("name, content, words", [
    ("a.cfg", "", "is a machine, not a step"),
    ("a.npz", "", "is a trace already"),
    ("a.what", "", "cannot tell its format"),
    ("a.json", "{", "not valid JSON"),
    ("a.json", "[" * 100_000, "nested too deeply"),
    ("a.json", "{}", "neither an execution trace"),
    ("a.json.gz", "\x1f\x08", "not valid JSON"),
    ("a.csv", "", "no layers"),
    ("a.toml", "name =", "not valid TOML"),
])  # fmt: skip
def test_files_of_no_known_format(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(NpusimError, match=words) as caught:
        trace.import_file(tmp_path / name)
    assert name in str(caught.value)


def test_what_is_asked_for_must_make_sense(tmp_path):
    with pytest.raises(NpusimError, match=r"unknown format 'onx' \(did you mean 'onnx'\?\)"):
        trace.import_file(tmp_path, "onx")
    with pytest.raises(NpusimError, match="no such file"):
        trace.import_file(tmp_path / "none.onnx")
    (tmp_path / "net.csv").write_text(TABLE)
    with pytest.raises(NpusimError, match="unknown optimizer 'lion'"):
        trace.import_file(tmp_path / "net.csv", optimizer="lion")
    broken = tmp_path / "a.json"
    broken.write_bytes(b"\x1f\x8b" + b"0" * 50)
    with pytest.raises(NpusimError, match="not a readable gzip file"):
        trace.import_file(broken)
    with pytest.raises(NpusimError, match="not a regular file"):
        trace.import_file(tmp_path, "layers")
