"""`import npusim` as a user meets it: names, results, comparisons, files and back, notebooks."""

import json
import pickle
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from steps import HOSTILE, small_step

import npusim
import npusim.accessor
import npusim.api
from npusim import simulation
from npusim.errors import CapacityError, CatalogueError, ConfigError, NpusimError, ResultsError
from npusim.method_runs import compare_methods

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base():
    return npusim.simulate(small_step())


@pytest.fixture(scope="module")
def fast():
    return npusim.simulate(small_step(), dataflow="reduction-spatial")


def test_every_public_name_is_there_and_documented():
    assert {name for name in npusim.__all__ if not getattr(npusim, name).__doc__} == set()
    assert set(npusim.__all__) <= set(dir(npusim))


def examples():
    """The `>>>` lines of every public function and method."""
    owners = [npusim.api, npusim.Result, npusim.Comparison, npusim.accessor.Plots]
    documented = [value for owner in owners for value in (owner, *vars(owner).values())]
    for value in documented:
        value = getattr(value, "func", getattr(value, "fget", value))
        lines = re.findall(r"^ *>>> (.*)$", getattr(value, "__doc__", None) or "", re.MULTILINE)
        if lines:
            yield pytest.param(lines, id=getattr(value, "__qualname__", "npusim"))


@pytest.mark.slow
@pytest.mark.parametrize("lines", list(examples()))
def test_examples_of_docstrings_run(lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {"npusim": npusim, "r": npusim.simulate("tiny-cnn")}
    for line in lines:
        exec(line, known)


def test_a_wrong_name_suggests_the_closest():
    with pytest.raises(AttributeError, match=r"no attribute 'simulat' .did you mean 'simulate'"):
        _ = npusim.simulat
    with pytest.raises(CatalogueError, match="did you mean 'edge-16x16'"):
        npusim.hardware("edge-16x61")
    with pytest.raises(CatalogueError, match="did you mean 'methods'"):
        npusim.names("method")
    with pytest.raises(CatalogueError, match="did you mean 'reduction-spatial'"):
        npusim.simulate(small_step(), dataflow="reduction-spatia")
    with pytest.raises(CatalogueError, match="did you mean 'swu'"):
        npusim.simulate(small_step(), method="swuu")
    with pytest.raises(CatalogueError, match=r"unknown engine 'simpi' .did you mean 'simpy'"):
        npusim.simulate(small_step(), engine="simpi")


def test_importing_is_quick():
    code = "import time; t = time.process_time(); import npusim; dir(npusim); print(time.process_time() - t)"
    assert min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)) < 0.05


@pytest.mark.slow
def test_type_checkers_see_the_names(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import npusim\nreveal_type(npusim.hardware().replace(rows=32))\nnpusim.simulate(1)\n")
    shown = subprocess.run([sys.executable, "-m", "mypy", path], cwd=ROOT, capture_output=True, text=True).stdout
    assert 'Revealed type is "npusim.npu.Hardware"' in shown
    assert 'error: Argument 1 to "simulate" has incompatible type "int"' in shown and "Found 1 error" in shown


def test_a_machine_is_changed_by_key():
    assert npusim.hardware("edge-16x16", rows=32) == npusim.hardware("edge-16x16").replace({"array.rows": 32})
    with pytest.raises(ConfigError, match="did you mean"):
        npusim.hardware("edge-16x16", row=32)


def test_a_result_says_what_the_pipeline_says(base):
    run = simulation.simulate(small_step(), npusim.hardware("edge-16x16"))
    pd.testing.assert_frame_equal(base.layers.drop(columns=["bound", "bound_cycles"]), run.layers)
    pd.testing.assert_frame_equal(base.phases.drop(columns="bound_cycles"), run.phases())
    assert base.cycles == run.schedule.cycles and base.seconds == base.cycles / 800e6
    assert base.energy_pj == pytest.approx(run.energy.total_pj)
    assert base.layers.bound_cycles.tolist() == run.bounds.max(axis=1).tolist()
    assert (base.layers.bound_cycles <= base.layers.cycles).all()
    assert base.phases.bound_cycles["step"] == base.layers.bound_cycles.sum()
    energy = base.energy
    assert list(energy.index) == list(base.phases.index) and list(energy.columns) == [*run.energy.components, "total"]
    assert np.allclose(energy.drop(columns="total").sum(axis=1), energy.total)
    assert energy.total["step"] == pytest.approx(energy.total.drop("step").sum())


def test_names_files_and_values_are_the_same_thing(base, tmp_path):
    path = tmp_path / "small.npz"
    npusim.trace.write(small_step(), path)
    flow = npusim.simulate(path, npusim.hardware("edge-16x16"), ROOT / "dataflows" / "dense_os.py")
    pd.testing.assert_frame_equal(flow.layers, base.layers)
    assert flow.manifest["workload"]["file_sha256"] and not base.manifest["workload"]["file_sha256"]
    assert npusim.load(path, batch=8).ops[0].dims.n == 8


@pytest.mark.parametrize("method", ["last-k:k=1", "instance-filtering", "elastic-trainer"])
def test_a_method_gives_what_the_table_of_methods_gives(method):
    step, hw = npusim.load("tiny-cnn"), npusim.hardware("mcu-8x8")
    planned = compare_methods(step, hw, [method]).runs[1]
    result = npusim.simulate(step, hw, method=method)
    for name, value in planned.step.items():
        assert result.phases.at["step", name] == pytest.approx(value)
    assert result.peak_bytes == planned.memory.peak_bytes
    assert sum(result.facts.shares) > 0 and len(result.runs) == len(planned.runs)
    assert ("part" in result.layers) == (len(result.runs) > 1)
    step_row = result.phases.loc["step"]
    parts = ["array_cycles", "vector_cycles", "load_stall_cycles", "store_stall_cycles", "drain_cycles"]
    assert step_row[parts].sum() == pytest.approx(step_row.cycles)
    assert 0 < step_row.utilisation <= 1


def test_a_memory_limit_is_that_of_the_command_line():
    peak = npusim.simulate("tiny-cnn").peak_bytes
    with pytest.raises(CapacityError, match="the memory limit"):
        npusim.simulate("tiny-cnn", memory_limit=peak - 1)
    spilled = npusim.simulate("tiny-cnn", memory_limit="100KB", memory_over="spill")
    assert spilled.peak_bytes <= 102_400 < peak and "aux" in spilled.phases.index
    assert spilled.manifest["memory_limit"] == {"bytes": 102_400, "over": "spill"}
    assert npusim.simulate("tiny-cnn", memory_limit=peak).phases.cycles["step"] < spilled.cycles
    both = npusim.compare("tiny-cnn", methods=["", "last-k:k=1"], memory_limit=102_400, memory_over="spill")
    assert [run.peak_bytes <= 102_400 for run in both.runs] == [True, True]


@pytest.mark.parametrize(
    "limit, message",
    [
        ({"memory_limit": 0}, "memory_limit 0: at least 1 byte is needed"),
        ({"memory_limit": -5}, "memory_limit -5: must be a whole number of bytes"),
        ({"memory_limit": True}, "memory_limit True: must be a whole number of bytes"),
        ({"memory_limit": "1 box"}, "memory_limit '1 box': must be a whole number of bytes"),
        ({"memory_over": "spill"}, "memory_over spill needs memory_limit"),
        ({"memory_limit": 1, "memory_over": "spil"}, "memory_over 'spil' is not known (did you mean 'spill'?)"),
    ],
)
def test_a_wrong_memory_limit_is_named(limit, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        npusim.simulate("tiny-cnn", **limit)


def test_a_comparison_holds_results_against_the_first(base, fast):
    both = base.compare(fast)
    assert [run.label for run in both.runs] == ["dense-os", "reduction-spatial"]
    row = both.table.loc["reduction-spatial", "grad_weight"]
    assert row.speedup == base.phases.cycles["grad_weight"] / fast.phases.cycles["grad_weight"]
    assert row.energy_gain == base.phases.energy_pj["grad_weight"] / fast.phases.energy_pj["grad_weight"]
    same = npusim.compare(small_step(), dataflows=["dense-os", "reduction-spatial"])
    pd.testing.assert_frame_equal(same.table, both.table)


def test_speedup_is_of_time_when_clocks_differ(base):
    quick = npusim.simulate(small_step(), npusim.hardware("edge-16x16", clock_hz="1.6GHz"))
    both = base.compare(quick)
    assert both.table.loc[both.runs[1].label, "step"].speedup == pytest.approx(base.seconds / quick.seconds)
    assert quick.cycles > base.cycles  # DRAM is as fast as before, so it takes more of the shorter cycles.


def test_labels_say_in_what_results_differ(base, fast):
    taller = npusim.simulate(small_step(), npusim.hardware("edge-16x16", rows=32))
    other = npusim.simulate(small_step(), "mcu-8x8", dataflow="dense-ws")
    assert [run.label for run in base.compare(taller).runs] == [
        "edge-16x16 (array.rows=16)",
        "edge-16x16 (array.rows=32)",
    ]
    assert [run.label for run in base.compare(other).runs] == ["edge-16x16, dense-os", "mcu-8x8, dense-ws"]
    assert [run.label for run in base.compare(base).runs] == ["dense-os #1", "dense-os #2"]
    methods = npusim.compare("tiny-cnn", methods=["", "bias-only"])
    assert [run.label for run in methods.runs] == ["as recorded", "bias-only"]
    assert [run.label for run in base.compare(fast).compare(base).runs] == [
        "dense-os #1", "reduction-spatial", "dense-os #2",
    ]  # fmt: skip


def test_a_phase_that_only_one_run_has(base):
    methods = npusim.compare("tiny-cnn", methods=["", "classifier-only"])
    assert ("classifier-only", "grad_input") not in methods.table.index or len(methods.runs[1].phases) < 6
    assert "<svg" in open_page(methods)


def open_page(comparison):
    from npusim.html.page import report_page

    return report_page(comparison)


def test_files_give_the_same_report(base, fast, tmp_path):
    both = base.compare(fast)
    for result in (base, both):
        folder = result.save(tmp_path / "saved")
        again = npusim.read(folder)
        assert type(again) is type(result)
        assert again.report(tmp_path / "again.html").read_text() == result.report(tmp_path / "first.html").read_text()
        for path in folder.iterdir():
            path.unlink()


def test_files_of_a_method_with_parts_give_the_same_report(tmp_path):
    both = npusim.compare("tiny-cnn", "mcu-8x8", methods=["", "instance-filtering"])
    again = npusim.read(both.save(tmp_path / "saved"))
    assert again.report(tmp_path / "b.html").read_text() == both.report(tmp_path / "a.html").read_text()


def test_names_like_formulas_and_nothing_survive_files(base, tmp_path):
    from dataclasses import replace

    names = ["=cmd()", "NA", "", "nan", "1", *base.layers.name[5:]]
    odd = replace(base, layers=base.layers.assign(name=names))
    assert npusim.read(odd.save(tmp_path)).layers.name.tolist() == names


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[1]"), "manifest.json: has no 'runs'"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff"), "manifest.json: cannot be read"),
        (lambda folder: (folder / "layers.csv").unlink(), "layers.csv: cannot be read"),
        (lambda folder: (folder / "layers.csv").write_text(""), "layers.csv: cannot be read"),
        (lambda folder: (folder / "layers.csv").write_text("name\nx\n"), "layers.csv: has no column phase, kind"),
        (lambda folder: edit(folder / "units.csv", "array,", "array,x"), "units.csv: holds no numbers in busy"),
        (lambda folder: edit_json(folder, "schema", 99), "schema = 99; this version of npusim reads 1"),
        (lambda folder: edit_json(folder, "date", None), "missing or of another kind: date"),
        (lambda folder: edit_json(folder, "runs", [{"label": "x"}]), "runs.0: 11 problems"),
    ],
)
def test_spoilt_files_are_named(base, tmp_path, spoil, message):
    base.save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ResultsError) as caught:
        npusim.read(tmp_path)
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def edit_json(folder, key, value):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def test_no_folder_says_what_is_needed(tmp_path):
    with pytest.raises(NpusimError, match="a folder that `npusim run --out` or `compare --out` wrote is needed"):
        npusim.read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["speedup", "energy", "cycles", "roofline", "memory"])
def test_every_figure_of_one_result_and_of_several(base, fast, name):
    for result in (base, base.compare(fast)):
        figure = getattr(result.plot, name)()
        assert figure._repr_png_()[:4] == b"\x89PNG"


def test_headroom_bars_are_cycles_over_bounds(base):
    (axes,) = base.plot.speedup().axes
    expected = base.phases.cycles / base.phases.bound_cycles
    assert [bar.get_height() for bar in axes.containers[0]] == pytest.approx(expected.tolist())


def test_notebooks_get_tables_of_escaped_text(base, fast):
    step = small_step(HOSTILE)
    machine = npusim.hardware("edge-16x16").replace({"name": HOSTILE, "description": HOSTILE})
    bad = npusim.simulate(step, machine)
    values = [step, machine, bad, bad.runs[0], bad.compare(npusim.simulate(step, machine, "dense-ws"))]
    for value in values:
        html, shown = value._repr_html_(), repr(value)
        assert "<script" not in html and "<table>" in html
        for text in (html, shown):
            assert "\x1b" not in text and "\u202e" not in text
        assert len(shown) < 700
        HTMLParser().feed(html)
    assert "reduction-spatial: " in repr(base.compare(fast))


def test_values_can_be_pickled(base):
    for value in (small_step(), npusim.hardware(), base):
        assert repr(pickle.loads(pickle.dumps(value))) == repr(value)
