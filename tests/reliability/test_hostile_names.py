"""Names that are scripts, formulas or terminal codes: harmless in the terminal, in CSV and in HTML."""

import csv
import io
import json
import re
import unicodedata

import pytest

NAMES = (
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "=HYPERLINK(\"http://x\",\"y\")",
    "+cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "\x1b[31mred\x1b[0m\x1b]0;title\x07", "\u202eevil\u2066\u200b",
    "a,b\"c'd\r\nnext",
    "\t=1+1", "&lt;b&gt;", "$x_1^{2}$", "%s%n{0}", "../../etc/passwd", "\u2028line\u2029", "nul\x00byte", "日本語🙂",
)  # fmt: skip
SAFE = {"\n", "\t"}
FORMULA = re.compile(r"\s*[=+\-@]")
NUMBER = re.compile(r"-?[\d.]+(e[-+]?\d+)?|-|-?inf|nan", re.IGNORECASE)


@pytest.fixture
def npusim(npusim):
    """The command line, all that it prints checked."""

    def call(*words):
        result = npusim(*words)
        check_text(result.out, "stdout")
        check_text(result.err, "stderr")
        assert "Traceback" not in result.err
        return result

    return call


def check_text(text, where):
    bad = {ascii(c) for c in text if c not in SAFE and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not bad, f"{where} has {bad}"


def check_files(folder):
    """Every file that was written: text is clean, CSV has no formula, HTML and SVG no markup from names."""
    names = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert names
    for path in names:
        assert path.resolve().is_relative_to(folder.resolve())
        if path.suffix in (".png", ".sqlite", ".pftrace", ".parquet", ".gz", ".pb", ".perfetto-trace"):
            continue
        text = path.read_bytes().decode("utf-8")
        if path.suffix == ".json":
            json.loads(text)
            assert "\x1b" not in text and "\x00" not in text
            continue
        check_text(text, path.name)
        if path.suffix == ".csv":
            for row in csv.reader(io.StringIO(text)):
                cells = [cell for cell in row if FORMULA.match(cell) and not NUMBER.fullmatch(cell)]
                assert not cells, f"{path.name}: {cells}"
        if path.suffix in (".html", ".svg"):
            assert "<script>alert" not in text and "<img src=x" not in text and "onerror=alert(1)>" not in text
    return names


def layer_list(folder, names):
    """A layer list whose step and layers have hostile names."""
    quoted = [json.dumps(name, ensure_ascii=False) for name in names]
    text = f'name = {quoted[0]}\n[[layers]]\nname = "in"\nkind = "input"\nshape = [1, 2, 6, 6]\n'
    for name in quoted:
        text += f'[[layers]]\nname = {name}\nkind = "conv"\nout = 3\nkernel = 3\npadding = 1\n'
    path = folder / "step.toml"
    path.write_text(
        text + '[[layers]]\nname = "flat"\nkind = "flatten"\n[[layers]]\nname = "fc"\nkind = "linear"\nout = 3\n'
    )
    return path


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """One step whose names are printable, and one that has all of NAMES."""
    names = {"printable": [name for name in NAMES if name.isprintable()], "all": NAMES}
    return {kind: layer_list(tmp_path_factory.mktemp("hostile"), listed) for kind, listed in names.items()}


COMMANDS = {
    "run": ("run", "{step}", "--out", "{out}"),
    "compare": ("compare", "{step}", "--dataflow", "dense-os,dense-ws", "--out", "{out}"),
    "methods": ("compare", "{step}", "--methods", "last-k:k=2,classifier-only", "--out", "{out}"),
    "timeline": ("timeline", "{step}", "--out", "{out}.svg"),
    "timeline json": ("timeline", "{step}", "--out", "{out}.json"),
    "show": ("trace", "show", "{step}"),
    "show json": ("trace", "show", "{step}", "--json"),
    "run json": ("run", "{step}", "--json"),
}


@pytest.mark.parametrize("kind", ["printable", "all"])
@pytest.mark.parametrize("name", list(COMMANDS))
def test_hostile_names_of_steps_and_layers(npusim, steps, tmp_path, name, kind):
    """Names that cannot be printed may be refused, by one message that shows them escaped."""
    words = [word.format(step=steps[kind], out=tmp_path / "out") for word in COMMANDS[name]]
    code, _, err = npusim(*words)
    assert code == 0 or (kind == "all" and code == 2 and err), err
    if code == 0 and "--out" in words:
        check_files(tmp_path)


def test_hostile_names_in_topologies(npusim, tmp_path):
    from reliability.targets import SCALESIM

    lines = [
        f"{name}, 8, 8, 3, 3, 2, 4, 1,".replace("\r\n", " ")
        for name in NAMES
        if not set(name) & set(",\x00\u2028\u2029")
    ]
    (tmp_path / "top.csv").write_text("\n".join(["heading", *lines]) + "\n", encoding="utf-8")
    (tmp_path / "scale.cfg").write_bytes(SCALESIM)
    given = ("--scalesim-config", tmp_path / "scale.cfg", "--topology", tmp_path / "top.csv")
    code, out, err = npusim("run", *given, "--out", tmp_path / "out")
    assert code == 0 and out, err
    check_files(tmp_path / "out")
    assert npusim("run", *given, "--json")[0] == 0
    code, _, err = npusim("trace", "import", tmp_path / "top.csv", tmp_path / "new" / "step.npz")
    assert code in (0, 2), err


def test_hostile_names_of_files_and_keys(npusim, tmp_path):
    for number, name in enumerate(NAMES):
        if "/" in name or "\x00" in name:
            continue
        machine = tmp_path / f"{name}.toml"
        quoted = json.dumps(name, ensure_ascii=False)
        machine.write_text(f"{quoted} = 1\nname = {quoted}\n", encoding="utf-8")
        for words in (
            ("run", name), ("run", "resnet18", "--hardware", machine), ("run", "resnet18", "--set", f"{name}={name}"),
            ("run", "resnet18", "--dataflow", name), ("compare", "resnet18", "--methods", f"{name}:{name}={name}"),
            ("sweep", machine), ("show", "hardware", machine), ("trace", "import", machine, tmp_path / f"{number}.npz"),
        ):  # fmt: skip
            code, out, err = npusim(*words)
            assert code == 2 and not out and err.startswith("npusim: "), (words, out, err)
