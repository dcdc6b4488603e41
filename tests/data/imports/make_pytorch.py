"""Made the files of PyTorch in this folder: python make_pytorch.py (torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2).

`net`: one small network with what real ones have: strided, padded and depthwise convolutions, batch norm, a residual
sum, pooling, and a block of attention. `attention`: a transformer block whose attention is PyTorch's fused kernel, in
ONNX the operator Attention. One training step each, with SGD and momentum. `python make_pytorch.py attention` makes the
files of that one only.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

import onnx
import torch
from torch.nn import functional as F
from torch.profiler import ExecutionTraceObserver, ProfilerActivity, profile

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "trace"))


def record(model, images, suffix):
    """An execution trace and a profile of one training step."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    labels = torch.randint(10, (2,))

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    step()
    with tempfile.TemporaryDirectory() as folder:
        observer = ExecutionTraceObserver().register_callback(str(Path(folder) / "et.json"))
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True, execution_trace_observer=observer) as seen:
            step()
        seen.export_chrome_trace(str(Path(folder) / "profiler.json"))
        for name in ("et", "profiler"):
            value = json.loads((Path(folder) / f"{name}.json").read_text())
            (HERE / f"{name}{suffix}.json.gz").write_bytes(gzip.compress(json.dumps(value).encode(), mtime=0))


def export(model, images, name, **options):
    torch.onnx.export(model.eval(), (images,), HERE / name, dynamo=True, external_data=False, **options)
    exported = onnx.load(HERE / name)
    for node in exported.graph.node:  # where in whose folders the exporter found it
        del node.metadata_props[:]
    onnx.save(exported, HERE / name)


def main():
    from trace_models import FusedAttentionNet, ImportNet

    torch.manual_seed(0)
    model = FusedAttentionNet()
    record(model, torch.randn(2, 6, 16), "-attention")
    export(model, torch.randn(2, 6, 16), "attention.onnx", opset_version=23)
    if sys.argv[1:] == ["attention"]:
        return
    torch.manual_seed(0)
    model = ImportNet()
    images = torch.randn(2, 3, 16, 16)
    record(model, images, "")
    export(model, images, "net.onnx")


if __name__ == "__main__":
    main()
