"""Made jax.json.gz and jax-scan.json.gz: python make_jax.py (jax 0.10.2): training steps of two networks in JAX.

jax: that of make_pytorch.py, without biases where they do not matter, and GELU by tanh. jax-scan: a recurrent cell
scanned over time, then layers whose weights are stacked up, scanned over depth. Shapes are all that is traced: no
array is made.
"""

import gzip
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax

from npusim.trace import save_jaxpr

HERE = Path(__file__).parent


def network(p, x):
    x = lax.conv_general_dilated(x, p["stem"], (2, 2), [(1, 1), (1, 1)]) + p["stem_bias"][None, :, None, None]
    x = jax.nn.relu(x)
    y = lax.conv_general_dilated(x, p["depthwise"], (1, 1), [(1, 1), (1, 1)], feature_group_count=8)
    x = x + lax.conv_general_dilated(y, p["pointwise"], (1, 1), "VALID")
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    n, c, h, w = x.shape
    x = x.reshape(n, c, h * w).transpose(0, 2, 1)
    q, k, v = (x @ p["qkv"]).reshape(n, h * w, 3, 2, c // 2).transpose(2, 0, 3, 1, 4)
    scores = jax.nn.softmax(q @ k.swapaxes(-1, -2) * (c // 2) ** -0.5, -1)
    x = x + (scores @ v).transpose(0, 2, 1, 3).reshape(n, h * w, c) @ p["proj"]
    return jax.nn.gelu(x).mean(1) @ p["head"] + p["head_bias"]


def loss(p, x, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(network(p, x)), labels[:, None], 1))


def step(p, state, x, labels):
    value, gradients = jax.value_and_grad(loss)(p, x, labels)
    state = jax.tree.map(lambda v, d: 0.9 * v + d, state, gradients)
    return jax.tree.map(lambda w, v: w - 0.1 * v, p, state), state, value


def shapes():
    floats = {
        "stem": (8, 3, 3, 3), "stem_bias": (8,), "depthwise": (8, 1, 3, 3), "pointwise": (8, 8, 1, 1), "qkv": (8, 24),
        "proj": (8, 8), "head": (8, 10), "head_bias": (10,),
    }  # fmt: skip
    p = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in floats.items()}
    return p, p, jax.ShapeDtypeStruct((2, 3, 16, 16), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)


STEPS, DEPTH, WIDTH = 5, 3, 8
SCANNED = ["blocks.bias", "blocks.weight", "cell.recurrent", "cell.weight", "head.weight"]


def recurrent(p, x, scan=lax.scan):
    def cell(h, now):
        h = jnp.tanh(now @ p["cell_x"] + h @ p["cell_h"])
        return h, h

    def block(h, layer):
        return h + jax.nn.relu(h @ layer["w"] + layer["b"]), None

    _, all_h = scan(cell, jnp.zeros((x.shape[1], WIDTH)), x)
    h, _ = scan(block, all_h.mean(0), p["blocks"])
    return h @ p["head"]


def scanned_step(p, x, labels, scan=lax.scan):
    def loss(q):
        picked = jnp.take_along_axis(jax.nn.log_softmax(recurrent(q, x, scan)), labels[:, None], 1)
        return -jnp.mean(picked)

    return jax.tree.map(lambda w, d: w - 0.1 * d, p, jax.grad(loss)(p))


def scanned_shapes():
    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    blocks = {"b": shape(DEPTH, WIDTH), "w": shape(DEPTH, WIDTH, WIDTH)}
    p = {"blocks": blocks, "cell_h": shape(WIDTH, WIDTH), "cell_x": shape(6, WIDTH), "head": shape(WIDTH, 10)}
    return p, shape(STEPS, 4, 6), jax.ShapeDtypeStruct((4,), jnp.int32)


def write(jaxpr, name, parameters):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jax.json"
        save_jaxpr(jaxpr, path, parameters=parameters)
        value = json.loads(path.read_text())
    (HERE / name).write_bytes(gzip.compress(json.dumps(value, separators=(",", ":")).encode(), mtime=0))


def main():
    names = [f"{name}.weight" for name in sorted(shapes()[0])]
    write(jax.make_jaxpr(step)(*shapes()), "jax.json.gz", names)
    write(jax.make_jaxpr(scanned_step)(*scanned_shapes()), "jax-scan.json.gz", SCANNED)


if __name__ == "__main__":
    main()
