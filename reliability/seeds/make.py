"""Made the files of this folder: python make.py pytorch (torch 2.13.0), python make.py jax (jax 0.10.2).

One training step of a convolution, a ReLU and a linear layer, small enough for a fuzzer: entries that npusim does not
read are left out.
"""

import json
import sys
import tempfile
from pathlib import Path

from npusim.errors import NpusimError

HERE = Path(__file__).parent


def write(name, value, entries):
    """`value` without the entries (of its list `entries`) that do not change the step which npusim reads."""
    from npusim import trace

    def read(kept):
        path = HERE / name
        path.write_text(json.dumps(value | {entries: kept}, separators=(",", ":")) + "\n")
        return trace.import_file(path).digest()

    kept, whole = value[entries], read(value[entries])
    for entry in list(kept):
        fewer = [other for other in kept if other is not entry]
        try:
            same = read(fewer) == whole
        except NpusimError:
            same = False
        kept = fewer if same else kept
    read(kept)


def pytorch():
    import torch
    from torch import nn
    from torch.profiler import ExecutionTraceObserver, ProfilerActivity, profile

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    images = torch.randn(2, 1, 4, 4)

    def step():
        optimizer.zero_grad()
        model(images).sum().backward()
        optimizer.step()

    step()
    with tempfile.TemporaryDirectory() as folder:
        observer = ExecutionTraceObserver().register_callback(str(Path(folder) / "et.json"))
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True, execution_trace_observer=observer) as seen:
            step()
        seen.export_chrome_trace(str(Path(folder) / "profiler.json"))
        trace, events = (json.loads((Path(folder) / f"{name}.json").read_text()) for name in ("et", "profiler"))
    for node in trace["nodes"]:
        node["attrs"] = [{"name": a["name"], "value": a["value"]} for a in node["attrs"] if a["name"] == "seq_id"]
    write("execution-trace.json", {"schema": trace["schema"], "nodes": trace["nodes"]}, "nodes")
    kept = ("Sequence number", "Input Dims", "Input type", "Concrete Inputs", "Input Strides")
    shown = [
        {key: e[key] for key in ("ph", "cat", "name", "tid", "ts", "dur")}
        | {"args": {key: e["args"][key] for key in kept if key in e["args"]}}
        for e in events["traceEvents"]
        if e.get("ph") == "X" and e.get("cat") in ("cpu_op", "user_annotation")
    ]  # fmt: skip
    first = min(e["ts"] for e in shown)
    for event in shown:
        event["ts"] = round(event["ts"] - first, 3)
    write("profiler.json", {"schemaVersion": events["schemaVersion"], "traceEvents": shown}, "traceEvents")


def jax():
    import jax
    import jax.numpy as jnp
    from jax import lax

    from npusim.trace import save_jaxpr

    def loss(p, x):
        y = jax.nn.relu(lax.conv_general_dilated(x, p["conv"], (1, 1), "VALID"))
        return jnp.sum(y.reshape(2, 8) @ p["fc"])

    def step(p, x):
        value, gradients = jax.value_and_grad(loss)(p, x)
        return jax.tree.map(lambda w, d: w - 0.1 * d, p, gradients), value

    shapes = {"conv": (2, 1, 3, 3), "fc": (8, 3)}
    p = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    save_jaxpr(jax.make_jaxpr(step)(p, jax.ShapeDtypeStruct((2, 1, 4, 4), jnp.float32)), HERE / "jax.json",
               parameters=["conv.weight", "fc.weight"])  # fmt: skip


if __name__ == "__main__":
    {"pytorch": pytorch, "jax": jax}[sys.argv[1]]()
