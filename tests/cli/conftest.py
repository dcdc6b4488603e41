import pytest
from steps import small_step

from npusim import trace


@pytest.fixture(scope="session")
def catalogue_folder(tmp_path_factory):
    """A folder for NPUSIM_PATH with the workloads 'small' (masks) and 'plain' (none)."""
    folder = tmp_path_factory.mktemp("catalogue")
    (folder / "workloads").mkdir()
    trace.write(small_step(), folder / "workloads" / "small.npz")
    trace.write(small_step("plain", density=None), folder / "workloads" / "plain.npz")
    return folder


@pytest.fixture(autouse=True)
def known_workloads(catalogue_folder, monkeypatch):
    monkeypatch.setenv("NPUSIM_PATH", str(catalogue_folder))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
