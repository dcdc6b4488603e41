"""What the commands print and write when all is well."""

import csv
import io
import json
import os
import resource
import subprocess
import sys

import pytest
import typer
from steps import HOSTILE, small_step

from npusim import trace
from npusim.cli import app, options
from npusim.cli.options import complete

BOTH = "dense-os,reduction-spatial"
FIGURES = ("cycles", "energy", "memory", "roofline", "speedup")
PICTURES = [f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")]


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_alone_it_says_what_to_do_first(npusim):
    result = npusim()
    assert (result.code, result.err) == (0, "")
    assert "npusim list workloads" in result.out and "npusim compare WORKLOAD" in result.out


def test_version(npusim):
    assert npusim("--version").out == "npusim 0.1.0\n"


def commands(group=None, path=()):
    """Every command's words."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        yield from commands(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_help_says_what_it_does_and_has_an_example(npusim, words):
    result = npusim(*words, "--help")
    assert result.code == 0
    assert f"Example:\n    npusim {' '.join(words)}" in result.out
    usage, about = result.out.split("\n\n")[:2]
    assert usage.strip().startswith("Usage: npusim") and about.strip().endswith((".", ":"))


@pytest.mark.parametrize("words", [["--help"], ["trace", "--help"], ["trace"]], ids=" ".join)
def test_groups_list_their_commands(npusim, words):
    result = npusim(*words)
    assert result.code == 0
    group = [word for word in words if word != "--help"]
    expected = [path[-1] for path in commands() if list(path[:-1]) == group]
    assert expected and all(f"\n  {name} " in result.out for name in expected)


def test_every_command_speaks_json():
    def parameters(group):
        for command in group.commands.values():
            yield from parameters(command) if hasattr(command, "commands") else [(command.name, command.params)]

    silent = [name for name, found in parameters(typer.main.get_command(app)) if "json" not in {p.name for p in found}]
    assert silent == []


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['npusim', '--help']\nfrom npusim.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'numpy', 'pandas', 'numba', 'pydantic', 'matplotlib', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "npusim", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.15


def test_run_prints_layers_and_phases(npusim):
    result = npusim("run", "small")
    assert (result.code, result.err) == (0, "")
    title, header, *rows = result.out.splitlines()
    assert title == "small on edge-16x16, dense-os"
    expected = "operation phase kind shape dataflow density cycles utilisation waiting DRAM energy"
    assert header.split() == expected.split()
    assert [row.split()[:3] for row in rows[:2]] == [["conv1", "forward", "conv"], ["bn1", "forward", "batch_norm"]]
    assert rows[19] == "" and rows[20] == "Phases"
    phases = ["forward", "grad_input", "grad_weight", "update", "whole"]
    assert [row.split()[0] for row in rows[22:27]] == phases
    assert rows[28].startswith("Energy by component (generic-28nm, 28 nm, LPDDR4; low confidence: ")
    assert [row.split()[0] for row in rows[30:35]] == phases
    assert rows[35:] == ["Sources of every price: npusim show energy generic-28nm, or the report of --out."]


def test_run_writes_files_that_agree_with_each_other(npusim, tmp_path):
    assert npusim("run", "small", "--out", tmp_path / "new" / "folder").code == 0
    folder = tmp_path / "new" / "folder"
    tables = ["layers.csv", "phases.csv", "units.csv", "memory.csv", "energy.csv"]
    assert {p.name for p in folder.iterdir()} == {*tables, *PICTURES, "manifest.json", "report.html"}
    layers, phases = read_csv(folder / "layers.csv"), read_csv(folder / "phases.csv")
    assert len(layers) == 19 and phases[-1]["phase"] == "step"
    assert sum(int(row["cycles"]) for row in layers) == int(phases[-1]["cycles"])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dataflows"]["dense-os"]["cycles"] == int(phases[-1]["cycles"])


def test_a_manifest_says_everything_and_only_its_date_changes(npusim, tmp_path, monkeypatch):
    words = ("run", "small", "--set", "array.rows=8", "--set", "clock_hz=1GHz", "--batch", "4", "--out")
    npusim(*words, tmp_path / "a")
    first = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert first["date"] == "1970-01-01T00:00:00+00:00"
    assert first["command"][:3] == ["npusim", "run", "small"]
    assert first["hardware"]["changes"] == {"array.rows": 8, "clock_hz": "1GHz"}
    assert first["hardware"]["parameters"]["clock_hz"] == 10**9
    assert first["workload"]["batch"] == 4
    assert set(first["versions"]) >= {"npusim", "python", "numpy", "numba"}
    assert first["energy"]["table"] == "generic-28nm"
    assert first["energy"]["sources"]["dram_access"].startswith("flat pJ/bit of LPDDR4")
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    npusim(*words, tmp_path / "b")
    second = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert second["date"] != first["date"]
    for record in (first, second):
        del record["date"], record["command"]
    assert first == second


def test_both_engines_give_the_same_layers(npusim, tmp_path):
    for engine in ("fast", "simpy"):
        npusim("run", "small", "-d", "reduction-spatial", "--engine", engine, "--out", tmp_path / engine)
    files = [(tmp_path / engine / "layers.csv").read_bytes() for engine in ("fast", "simpy")]
    assert files[0] == files[1]


def test_json_is_the_only_output(npusim):
    run = json.loads(npusim("run", "small", "--json").out)
    assert set(run) == {"manifest", "phases", "layers"} and len(run["layers"]) == 19
    both = json.loads(npusim("compare", "small", "-d", BOTH, "--json").out)
    assert {(r["run"], r["phase"]) for r in both["comparison"]} >= {("reduction-spatial", "grad_weight")}


def test_compare_prints_wgc_and_step_in_words_and_tables(npusim):
    result = npusim("compare", "small", "-d", BOTH)
    assert (result.code, result.err) == (0, "")
    assert "Update masks select 25.2 % of the weights of 3 masked parameters (2,561 of 10,160)." in result.out
    assert "reduction-spatial: WGC " in result.out and "the whole step " in result.out
    assert "Speedup and energy gain against dense-os" in result.out and "Energy by component" in result.out
    assert "\x1b" not in result.out


def test_compare_writes_tables_pictures_and_a_page(npusim, tmp_path):
    (tmp_path / "mine.txt").write_text("stays")
    (tmp_path / "report.html").write_text("of yesterday")
    assert npusim("compare", "small", "-d", BOTH, "--out", tmp_path).code == 0
    assert "of yesterday" not in (tmp_path / "report.html").read_text()
    tables = ["comparison.csv", "energy.csv", "layers.csv", "manifest.json", "memory.csv", "phases.csv", "units.csv"]
    assert {p.name for p in tmp_path.iterdir()} == {*PICTURES, *tables, "report.html", "mine.txt"}
    rows = read_csv(tmp_path / "comparison.csv")
    base = {row["phase"]: row for row in rows if row["run"] == "dense-os"}
    assert all(float(row["speedup"]) == float(row["energy_gain"]) == 1 for row in base.values())
    for row in rows:
        assert float(row["speedup"]) == pytest.approx(int(base[row["phase"]]["cycles"]) / int(row["cycles"]))
    assert {row["run"] for row in read_csv(tmp_path / "layers.csv")} == set(BOTH.split(","))


def test_a_method_runs_alone(npusim):
    result = npusim("run", "tiny-cnn", "--method", "last-k:k=1")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("tiny-cnn on edge-16x16, dense-os, last-k:k=1\n")
    dense, last = (json.loads(npusim("run", "tiny-cnn", *more, "--json").out) for more in ((), ("-m", "last-k:k=1")))
    assert last["phases"][-1]["cycles"] < dense["phases"][-1]["cycles"]
    assert last["manifest"]["runs"][0]["method"] == "last-k:k=1"


def test_report_makes_the_same_page_from_files(npusim, tmp_path):
    npusim("run", "small", "--out", tmp_path / "one")
    npusim("compare", "small", "-d", BOTH, "--out", tmp_path / "both")
    for name in ("one", "both"):
        first = (tmp_path / name / "report.html").read_text()
        (tmp_path / name / "report.html").unlink()
        result = npusim("report", tmp_path / name)
        assert (result.code, result.err) == (0, "")
        assert (tmp_path / name / "report.html").read_text() == first
    joined = npusim("report", tmp_path / "one", tmp_path / "both", "--out", tmp_path / "all.html", "--json")
    assert [run["label"] for run in json.loads(joined.out)["manifest"]["runs"]] == [
        "dense-os #1", "dense-os #2", "reduction-spatial",
    ]  # fmt: skip
    assert "reduction-spatial" in (tmp_path / "all.html").read_text()


@pytest.mark.parametrize("suffix", [".pftrace", ".json", ".png", ".svg"])
def test_timeline_writes_what_the_suffix_says(npusim, tmp_path, suffix):
    path = tmp_path / f"small{suffix}"
    result = npusim("timeline", "small", "--layers", "conv*", "--out", path)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("small on edge-16x16, dense-os: ") and " slices on 7 tracks, " in result.out
    starts = {".pftrace": b"\n", ".json": b"{", ".png": b"\x89PNG", ".svg": b"<?xml"}
    assert path.read_bytes().startswith(starts[suffix])
    (counts,) = json.loads(npusim("timeline", "small", "--ops", "0", "--out", path, "--json").out)
    assert counts["slices"]["operations"] == 1


def test_input_size_and_batch_reshape(npusim):
    small, large = (npusim("run", "small", *more, "--json").out for more in ((), ("--batch", "8")))
    macs = [json.loads(out)["phases"][-1]["macs"] for out in (small, large)]
    assert macs[1] == 4 * macs[0]


def test_a_layer_list_is_a_workload(npusim, tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(
        'name = "net"\n[[layers]]\nname = "input"\nkind = "input"\nshape = [1, 3, 8, 8]\n'
        '[[layers]]\nname = "conv"\nkind = "conv"\nout = 8\nkernel = 3\n'
    )
    assert npusim("run", path).out.startswith("net on edge-16x16, dense-os\n")


def test_names_never_reach_the_terminal_raw(npusim, catalogue_folder, monkeypatch):
    source, step = catalogue_folder / "workloads" / "small.npz", small_step(name=HOSTILE)
    monkeypatch.setattr(options, "step_of", lambda workload: (source, step))
    for words in (("run",), ("compare", "-d", "dense-os"), ("show", "workload"), ("trace", "show")):
        out = npusim(*words, "hostile").out
        assert "\x1b" not in out and "\u202e" not in out and "\\x1b[31m" in out


def test_trace_show_reshape_and_capture(npusim, tmp_path):
    assert "conv1" in npusim("trace", "show", "small").out
    assert json.loads(npusim("trace", "show", "small", "--json").out)["name"] == "small"
    target = tmp_path / "larger.npz"
    assert npusim("trace", "reshape", "small", target, "--batch", "4").code == 0
    assert trace.read(target).ops[0].dims.n == 4
    record = json.loads(npusim("trace", "reshape", "small", target, "--batch", "4", "--json").out)
    forward = sum(op.macs for op in trace.read(target).phase("forward"))
    assert record["out"] == str(target) and record["operations"] == 19 and record["macs"]["forward"] == forward
    assert "npusim.trace.capture(model, step" in npusim("trace", "capture").out


# MACs: conv1 2*8*8*16*27 = 55,296 forward and grad_weight; conv2 2*4*4*32*144 = 147,456 and fc 2*512*10 = 10,240 in
# all three phases: 2*55,296 + 3*157,696 = 583,680.
@pytest.mark.parametrize(
    "kind, name, expected",
    [
        ("workloads", "small", "19 operations, 584 k MACs, updates 25.2 % of 3 masked parameters"),
        ("dataflows", "dense-os", "dense, output stationary; computes everything"),
        ("hardware", "edge-16x16", "16x16 PEs fp16+fp32 at 800 MHz"),
        ("energy", "generic-28nm", "28 nm; "),
    ],
)
def test_list_and_show(npusim, kind, name, expected):
    listed = npusim("list", kind)
    line = next(line for line in listed.out.splitlines() if line.startswith(f"{name} "))
    assert listed.code == 0 and expected in line
    assert name in [entry["name"] for entry in json.loads(npusim("list", kind, "--json").out)]
    shown = npusim("show", kind.removesuffix("s"), name)
    assert shown.code == 0 and name in shown.out.splitlines()[0]
    assert json.loads(npusim("show", kind.removesuffix("s"), name, "--json").out)


def test_a_broken_entry_does_not_hide_the_others(npusim, tmp_path, monkeypatch):
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "mine.toml").write_text("name = ")
    monkeypatch.setenv("NPUSIM_PATH", str(tmp_path))
    result = npusim("list", "hardware")
    assert result.code == 0 and "edge-16x16" in result.out
    assert "mine" in result.out and "cannot be read" in result.out


def test_completion_offers_names_also_after_a_comma():
    assert complete("dataflows")("dense-o") == ["dense-os"]
    assert complete("dataflows")("dense-ws,dense-o") == ["dense-ws,dense-os"]


@pytest.mark.parametrize(
    "typed, offered",
    [
        ("npusim tim", {"timeline"}),
        ("npusim run smal", {"small"}),
        ("npusim run small --dataflow dense-os,dense-w", {"dense-os,dense-ws"}),
        ("npusim run small --hardware edge-16", {"edge-16x16"}),
        ("npusim run small --method last", {"last-k"}),
        ("npusim run small --engine s", {"simpy"}),
        ("npusim show hardw", {"hardware"}),
        ("npusim timeline small --lay", {"--layers"}),
    ],
)
def test_the_shell_completes_names(typed, offered):
    env = {**os.environ, "_NPUSIM_COMPLETE": "complete_bash", "COMP_WORDS": typed}
    env["COMP_CWORD"] = str(len(typed.split()) - 1)
    shown = subprocess.run([sys.executable, "-m", "npusim"], env=env, capture_output=True, text=True)
    assert (shown.returncode, shown.stderr, set(shown.stdout.split())) == (0, "", offered)


def test_everything_is_quiet_when_piped():
    """Results on stdout, nothing on stderr, no escape codes."""
    for words in ("run small", "list methods", "show workload small", "timeline small --out /dev/null"):
        shown = subprocess.run([sys.executable, "-m", "npusim", *words.split()], capture_output=True, text=True)
        expected = 2 if "timeline" in words else 0
        assert shown.returncode == expected and "\x1b" not in shown.stdout + shown.stderr
        assert (shown.stderr == "") == (expected == 0)


def test_a_narrow_terminal_gets_fewer_columns_but_whole_numbers(capsys, monkeypatch):
    from npusim.cli import output
    from npusim.report import Table

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(output, "_terminal_width", lambda: 16)
    output.print_table(Table("T", ("name", "long", "cycles"), (("a", "bbbbbbbb", "1,234"),), 2, ("long",)))
    captured = capsys.readouterr()
    assert captured.out == "T\nname  cycles\na      1,234\n"
    assert captured.err == "(left out for a narrow terminal: long)\n"


def test_a_sweep_as_json(npusim, tmp_path):
    (tmp_path / "two.toml").write_text(
        'name = "two"\n[fixed]\nworkload = "small"\nhardware = "mcu-8x8"\n[grid]\ndataflow = ["dense-os", "dense-ws"]\n'
    )
    result = npusim("sweep", tmp_path / "two.toml", "--store", tmp_path / "two.sqlite", "--workers", "1", "--json")
    assert result.code == 0
    value = json.loads(result.out)
    assert value["counts"] == {"done": 2} and value["computed"] == 2
    one = json.loads(npusim("run", "small", "--hardware", "mcu-8x8", "--json").out)["phases"][-1]
    assert {row["dataflow"]: row["cycles"] for row in value["points"]}["dense-os"] == one["cycles"]
