"""Finding catalogue files by path and by name."""

from __future__ import annotations

import sys

import pytest

from npusim import catalogue
from npusim.errors import CatalogueError, NpusimError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder on NPUSIM_PATH."""
    for kind in catalogue.KINDS:
        (tmp_path / kind).mkdir()
    monkeypatch.setenv("NPUSIM_PATH", str(tmp_path))
    return tmp_path


def test_built_in_presets_and_tables_are_found():
    assert {"edge-16x16", "edge-32x32", "mcu-8x8", "server-128x128"} <= set(catalogue.names("hardware"))
    assert {"generic-45nm", "generic-28nm"} <= set(catalogue.names("energy"))
    assert catalogue.find("hardware", "edge-16x16").name == "edge-16x16.toml"


def test_a_users_folder_comes_before_the_built_ins_and_earlier_folders_first(folder, monkeypatch, tmp_path_factory):
    second = tmp_path_factory.mktemp("second")
    (second / "hardware").mkdir()
    for place in (folder, second):
        (place / "hardware" / "edge-16x16.toml").write_text("")
    monkeypatch.setenv("NPUSIM_PATH", f"{folder}:{second}")
    assert catalogue.find("hardware", "edge-16x16") == folder / "hardware" / "edge-16x16.toml"


def test_an_explicit_path_wins(folder, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("")
    assert catalogue.find("hardware", path) == path
    with pytest.raises(CatalogueError) as caught:
        catalogue.find("hardware", tmp_path / "absent.toml")
    assert str(caught.value) == f"no such hardware file: {tmp_path / 'absent.toml'}"


def test_an_unknown_name_lists_the_known_ones(folder, monkeypatch):
    (folder / "energy" / "mine.toml").write_text("")
    with pytest.raises(CatalogueError) as caught:
        catalogue.find("energy", "generic-45")
    assert str(caught.value) == (
        "unknown energy table 'generic-45' (did you mean 'generic-45nm'?); known: generic-28nm, generic-45nm, "
        "ipu-28nm, mine, reram-28nm"
    )


def test_the_trace_of_a_workload_folder(folder):
    workloads = folder / "workloads"
    for path in ("one/any.npz", "two/two.npz", "two/early.npz", "many/a.npz", "many/b.npz", "flat.npz"):
        (workloads / path).parent.mkdir(exist_ok=True)
        (workloads / path).write_bytes(b"")
    (workloads / "one" / "accuracy.csv").write_text("")
    assert {"one", "two", "two/early", "many/a", "many/b", "flat"} <= set(catalogue.names("workloads"))
    assert "many" not in catalogue.names("workloads")
    assert catalogue.find("workloads", "one") == workloads / "one" / "any.npz"
    assert catalogue.find("workloads", "two") == workloads / "two" / "two.npz"
    assert catalogue.find("workloads", "many/b") == workloads / "many" / "b.npz"
    assert catalogue.find("workloads", workloads / "one") == workloads / "one" / "any.npz"


def test_a_dataflow_file_is_loaded_once_and_gives_its_object(folder):
    path = folder / "dataflows" / "my_flow.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n\n"
        "@dataclass(frozen=True)\nclass Flow:\n    name: str\n\n\nDATAFLOW = Flow('my-flow')\n"
    )
    assert "my-flow" in catalogue.names("dataflows")
    flow = catalogue.load_dataflow("my-flow")
    assert flow.name == "my-flow"
    assert catalogue.load_dataflow(path) is flow
    assert "my_flow" not in sys.modules


def test_broken_dataflows_name_file_and_cause(folder):
    broken = folder / "dataflows" / "broken.py"
    broken.write_text("import no_such_module_at_all\n")
    with pytest.raises(NpusimError) as caught:
        catalogue.load_dataflow("broken")
    assert str(caught.value) == (
        f"dataflow {broken} cannot be imported: ModuleNotFoundError: No module named 'no_such_module_at_all'"
    )
    empty = folder / "dataflows" / "empty.py"
    empty.write_text("")
    with pytest.raises(NpusimError) as caught:
        catalogue.load_dataflow("empty")
    assert str(caught.value) == f"dataflow {empty} does not define DATAFLOW"


def test_entry_points_come_after_folders(folder, monkeypatch):
    package = folder / "site"
    package.mkdir()
    (package / "other_flow_module.py").write_text("DATAFLOW = 'other'\n")
    info = package / "otherflow-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherflow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[npusim.dataflows]\nother-flow = other_flow_module\n")
    monkeypatch.syspath_prepend(str(package))
    assert catalogue.load_dataflow("other-flow") == "other"
    (folder / "dataflows" / "other_flow.py").write_text("DATAFLOW = 'mine'\n")
    assert catalogue.load_dataflow("other-flow") == "mine"
