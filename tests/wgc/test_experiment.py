"""The shipped numbers of experiments/swu_wgc still come out, on two of its points."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "swu_wgc"


@pytest.mark.parametrize("network", ["resnet18-swu", "mobilenetv2-swu"])
def test_a_recorded_point_is_as_expected(network):
    spec = importlib.util.spec_from_file_location("swu_wgc_run", FOLDER / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    found = pd.DataFrame(run.recorded_point((network, "middle", 32, 1, ("reduction-window",), "recorded"))["recorded"])
    keys = ["network", "epoch", "size", "batch", "selection", "dataflow"]
    both = found.merge(pd.read_csv(FOLDER / "expected.csv"), on=keys, suffixes=("", "_expected"))
    assert len(both) == 1
    for name in ("speedup", "energy_gain", "density"):
        assert both[name].item() == pytest.approx(both[f"{name}_expected"].item(), rel=0.01), name
