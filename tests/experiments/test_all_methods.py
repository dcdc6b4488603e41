"""The table of every method: its stored rows are what the code gives, and nothing is missing."""

from pathlib import Path

import pandas as pd
import pytest

from npusim import catalogue, method, npu, trace
from npusim.method_runs import compare_methods

TABLE = Path(__file__).parents[2] / "experiments" / "all_methods" / "results" / "methods.csv"
CROSSBARS = {"xbm", "xma", "xma2"}


@pytest.fixture(scope="module")
def stored():
    return pd.read_csv(TABLE).set_index(["network", "hardware", "dataflow", "method"]).sort_index()


@pytest.mark.parametrize("network", ["mcunet-5fps", "resnet18", "mobilenetv2", "vgg16-bn"])
def test_every_method_is_in_the_table(stored, network):
    """But where it does not fit: MCUNet has no norms, column masks need crossbars, and the 421 G MACs with which
    FastHebb decorrelates VGG-16's first linear layer are more tiles of an 8x8 array than can be simulated."""
    for machine in ("edge-16x16", "mcu-8x8"):
        missing = {("mcunet-5fps", "edge-16x16"): {"fast-ntk"}, ("mcunet-5fps", "mcu-8x8"): {"fast-ntk"},
                   ("vgg16-bn", "mcu-8x8"): {"fasthebb"}}.get((network, machine), set())  # fmt: skip
        rows = stored.loc[network, machine, "dense-os"]
        assert set(method.names()) - CROSSBARS - missing <= set(rows.index)
    assert set(stored.loc[network, "reram-128x128", "dense-os"].index) >= CROSSBARS
    columns = ["cycles", "energy_pj", "dram_bytes", "peak_bytes", "macs", "updated"]
    assert (stored.loc[network][columns] > 0).all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["edge-16x16", "mcu-8x8"])
def test_rows_are_reproduced(stored, machine):
    graph = trace.read(catalogue.find("workloads", "mcunet-5fps"))
    names = ["mcunetv3", "swu", "gradient-filtering", "muppet"]
    found = compare_methods(graph, npu.load(machine), names).table().set_index("method")
    rows = stored.loc["mcunet-5fps", machine, "dense-os"].loc[found.index, found.columns]
    pd.testing.assert_frame_equal(found, rows, rtol=1e-4, check_dtype=False, check_index_type=False)
