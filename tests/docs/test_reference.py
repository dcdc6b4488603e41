"""Reference pages hold every command, option, counter and key, and say something of most of them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    import npusim_reference

    yield npusim_reference
    del sys.modules["npusim_reference"]


def test_commands(reference):
    from npusim.cli import app

    text = reference.commands()
    group = typer.main.get_command(app)
    names = {f"npusim {name}" for name, command in group.commands.items() if not hasattr(command, "commands")}
    names |= {f"npusim trace {name}" for name in group.commands["trace"].commands}
    assert {line[3:] for line in text.splitlines() if line.startswith("## ")} == names
    assert text.count("```bash\nnpusim ") == len(names), "every command has an example"
    assert "| `--hardware`, `-H` | `edge-16x16` | A machine: a preset or a TOML file. |" in text


def test_counters(reference):
    from npusim.counters import COUNTERS

    rows = reference.counters().splitlines()[2:]
    assert [re.match(r"\| `(\w+)` \| \S+ \| \S", row)[1] for row in rows] == list(COUNTERS)


def test_keys_of_a_machine(reference):
    from npusim import config, npu

    text, section, keys = reference.hardware(), "", set()
    for line in text.splitlines():
        if head := re.match(r"\*\*`\[([\w.]+)\]`\*\*", line):
            section = head[1] + "."
        elif key := re.match(r"\| `(\w+)` \| \S", line):
            keys.add(section + key[1])
    used = set()
    for name in ("edge-16x16", "gemmini-16x16", "reram-128x128"):
        used |= {path for path, value in config.leaves(npu.load(name).model_dump()) if value is not None}
    same = ("buffers.b.", "buffers.accumulator.", "buffers.mask.")
    assert {path for path in used if not path.startswith(same)} <= keys
    assert "| `gather` | `true` or `false` | `false` | columns fetch operands by address" in text
    assert "| `ranks` | whole number, >= 0, <= 8 | `0` | replace those of the file; 0 keeps them |" in text


def test_keys_of_energy_sweep_and_dram(reference):
    assert "**`[dram.NAME]`**" in reference.energy() and "`pj_per_bit_mm` | number, >= 0" in reference.energy()
    assert "| `objectives` | a list |" in reference.sweep() and "`area_mm2`" in reference.sweep()
    assert "| `refi` | 3125 |" in reference.dram()


def test_an_unknown_part_is_an_error(reference):
    with pytest.raises(KeyError, match="nothing"):
        reference.filled("text\n<!-- generated: nothing -->\n")


def test_every_part_is_on_a_page(reference):
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    assert set(re.findall(r"^<!-- generated: (\S+) -->$", pages, re.M)) == set(reference.PARTS)
