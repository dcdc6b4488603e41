"""The wheel holds npusim and its catalogues, and nothing else at its top level."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import wheels

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return zipfile.ZipFile(wheels.build(tmp_path_factory.mktemp("wheel"))).namelist()


def test_top_level_names(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"npusim"}
    assert len(tops) == 2


@pytest.mark.parametrize("folder, pattern", [("dataflows", "*.py"), ("workloads", "**/*.npz")])
def test_catalogues_are_inside(wheel, folder, pattern):
    files = {f"npusim/_builtin/{folder}/{p.relative_to(ROOT / folder)}" for p in (ROOT / folder).glob(pattern)}
    assert files
    assert files <= set(wheel)


def test_data_files_are_inside(wheel):
    files = {
        str(p.relative_to(ROOT))
        for p in (ROOT / "npusim").rglob("*")
        if p.suffix in {".toml", ".csv", ".js", ".css", ".html", ".typed"}
    }
    assert files
    assert files <= set(wheel)


def test_every_package_is_listed():
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = set(tomllib.load(file)["tool"]["setuptools"]["packages"])
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "npusim").rglob("*.py")}
    assert found <= listed


def test_importing_npusim_is_light():
    heavy = ("numpy", "numba", "pandas", "matplotlib", "pydantic", "torch")
    code = f"import sys, npusim; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
