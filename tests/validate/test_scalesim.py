"""SCALE-Sim's numbers for single layers, its reports for whole files, and what is said of wrong files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from npusim.cli import scalesim as scalesim_command
from npusim.errors import ConfigError
from npusim.scalesim import config, dram, model, report, topology
from npusim.validate import scalesim

FOLDER = Path(__file__).parents[2] / "validation" / "scalesim"
RUNS = sorted(path.name for path in (FOLDER / "runs").iterdir())
CONFIG = (FOLDER / "runs" / "os-conv" / "config.cfg").read_text()
needs_jit = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="millions of requests, one by one")


def cells(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return [[cell.strip() for cell in row] for row in csv.reader(file)]


def test_cycles_and_sram_words_of_every_row_are_equal(tmp_path):
    # Without the mode, DRAM words are left out.
    path = tmp_path / "layers.csv"
    path.write_text((FOLDER / "layers.csv").read_text().replace(",CALC,", ",,"))
    found = scalesim.validate(path)
    assert len(found.rows) == 133
    assert [(r.line, r.case, r.difference, r.differing) for r in found.rows if r.difference != 0 or r.differing] == []
    assert {len(row.others) for row in found.rows} == {3}


@needs_jit
@pytest.mark.validation
def test_dram_words_of_every_row_with_unlimited_bandwidth_are_equal():
    found = scalesim.validate(FOLDER / "layers.csv")
    assert found.held
    assert sum(len(row.others) == 7 for row in found.rows) == 66


@needs_jit
@pytest.mark.parametrize("name", RUNS)
def test_reports_are_those_of_scalesim(tmp_path, name):
    run = FOLDER / "runs" / name
    report.run_scalesim(run / "config.cfg", run / "topology.csv", tmp_path)
    for file in ("COMPUTE_REPORT.csv", "BANDWIDTH_REPORT.csv"):
        ours, theirs = cells(tmp_path / file), cells(run / file)
        assert ours[0] == theirs[0]
        assert [len(row) for row in ours] == [len(row) for row in theirs]
        for mine, reference in zip(ours[1:], theirs[1:], strict=True):
            # The last digits of a mean depend on the order of summation.
            assert [float(x) for x in mine[:-1]] == pytest.approx([float(x) for x in reference[:-1]], rel=1e-12)


def test_limited_bandwidth_leaves_empty_what_is_not_reproduced(tmp_path):
    (tmp_path / "user.cfg").write_text(CONFIG.replace("CALC", "USER"))
    (tmp_path / "one.csv").write_text("Layer, M, N, K,\nG, 33, 17, 40,\n")
    results = report.run_scalesim(tmp_path / "user.cfg", tmp_path / "one.csv", tmp_path)
    assert report.notes(config.read(tmp_path / "user.cfg"), results) == [report.NOT_REPLAYED[0]]
    # ceil(33/16) * ceil(17/16) = 6 folds of 40 + 16 + 16 - 2 = 70 cycles; one less is printed.
    assert cells(tmp_path / "COMPUTE_REPORT.csv")[1][:4] == ["0", "", "419", ""]
    assert cells(tmp_path / "BANDWIDTH_REPORT.csv")[1][4:7] == ["", "", ""]


def test_output_size_is_rounded_up():
    layer = topology.Layer("ds", 56, 56, 1, 1, 64, 128, 2, 2)
    assert (layer.m, layer.k, layer.n) == (29 * 29, 64, 128)


@pytest.mark.parametrize(
    ("dataflow", "cycles", "sram"),
    [
        # 3 x 2 folds of 7 + 4 + 3 - 2 cycles; each fold writes 4 + 3 words that do not exist.
        ("os", 6 * 12, (10 * 7 * 2, 7 * 5 * 3, 10 * 5 + 6 * 7)),
        # K on 4 rows, N on 3 columns: 2 x 2 folds of 10 + 8 + 3 - 2.
        ("ws", 4 * 19, (10 * 7 * 2, 7 * 5, 10 * 5 * 2)),
        # K on 4 rows, M on 3 columns: 2 x 4 folds of 5 + 8 + 3 - 2.
        ("is", 8 * 14, (10 * 7, 7 * 5 * 4, 10 * 5 * 2)),
    ],
)
def test_counts_by_hand(dataflow, cycles, sram):
    found = model.counts(dataflow, 10, 7, 5, 4, 3)
    assert (found.cycles, found[2:5]) == (cycles, sram)


def test_a_replayed_buffer_by_hand():
    # 1 x 1 array, output stationary, 1 x 3 by 3 x 1: 3 words of each operand, 10 words to a set of a 1 KiB buffer.
    # Both come in before cycle 0: one set, so one cycle at 10 words per cycle, seen at -1; the result leaves in 2.
    layer = topology.gemm("", 1, 3, 1)
    found = dram.traffic(layer, config.Config("", 1, 1, 1, 1, 1, "os", limited=False))
    assert found == ((3, -1, -1), (3, -1, -1), (1, 2, 2))
    assert found.cycles == 3


def test_depthwise_layers_become_one_per_channel(tmp_path):
    path = tmp_path / "dw.csv"
    path.write_text("heading\nConvDP1, 10, 12, 3, 3, 3, 2, 1,\n\nFC, 1, 1, 1, 1, 20, 5, 1, 1:1,\n")
    layers = topology.read(path)
    assert [layer.name for layer in layers] == ["ConvDP1Channel_0", "ConvDP1Channel_1", "ConvDP1Channel_2", "FC"]
    assert {(layer.m, layer.k, layer.n) for layer in layers} == {(80, 9, 2), (1, 20, 5)}


def test_files_of_version_2_are_read(tmp_path):
    path = tmp_path / "v2.cfg"
    path.write_text(CONFIG[: CONFIG.index("[layout]")] + "[run_presets]\nInterfaceBandwidth: CALC \n")
    assert config.read(path) == config.Config("run_os", 16, 16, 2, 2, 2, "os", limited=False)


def test_every_missing_and_wrong_key_is_named(tmp_path):
    path = tmp_path / "bad.cfg"
    path.write_text(
        "[architecture_presets]\nArrayHeight: 0\nArrayWidht: 8\nIfmapSramSzkB: 1.5\nFilterSramSzkB: 64\n"
        "IfmapOffset: 0\nFilterOffset: 1\nOfmapOffset: 2\nDataflow: OS\n"
        "[sparsity]\nSparsitySupport: true\n[run_presets]\nInterfaceBandwidth: USER\n"
    )
    with pytest.raises(ConfigError) as caught:
        config.read(path)
    assert str(caught.value) == (
        f"{path}: 8 problems\n"
        "  general.run_name: missing, as is the section [general]\n"
        "  architecture_presets.ArrayHeight = '0': must be a whole number from 1 to 65536\n"
        "  architecture_presets.ArrayWidth: missing (did you mean 'arraywidht'?)\n"
        "  architecture_presets.IfmapSramSzkB = '1.5': must be a whole number from 1 to 1048576\n"
        "  architecture_presets.OfmapSramSzkB: missing\n"
        "  architecture_presets.Dataflow = 'OS': must be os or ws or is\n"
        "  architecture_presets.Bandwidth: missing\n"
        "  sparsity.SparsitySupport = 'true': not modelled, must be False"
    )


def test_files_that_are_no_configuration(tmp_path):
    path = tmp_path / "bad.cfg"
    path.write_text("ArrayHeight: 8\n")
    with pytest.raises(ConfigError, match="not a SCALE-Sim configuration: File contains no section headers"):
        config.read(path)
    with pytest.raises(ConfigError, match=r"missing\.cfg: cannot be read: No such file"):
        config.read(tmp_path / "missing.cfg")


def test_every_wrong_line_of_a_topology_is_named(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(
        "heading,\n"
        "NoComma, 10, 10, 3, 3, 8, 4, 1\n"
        "TooFew, 10, 10, 3, 3, 8,\n"
        "Words, 10, ten, 3, 3, 0, 4, 1,\n"
        "Window, 2, 10, 3, 3, 8, 4, 1,\n"
        "Huge, 2147483647, 2147483647, 2147483647,\n"
    )
    with pytest.raises(ConfigError) as caught:
        topology.read(path)
    assert str(caught.value) == (
        f"{path}: 5 problems\n"
        "  line 2: must end with a comma; SCALE-Sim drops what follows the last one\n"
        "  line 3: 5 numbers; a convolution has 7 (IFMAP height, IFMAP width, filter height, filter width, channels, "
        "filters, stride), a GEMM has 3 (M, N, K)\n"
        "  line 4: IFMAP width = 'ten', channels = '0': must be whole numbers from 1 to 2147483647\n"
        "  line 5: filter height = 3 is more than IFMAP height = 2\n"
        f"  line 6: {2147483647**3} MACs; at most {2**56} can be counted"
    )


def test_a_topology_without_layers(tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text("Layer, M, N, K,\n")
    with pytest.raises(ConfigError, match="no layers; the first line is taken as a heading"):
        topology.read(path)


def test_the_command_prints_every_layer_and_writes_both_reports(tmp_path):
    app = typer.Typer()
    app.command()(scalesim_command.run)
    run = FOLDER / "runs" / "ws-gemm"
    words = [
        "--scalesim-config",
        str(run / "config.cfg"),
        "--topology",
        str(run / "topology.csv"),
        "--out",
        str(tmp_path),
    ]
    printed = CliRunner().invoke(app, words)
    assert printed.exit_code == 0
    # 33 x 40 by 40 x 17 on 16 x 8: ceil(40/16) * ceil(17/8) = 9 folds of 33 + 32 + 8 - 2 = 71 cycles, one less printed.
    assert printed.output.splitlines()[2].split()[:4] == ["G1", "33x40x17", "9", "638"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["BANDWIDTH_REPORT.csv", "COMPUTE_REPORT.csv"]
    first = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)["layers"][0]
    assert (first["name"], first["cycles"], first["dram"]["filter"]["words"]) == ("G1", 639, 680)
    assert CliRunner().invoke(app, words[:2]).exit_code == 2


def test_reports_without_dram_columns_need_no_compiler(tmp_path):
    """What replaces SCALE-Sim's command is a quick and small process: only the replay of DRAM words loads numba."""
    run = FOLDER / "runs" / "ws-gemm"
    config = tmp_path / "user.cfg"
    config.write_text((run / "config.cfg").read_text().replace("CALC", "USER"))
    code = (
        "import sys; from npusim.scalesim import report\n"
        "(first, *_) = report.run_scalesim(*sys.argv[1:])\n"
        "print(first.counts.cycles, 'numba' in sys.modules)"
    )
    given = (config, run / "topology.csv", tmp_path / "out")
    done = subprocess.run([sys.executable, "-c", code, *map(str, given)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["639", "False"]
