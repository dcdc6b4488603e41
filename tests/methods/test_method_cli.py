"""`npusim compare --methods`, `list methods`, `show method`."""

import csv
import json

import pytest

from npusim import method, read

# MCUNet has no norms, mcu-8x8 no crossbars.
LEFT_OUT = {"fast-ntk", "xbm", "xma", "xma2"}


def test_table(npusim, tmp_path):
    code, out, _ = npusim("compare", "tiny-cnn", "--methods", "last-k:k=1,swu", "--out", tmp_path / "r")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["method", "dense", "last-k:k=1", "swu", "energy:"]
    assert out.splitlines()[-1].startswith("energy: generic-28nm, 28 nm, LPDDR4; low confidence: index")
    rows = list(csv.DictReader((tmp_path / "r" / "methods.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == ["dense", "last-k:k=1", "swu"]
    assert all("dram_access" in row["low_confidence"] for row in rows)
    assert float(rows[0]["speedup"]) == 1 and float(rows[1]["speedup"]) > 1
    record = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert record["hardware"]["requested"] == "edge-16x16" and len(record["methods"]) == 3
    again = read(tmp_path / "r")
    assert [run.label for run in again.runs] == ["dense", "last-k:k=1", "swu"]
    for run, row in zip(again.runs, rows, strict=True):
        assert run.cycles == pytest.approx(float(row["cycles"])) and run.peak_bytes == float(row["peak_bytes"])
    first = (tmp_path / "r" / "report.html").read_text()
    assert again.report(tmp_path / "again.html").read_text() == first


def test_all_names_what_it_leaves_out(npusim):
    code, out, _ = npusim("compare", "mcunet-5fps", "--methods", "all", "--json", "--hardware", "mcu-8x8")
    record = json.loads(out)
    assert code == 0 and set(record["left_out"]) == LEFT_OUT
    assert {row["method"] for row in record["methods"]} == set(method.names()) - LEFT_OUT


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("fast-ntk", "the step has no normalisation layer"),
        ("last-k:k=0", "k = 0; a whole number in 1.."),
        ("swo", "did you mean 'swu'"),
        ("xbm", "method 'xbm' does not fit machine 'edge-16x16': it masks columns of crossbars"),
        ("swu,swu", "--methods names swu twice"),
        (",", "--methods names no method"),
        ("mcunetv3:scheme=custom:biases=50", "50 biases, but 42 layers"),
    ],
)
def test_mistakes(npusim, methods, message):
    code, out, err = npusim("compare", "mcunet-5fps", "--methods", methods)
    assert (code, out) == (2, "") and message in err and "Traceback" not in err


LINEAR = """name = "linear"
[[layers]]
name = "input"
kind = "input"
shape = [4, 12]
[[layers]]
name = "fc1"
kind = "linear"
out = 8
[[layers]]
name = "fc2"
kind = "linear"
out = 3
"""


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("centre-kernel", "layer all: no convolution with taps"),
        ("sparcl", "no convolution with taps behind the first"),
        ("gradient-filtering", "the step has no convolution"),
        ("orepa", "no ungrouped convolution with taps"),
        ("fast-ntk", "the step has no normalisation layer"),
        ("instance-filtering", "layer fc1: the filter looks at images"),
        ("bias-only", "no layer of the step has a bias"),
        ("mcunetv3:scheme=custom:biases=1:layers=7:ratios=1", "layer 7: out of range: the layers in front are 0..0"),
        ("mcunetv3:scheme=custom:biases=1:layers=0:ratios=5/4", "ratio '5/4' is not in 0..1"),
        ("dynamic-sparse:share=1.5", "share = 1.5; a number in 0..1 is needed"),
        ("swu:density=-0.1", "density = -0.1; a number in 0..1 is needed"),
        ("elastic-trainer:rho=0.01", "no tensor fits rho = 0.01"),
        ("snntorch-ipu:spikes=0.5", "does not fit machine 'edge-16x16'"),
        ("xma2", "does not fit machine 'edge-16x16'"),
    ],
)
def test_misfits_name_layer_and_reason(npusim, tmp_path, methods, message):
    path = tmp_path / "linear.toml"
    path.write_text(LINEAR)
    code, out, err = npusim("compare", path, "--methods", methods, "--out", tmp_path / "results")
    assert (code, out) == (2, "") and message in err and methods.partition(":")[0] in err
    assert not (tmp_path / "results").exists()


def test_memory_limit(npusim, tmp_path):
    words = ("compare", "tiny-cnn", "--methods", "last-k:k=1", "--memory-limit", "100KB")
    code, out, err = npusim(*words)
    assert (code, out) == (2, "") and "method 'dense': step" in err and "the memory limit has 102400" in err
    code, out, _ = npusim(*words, "--memory-over", "spill", "--json")
    record = json.loads(out)
    assert code == 0 and record["memory_limit"] == {"bytes": 102400, "over": "spill"}
    assert [row["peak_bytes"] <= 102400 for row in record["methods"]] == [True, True]
    code, _, err = npusim("run", "tiny-cnn", "--memory-limit", "100KB")
    assert code == 2 and "raise the limit, or let tensors spill" in err
    wrong = {
        "at least 1 byte": ("--memory-limit", "0"),
        "whole number of bytes": ("--memory-limit", "1 box"),
        "needs --memory-limit": ("--memory-over", "spill"),
        "(did you mean 'spill'?)": ("--memory-limit", "1MB", "--memory-over", "spil"),
    }
    for message, words in wrong.items():
        code, out, err = npusim("run", "tiny-cnn", *words)
        assert (code, out) == (2, "") and message in err


def test_list_and_show(npusim):
    _, out, _ = npusim("list", "methods")
    assert [line.split()[0] for line in out.splitlines()] == method.names()
    _, out, _ = npusim("show", "method", "gradient-filtering")
    assert "Source: Yang et al." in out and "patch size" in out
    assert npusim("show", "methods", "no-such")[0] == 2
