"""Sweeps from end to end: results, resuming, search, tables, the command, figures and the page."""

import json
import re
import subprocess
from shutil import which

import numpy as np
import pandas as pd
import pytest
from steps import HOSTILE, small_step

from npusim import npu, trace
from npusim.errors import ConfigError, NpusimError
from npusim.simulation import simulate
from npusim.sweep import analysis, export, front, sweep
from npusim.sweep import spec as specs
from npusim.sweep.metrics import METRICS
from npusim.sweep.pages import write
from npusim.sweep.run import Listener
from npusim.sweep.search import search


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A store with a sweep of dense and selective dataflows over PEs and buffers; workload with masks made by hand."""
    folder = tmp_path_factory.mktemp("masked")
    trace.write(small_step(name="<script>alert(1)</script>$x_1$=\"'&"), folder / "step.npz")
    description = {
        "name": "masked",
        "description": HOSTILE,
        "fixed": {"workload": str(folder / "step.npz"), "energy.sram_outside": "power-law"},
        "grid": {
            "dataflow": ["dense-os", "selective-row", "reduction-spatial"],
            "buffers.a.bytes": ["16KiB", "32KiB", "96KiB"],
        },
        "linked": [{"array.rows": [4, 8], "array.cols": [4, 8]}],
    }
    return sweep(description, folder / "store.sqlite", workers=2)


def test_rows_are_those_of_simulate(masked):
    table = masked.frame()
    step = trace.read(table.workload[0])
    for i in (5, len(table) - 1):
        row = table.loc[i]
        changes = {key: int(row[key]) for key in ("array.rows", "array.cols", "buffers.a.bytes")}
        hardware = npu.load("edge-16x16").replace({**changes, "energy.sram_outside": "power-law"})
        run = simulate(step, hardware, row.dataflow)
        assert row.cycles == run.cycles.sum()
        assert row.energy_pj == pytest.approx(run.energy.total_pj, rel=1e-12)
        assert row.grad_weight_cycles == run.phases().cycles["grad_weight"]
        parts = ("busy", "port_stall", "load_stall", "store_stall", "drain")
        assert sum(row[f"{part}_cycles"] for part in parts) == row.cycles
        assert sum(row[f"{name}_pj"] for name in run.energy.components) == pytest.approx(row.energy_pj)
        assert row.dram_bytes == run.count("dram_read_bytes").sum() + run.count("dram_write_bytes").sum()


def test_every_point_says_what_its_energy_rests_on(masked):
    message = masked.frame().message
    assert message.str.startswith("generic-28nm, 28 nm, LPDDR4; low confidence: index").all()
    small = masked.frame()["buffers.a.bytes"].isin([16384, 32768])
    assert (message.str.endswith("; by a scaling rule: buffer a") == small).all()


def test_methods_are_those_of_compare_methods(tmp_path):
    """Also of a method with several parts, and of one that chooses by measured times."""
    from npusim.method_runs import compare_methods

    trace.write(small_step(density=None), tmp_path / "step.npz")
    names = ["last-k:k=1", "swu", "instance-filtering", "elastic-trainer"]
    description = {
        "name": "methods",
        "fixed": {"workload": str(tmp_path / "step.npz"), "dataflow": "reduction-spatial"},
        "grid": {"method": names},
    }
    table = sweep(description, tmp_path / "s.sqlite", workers=1).frame().set_index("method")
    step = trace.read(tmp_path / "step.npz")
    expected = compare_methods(step, npu.load("edge-16x16"), names, "reduction-spatial").table().set_index("method")
    for name in names:
        assert table.cycles[name] == round(expected.cycles[name]), name
        assert table.energy_pj[name] == pytest.approx(expected.energy_pj[name], rel=1e-9)
    with pytest.raises(ConfigError, match=r"unknown method 'last' .*"):
        sweep({**description, "grid": {"method": ["last"]}}, tmp_path / "s.sqlite")


def test_running_again_computes_nothing_and_another_sweep_shares(spec, tmp_path):
    first = sweep(spec(), tmp_path / "s.sqlite", workers=1)
    assert (first.counts, first.computed) == ({"done": 4}, 4)
    assert sweep(spec(), tmp_path / "s.sqlite", workers=1).computed == 0
    wider = spec(name="wider", grid={"array.rows": [8, 16, 24], "array.cols": [8, 16]})
    assert sweep(wider, tmp_path / "s.sqlite", workers=1).computed == 2
    with pytest.raises(NpusimError, match=r"holds 2 sweeps \(small, wider\): which one\?"):
        export.frame(tmp_path / "s.sqlite")
    assert len(export.frame(tmp_path / "s.sqlite", "wider")) == 6


def test_invalid_points_are_refused_or_recorded(spec, tmp_path):
    bad = spec(grid={"buffers.a.banks": [8, 7]})
    with pytest.raises(ConfigError, match="1 of 2 points cannot be simulated"):
        sweep(bad, tmp_path / "s.sqlite", workers=1)
    assert not (tmp_path / "s.sqlite").exists()
    outcome = sweep(bad, tmp_path / "s.sqlite", workers=1, skip_invalid=True)
    assert outcome.counts == {"done": 1, "invalid": 1}
    assert "does not divide" in outcome.frame().message[1]


def test_failed_points_can_be_tried_again(spec, tmp_path, moody):
    bad = spec(fixed={"workload": "tiny-cnn", "dataflow": moody}, grid={"array.rows": [7, 8]})
    assert sweep(bad, tmp_path / "s.sqlite", workers=1).counts == {"done": 1, "failed": 1}
    assert sweep(bad, tmp_path / "s.sqlite", workers=1, retry_failed=True).computed == 1


def test_tables_keep_types(masked, tmp_path):
    pytest.importorskip("pyarrow")
    table = masked.frame()
    export.write(tmp_path / "t.parquet", table)
    export.write(tmp_path / "t.csv", table)
    assert pd.read_parquet(tmp_path / "t.parquet").cycles.tolist() == table.cycles.tolist()
    assert pd.read_csv(tmp_path / "t.csv").cycles.dropna().tolist() == table.cycles.dropna().tolist()
    assert list(table.columns[-len(METRICS) :]) == list(METRICS)
    with pytest.raises(NpusimError, match=r"must end with \.csv or \.parquet"):
        export.write(tmp_path / "t.xls", table)


def test_front_and_hypervolume():
    # (1,3) (2,2) (3,1) beat (3,3); an equal point counts once
    points = [(3, 3), (1, 3), (2, 2), (3, 1), (2, 2)]
    assert front.front(points) == [1, 2, 3]
    # against (4,4): 3*1 + 2*1 + 1*1 = 6 unit squares
    assert front.hypervolume(points, (4, 4)) == 6
    # one point of a cube: 2 * 3 * 4; a point outside counts nothing
    assert front.hypervolume([(0, 0, 0), (9, 9, 9)], (2, 3, 4)) == 24
    rng = np.random.default_rng(0)
    cloud = [tuple(row) for row in rng.random((40, 3))]
    samples = rng.random((20_000, 3))
    inside = np.zeros(len(samples), bool)
    for point in cloud:
        inside |= (samples >= point).all(axis=1)
    assert front.hypervolume(cloud, (1.0, 1.0, 1.0)) == pytest.approx(inside.mean(), abs=0.02)
    naive = [i for i, p in enumerate(cloud) if not any(all(q[k] <= p[k] for k in range(3)) and q != p for q in cloud)]
    assert front.front(cloud) == naive


def test_gains_and_sensitivity():
    table = pd.DataFrame(
        {
            "dataflow": ["dense-os", "fast"] * 2,
            "array.rows": [8, 8, 16, 16],
            "array.cols": [8, 8, 16, 16],
            "status": "done",
            "key": list("abcd"),
            "message": "",
            "cycles": [400, 200, 100, 100],
            "grad_weight_cycles": [80, 20, 20, 20],
            "energy_pj": [4.0, 2.0, 4.0, 8.0],
        }
    )
    gains = analysis.against(table, "dense-os")
    assert gains.speedup.tolist() == [1, 2, 1, 1]
    assert gains.wgc_speedup.tolist() == [1, 4, 1, 1]
    assert gains.energy_gain.tolist() == [1, 2, 1, 0.5]
    assert analysis.groups_of(table) == [("dataflow",), ("array.rows", "array.cols")]
    # log2 cycles: 8.64 7.64 6.64 6.64; total variance 0.6875, between sizes 0.5625, between dataflows 0.0625
    effects = analysis.sensitivity(table, "cycles")
    assert list(effects) == ["array.rows = array.cols", "dataflow"]
    assert effects["array.rows = array.cols"] == pytest.approx(0.5625 / 0.6875)
    assert effects["dataflow"] == pytest.approx(0.0625 / 0.6875)


def test_search_is_the_same_again_and_computes_nothing_twice(spec, tmp_path):
    pytest.importorskip("optuna")
    space = spec(
        grid={"dataflow": ["dense-os", "dense-ws"], "array.rows": "4..64 log2"},
        random={"samples": 1, "keys": {"array.cols": "4..32 log"}},
        constraints={"pes": "<= 1024"},
        name="searched",
    )
    parsed = specs.parse(space)
    first = search(parsed, 24, tmp_path / "s.sqlite", seed=3, workers=2)
    again = search(parsed, 24, tmp_path / "s.sqlite", seed=3, workers=1)
    assert again.computed == 0
    assert first.counts == again.counts
    table = first.frame()
    assert first.counts["done"] + first.left_out == 24
    assert (table["array.rows"] * table["array.cols"] <= 1024).all()
    with pytest.raises(ConfigError, match=r"--sampler 'nsga'.*known: tpe, nsga2, random"):
        search(parsed, 4, tmp_path / "s.sqlite", sampler="nsga")


def test_progress_counts_rate_and_time_left():
    import io

    from npusim.sweep.progress import Progress, duration
    from npusim.sweep.store import DONE, FAILED, Result

    stream = io.StringIO()
    progress = Progress(stream)
    progress.start(10, 2)
    progress.result(Result("a", DONE, "", {}))
    progress.result(Result("b", FAILED, "line one\nline two", {}))
    progress.times[0] = progress.times[-1] - 2.0
    assert re.fullmatch(r"4 of 10, 1 failed, 0\.5/s, 12 s left", progress.state())
    assert stream.getvalue() == "10 points, 2 of them known\nfirst failure: failed: line one\n"
    assert [duration(s) for s in (3.21, 42, 185, 7800)] == ["3.2 s", "42 s", "3 min 5 s", "2 h 10 min"]
    assert isinstance(progress, Listener)


def test_the_command(tmp_path, monkeypatch, capsys):
    from npusim.cli import main

    def npusim(*words):
        monkeypatch.setattr("sys.argv", ["npusim", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        shown = capsys.readouterr()
        return stopped.value.code or 0, shown.out, shown.err

    toml = tmp_path / "s.toml"
    toml.write_text('name = "s"\n[fixed]\nworkload = "tiny-cnn"\n[grid]\narray.rows = [8, 16]\n')
    store, out = tmp_path / "s.sqlite", tmp_path / "out"
    code, said, _ = npusim("sweep", toml, "--check")
    assert (code, said) == (0, "s: 2 points (2 different); all can be simulated\n")
    code, said, progress = npusim("sweep", toml, "--store", store, "-j", 1, "--export", tmp_path / "r.csv", "-o", out)
    assert code == 0 and "s: 2 done; 2 computed now" in said and "Pareto front of cycles, energy_pj, area_mm2" in said
    assert "2 points" in progress and "2 of 2" in progress
    assert len(pd.read_csv(tmp_path / "r.csv")) == 2
    assert {"index.html", "results.csv", "pareto.png", "pareto.svg", "energy.png", "roofline.svg"} <= {
        path.name for path in out.iterdir()
    }
    code, said, _ = npusim("sweep", toml, "--store", store)
    assert "2 done; 0 computed now" in said
    toml.write_text('name = "s"\n[grid]\narray.row = [8]\n')
    code, said, error = npusim("sweep", toml)
    assert code == 2 and "did you mean 'array.rows'?" in error and "Traceback" not in error


@pytest.fixture(scope="module")
def page(masked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write(masked.store, "masked", folder)
    return folder


def test_page_is_one_file_without_network(page):
    text = (page / "index.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", text.replace(json.dumps(HOSTILE), ""))
    assert "default-src 'none'" in text
    assert "<script>alert" not in text
    assert {p.stem for p in page.glob("*.svg")} == {"pareto", "speedup", "energy", "roofline", "sensitivity"}


@pytest.mark.skipif(which("chromium") is None, reason="needs chromium")
def test_page_draws_itself_in_a_browser(page, masked, tmp_path):
    """Every figure has marks, the script raises nothing, and unticking a dataflow takes its points away."""
    text = (page / "index.html").read_text()
    probe = """<script>
      const count = () => [document.querySelectorAll("#pareto-figure circle").length,
        document.querySelectorAll("#map-figure rect").length, document.querySelectorAll("#energy-figure rect").length,
        document.querySelectorAll("#roofline-figure circle, #roofline-figure path").length,
        document.querySelectorAll("#sensitivity-figure rect").length];
      const before = count();
      document.querySelector("#filters input").click();
      const svg = document.querySelector("#pareto-figure svg");
      const dot = svg.querySelector("circle").getBoundingClientRect();
      svg.dispatchEvent(new PointerEvent("pointermove", {clientX: dot.x + 2, clientY: dot.y + 2}));
      document.body.dataset.probe = JSON.stringify({before, after: count(), drawn: document.body.dataset.drawn,
        tip: document.getElementById("tip").textContent, requests: performance.getEntriesByType("resource").length});
    </script></body>"""
    (tmp_path / "probe.html").write_text(text.replace("</body>", probe))
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=3000",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "probe.html").as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    found = json.loads(re.search(r'data-probe="([^"]*)"', dom)[1].replace("&quot;", '"'))
    assert found["drawn"] == "yes" and found["requests"] == 0
    done = masked.counts["done"]
    assert found["before"][0] == done and found["after"][0] == done * 2 // 3
    assert all(count > 0 for count in found["before"])
    assert "dataflow: " in found["tip"] and "cycles: " in found["tip"]


def test_captions_name_where_energies_come_from(masked):
    from npusim.sweep.figures import figures

    every = analysis.done(masked.frame())
    table = every[every["buffers.a.bytes"] == 96 * 1024]
    step = trace.read(every.workload[0])
    low = ", ".join(name.replace("_", " ") for name in simulate(step, npu.load("edge-16x16")).energy.prices.doubtful())
    expected = f"\nEnergy: generic-28nm, 28 nm, LPDDR4; low confidence: {low}."
    drawn = figures(table, ("cycles", "energy_pj"), "dense-os", [], "masked")
    assert {figure.get_supxlabel().partition("\nEnergy")[2] for figure in drawn.values()} == {expected[7:]}
    both = figures(every, ("cycles", "energy_pj"), "dense-os", [], "masked")["pareto"].get_supxlabel()
    assert "; by a scaling rule: buffer a | generic-28nm, 28 nm, LPDDR4" in both.replace("\n", " ")
    many = every.assign(message=[f"table {i}" for i in range(len(every))])
    assert f" and {len(every) - 2} more" in figures(many, ("cycles",), "dense-os", [], "m")["pareto"].get_supxlabel()
    old = table.assign(message="")
    assert "Energy" not in figures(old, ("cycles",), "dense-os", [], "masked")["pareto"].get_supxlabel()
