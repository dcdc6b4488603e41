"""`npusim trace import`."""

import json

from npusim import trace

TABLE = "name,kind,shape,out\nimage,input,1x3x8x8,\nconv1,conv,,4\n"


def test_import_writes_a_trace(npusim, tmp_path):
    (tmp_path / "net.csv").write_text(TABLE)
    result = npusim("trace", "import", tmp_path / "net.csv", "--out", tmp_path / "net.npz", "--optimizer", "adam")
    assert result.code == 0
    # 8*8 pixels, 3 input and 4 output channels: 768 MACs; the first layer has no gradient of its input.
    assert result.out.splitlines() == [
        "net: 5 operations; MACs: forward 768, grad_input 0, grad_weight 768", f"written: {tmp_path / 'net.npz'}",
    ]  # fmt: skip
    assert trace.read(tmp_path / "net.npz").phase("update")[0].kind == "adam"
    words = ("trace", "import", tmp_path / "net.csv", "-o", tmp_path / "b.npz", "--name", "other", "--json")
    value = json.loads(npusim(*words).out)
    assert value["name"] == "other" and value["macs"]["forward"] == 768 and value["skipped"] == []


def test_what_cannot_be_imported_leaves_nothing(npusim, tmp_path):
    (tmp_path / "net.csv").write_text(TABLE.replace("conv1,conv,,4", "conv1,convo,,4"))
    result = npusim("trace", "import", tmp_path / "net.csv", "--out", tmp_path / "net.npz")
    assert result.code == 2 and result.err.count("npusim: ") == 1 and "net.csv" in result.err
    result = npusim("trace", "import", tmp_path / "net.csv", "--out", tmp_path / "net.npz", "--format", "onxx")
    assert result.code == 2 and "did you mean 'onnx'?" in result.err
    assert not (tmp_path / "net.npz").exists()
