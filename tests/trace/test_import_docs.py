"""The examples of docs/imports.md run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "imports.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M))
NEEDED = {
    "ONNX": ("torch", "onnx", "onnxscript"), "PyTorch: execution trace or profile": ("torch",), "JAX": ("jax",),
    "SCALE-Sim": (), "Layer tables": (),
}  # fmt: skip


def test_every_section_is_run():
    assert set(SECTIONS) == set(NEEDED)


@pytest.mark.parametrize("title", NEEDED)
def test_examples(title, tmp_path):
    for module in NEEDED[title]:
        pytest.importorskip(module)
    shutil.copy(ROOT / "validation" / "scalesim" / "runs" / "os-conv" / "topology.csv", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    blocks = re.findall(r"```(python|bash)\n(.*?)```", SECTIONS[title], re.S)
    for kind, text in blocks:
        commands = [text] if kind == "python" else text.splitlines()
        for command in commands:
            words = ["-c", command] if kind == "python" else ["-m", *command.split()]
            subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert not blocks or list(tmp_path.glob("*.npz"))


def test_the_table_of_the_page(tmp_path):
    rows = [line.strip() for line in SECTIONS["Layer tables"].splitlines() if line.startswith("    ")]
    (tmp_path / "net.csv").write_text("\n".join(rows))
    from npusim import trace

    assert [op.name for op in trace.import_file(tmp_path / "net.csv").phase("forward")][:2] == ["conv1", "relu1"]
