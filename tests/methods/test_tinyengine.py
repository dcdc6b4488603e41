"""Import of TinyEngine's operation list: the recorded step of the 256 KB paper, and files that are wrong."""

import gzip
import json
from pathlib import Path

import pytest
from method_nets import macs, workload

from npusim import method
from npusim.errors import TraceError
from npusim.trace import tinyengine

DATA = Path(__file__).parents[1] / "data" / "tinyengine" / "49kb_int8_graph.json.gz"


@pytest.fixture(scope="module")
def recorded():
    return json.loads(gzip.decompress(DATA.read_bytes()))


def test_macs_of_the_recorded_step(recorded):
    graph = tinyengine.from_ops(recorded, "mcunetv3-49kb")
    assert macs(graph) == {"forward": 22_455_104, "grad_input": 9_153_856, "grad_weight": 775_744}
    assert graph.digest() == workload("mcunetv3-49kb").digest()


def test_the_rewrite_gives_the_recorded_products(recorded):
    """The method on the layer list has the same convolutions as the recorded step, in the same order."""
    made = method.apply("mcunetv3", workload("mcunet-5fps"), scheme="49KB").parts[0].graph
    other = tinyengine.from_ops(recorded, "mcunetv3-49kb")

    def products(graph):
        return [(op.phase, op.dims) for op in graph.ops if op.macs]

    assert sorted(map(repr, products(made))) == sorted(map(repr, products(other)))
    assert sum(op.kind == "bias_grad" for op in made.ops) == sum(op.kind == "bias_grad" for op in other.ops) == 21


def test_a_file(tmp_path, recorded):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(recorded[:40]))
    assert macs(tinyengine.read(path)).keys() == {"forward"}


def wrong(recorded, change):
    items = json.loads(json.dumps(recorded[:3]))
    change(items)
    with pytest.raises(TraceError) as caught:
        tinyengine.from_ops(items, "wrong")
    return str(caught.value)


def test_mistakes_name_the_operation(recorded):
    assert "operation 1 'nn.mcutruncate@1': unknown type 'tanh'" in wrong(recorded, lambda o: o[1].update(type="tanh"))
    assert "operation 0 'nn.mcuconv2d@0': missing 'shape'" in wrong(recorded, lambda o: o[0]["inputs"][0].pop("shape"))
    assert "has the shape [0]" in wrong(recorded, lambda o: o[0]["inputs"][0].update(shape=[0]))
    assert "padding = [1, 1, 2, 1]" in wrong(recorded, lambda o: o[0]["attrs"].update(padding=[1, 1, 2, 1]))
    assert "do not fit together" in wrong(recorded, lambda o: o[0]["attrs"].update(strides=[1, 1]))
    assert "groups = 0" in wrong(recorded, lambda o: o[0]["attrs"].update(groups=0))
    assert "is not an object" in wrong(recorded, lambda o: o.append(7))


@pytest.mark.parametrize("text", ["{}", "[]", "[", "[[]]", "\x00"])
def test_files_that_are_no_graph(tmp_path, text):
    path = tmp_path / "graph.json"
    path.write_text(text)
    with pytest.raises(TraceError):
        tinyengine.read(path)
