"""Every shipped workload runs with every dataflow of the main table; both engines agree on the small ones."""

import numpy as np
import pytest

from npusim import catalogue, npu
from npusim.errors import ConfigError
from npusim.simulation import simulate
from npusim.trace import read

WORKLOADS = catalogue.names("workloads")
DENSE = ("dense-os", "dense-ws", "dense-is")
SELECTIVE = ("selective-row", "channel-skipping", "reduction-spatial")
SMALL = [name for name in WORKLOADS if name in ("tiny-cnn", "lenet5", "ds-cnn", "mobilenetv2-swu")]


@pytest.fixture(scope="module")
def edge():
    return npu.load("edge-16x16")


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_keeps_every_law(edge, name):
    # simulate() checks conservation laws, lower bounds and the program's own promises.
    step = read(catalogue.find("workloads", name))
    macs = simulate(step, edge, "dense-os").layers.macs.sum()
    for dataflow in DENSE[1:]:
        assert simulate(step, edge, dataflow).layers.macs.sum() == macs
    for dataflow in SELECTIVE:
        if not step.update_masks:
            with pytest.raises(ConfigError):
                simulate(step, edge, dataflow)
            continue
        run = simulate(step, edge, dataflow)
        wanted = sum(op.macs for op in step.ops if op.phase == "grad_weight" and op.param not in step.update_masks)
        for op in step.ops:
            if op.phase == "grad_weight" and op.param in step.update_masks:
                mask = step.update_masks[op.param]
                wanted += mask.count * op.dims.t
        grad_weight = np.array([op.phase == "grad_weight" for op in step.ops])
        assert run.count("macs_done")[grad_weight].sum() == wanted


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dataflow", DENSE + SELECTIVE)
def test_both_engines_agree(edge, name, dataflow):
    step = read(catalogue.find("workloads", name))
    if dataflow in SELECTIVE and not step.update_masks:
        pytest.skip("no masks")
    fast, slow = simulate(step, edge, dataflow), simulate(step, edge, dataflow, engine_name="simpy")
    for one, other in zip(fast.schedule, slow.schedule, strict=True):
        np.testing.assert_array_equal(one, other)


def test_both_engines_agree_on_attention(edge):
    step = read(catalogue.find("workloads", "vit-tiny"))
    fast, slow = (simulate(step, edge, "dense-os", engine_name=name) for name in ("fast", "simpy"))
    for one, other in zip(fast.schedule, slow.schedule, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_catalogue_has_what_the_readme_names():
    assert {"vit-tiny", "nanogpt-char", "ds-cnn", "lenet5"} <= set(WORKLOADS)
    assert {"resnet18", "resnet18-swu", "vgg16-bn-swu", "mobilenetv2-swu", "tiny-cnn"} <= set(WORKLOADS)
