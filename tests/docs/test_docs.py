"""The pages of the documentation, README and CONTRIBUTING run as they stand.

Every fenced python, bash and toml block of a page is run in the order of the page, in one folder per page; python
blocks of a page share their names. A comment in the line before a block says otherwise:

| comment                      | the block is                                                          |
|------------------------------|-----------------------------------------------------------------------|
| <!-- file: NAME -->          | written to that file                                                  |
| <!-- not run: REASON -->     | left alone                                                            |
| <!-- needs: MODULE -->       | run where the module is installed (torch needs no comment)            |
| <!-- prints -->              | text; each of its lines is printed by the blocks since the last check |
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
# imports.md is run by tests/trace/test_import_docs.py, section by section.
DOCS = [page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts and page.name != "imports.md"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS)]
BLOCK = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)
RUN = ("python", "bash", "toml")


class Block(NamedTuple):
    comment: str
    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(m[1] or "", m[2], m[3], text.count("\n", 0, m.start(3)) + 1) for m in BLOCK.finditer(text)]


def runs(page: Path) -> bool:
    return any(block.language in RUN or block.comment == "prints" for block in blocks(page))


@pytest.mark.parametrize("page", [p for p in PAGES if runs(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", str(_commands(tmp_path)), prepend=os.pathsep)
    monkeypatch.setattr(sys, "path", [*sys.path])
    names: dict[str, object] = {"__name__": "example"}
    printed, skipped = "", False
    for block in blocks(page):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        kind, _, value = block.comment.partition(": ")
        if kind == "file":
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).write_text(block.text)
        elif kind == "prints":
            if not skipped:
                _check(block.text, printed, where)
            printed, skipped = "", False
        elif block.language in RUN and kind != "not run":
            assert block.language != "toml", f"{where}: a toml block needs a comment, file or not run"
            if _missing(block, kind, value):
                skipped = True
                continue
            printed += _python(block.text, names, where) if block.language == "python" else _bash(block.text, where)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def test_what_is_not_run_says_why():
    comments = [(page.name, block) for page in PAGES for block in blocks(page) if block.comment.startswith("not run")]
    for name, block in comments:
        assert re.fullmatch(r"not run: .{10,}", block.comment), f"{name}:{block.line}"
    assert len(comments) < 12


def _missing(block: Block, kind: str, value: str) -> bool:
    torch = "import torch" in block.text or "trace capture" in block.text or "mine.npz" in block.text
    needed = value if kind == "needs" else "torch" if torch else ""
    if needed == "torch" and "NPUSIM_REQUIRE_TORCH" in os.environ:
        return False
    return bool(needed) and importlib.util.find_spec(needed) is None


def _commands(folder: Path) -> Path:
    """A folder with the `npusim` of this environment, for lines that a shell runs."""
    place = folder / ".bin"
    place.mkdir()
    (place / "npusim").write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m npusim "$@"\n')
    (place / "npusim").chmod(0o755)
    (place / "python").symlink_to(sys.executable)
    return place


def _python(text: str, names: dict[str, object], where: str) -> str:
    out = io.StringIO()
    try:
        with redirect_stdout(out):
            exec(compile(text, where, "exec"), names)
    except Exception as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    return out.getvalue()


def _bash(text: str, where: str) -> str:
    """Lines that only call npusim run inside this process, which saves a second each; the others in a shell."""
    printed = ""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        target = words.pop(-1) if len(words) > 2 and words[-2] == ">" else ""
        if target:
            words.pop()
        if not words:
            continue
        if words[0] == "npusim" and not {"|", ">", "&&", ";"} & set(words):
            out = _npusim(words, f"{where}: {line}")
        else:
            done = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{where}: {line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            out = done.stdout
        if target:
            Path(target).write_text(out)
        else:
            printed += out
    return printed


def _npusim(words: list[str], where: str) -> str:
    from npusim.cli import main

    out, before = io.StringIO(), sys.argv
    sys.argv = words
    try:
        with redirect_stdout(out):
            main()
    except SystemExit as stop:
        assert not stop.code, f"{where}: exit code {stop.code}\n{out.getvalue()[-2000:]}"
    finally:
        sys.argv = before
    return out.getvalue()


def _check(text: str, printed: str, where: str) -> None:
    got = {" ".join(line.split()) for line in printed.splitlines()}
    missing = [line for line in text.splitlines() if line.strip() and " ".join(line.split()) not in got]
    assert not missing, f"{where}: not printed any more:\n" + "\n".join(missing) + f"\nprinted:\n{printed[:4000]}"
