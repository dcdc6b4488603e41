import sys
from dataclasses import dataclass

import pytest
from steps import small_step

from npusim import trace
from npusim.cli import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def npusim(monkeypatch, capsys):
    """Run the command line in this process."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["npusim", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Result(stopped.value.code or 0, captured.out, captured.err)

    return call


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
