"""Made jax.json.gz: python make_jax.py (jax 0.10.2): a training step of the network of make_pytorch.py, in JAX.

Without biases where they do not matter, and GELU by tanh. Shapes are all that is traced: no array is made.
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


def main():
    jaxpr = jax.make_jaxpr(step)(*shapes())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jax.json"
        save_jaxpr(jaxpr, path, parameters=[f"{name}.weight" for name in sorted(shapes()[0])])
        value = json.loads(path.read_text())
    (HERE / "jax.json.gz").write_bytes(gzip.compress(json.dumps(value, separators=(",", ":")).encode(), mtime=0))


if __name__ == "__main__":
    main()
