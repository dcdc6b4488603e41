"""`npusim compare --methods`, `list methods`, `show method`."""

import csv
import json
import sys

import pytest

from npusim import method
from npusim.cli import main

# MCUNet has no norms, mcu-8x8 no crossbars.
LEFT_OUT = {"fast-ntk", "xbm", "xma", "xma2"}


@pytest.fixture
def npusim(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["npusim", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return call


def test_table(npusim, tmp_path):
    code, out, _ = npusim("compare", "tiny-cnn", "--methods", "last-k:k=1,swu", "--out", tmp_path / "r")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["method", "dense", "last-k:k=1", "swu"]
    rows = list(csv.DictReader((tmp_path / "r" / "methods.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == ["dense", "last-k:k=1", "swu"]
    assert float(rows[0]["speedup"]) == 1 and float(rows[1]["speedup"]) > 1
    record = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert record["hardware"]["requested"] == "edge-16x16" and len(record["methods"]) == 3


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


def test_list_and_show(npusim):
    _, out, _ = npusim("list", "methods")
    assert [line.split()[0] for line in out.splitlines()] == method.names()
    _, out, _ = npusim("show", "method", "gradient-filtering")
    assert "Source: Yang et al." in out and "patch size" in out
    assert npusim("show", "methods", "no-such")[0] == 2
