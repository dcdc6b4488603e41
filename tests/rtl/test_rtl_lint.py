"""The RTL and its benches are clean under `verilator --lint-only -Wall`."""

from __future__ import annotations

import subprocess

import pytest
from rtl_simulator import REDUCTION, RTL, SYSTOLIC, require

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize("sources", [SYSTOLIC, REDUCTION], ids=["systolic", "reduction"])
@pytest.mark.parametrize("bench", [True, False], ids=["bench", "design"])
def test_lint(sources, bench):
    require("verilator")
    tops = [sources[0]] if bench else sources[1:4]
    files = [str(RTL / f"{name}.sv") for name in (sources if bench else sources[1:])]
    for top in tops:
        command = ["verilator", "--lint-only", "-Wall", "--timing", "--top-module", top, *files]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
