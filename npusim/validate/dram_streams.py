"""DMA-like burst streams, defined by a kind and its parameters.

`bursts` gives the addresses of a stream; it draws from numpy's PCG64 in a fixed order, so a stream is fully defined by
its parameters and seed, and `digest` proves it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeGuard

import numpy as np

from npusim.errors import ConfigError

MIB = 1 << 20
SPAN = 512 * MIB
Transfer = tuple[int, int, int]


def _streams(p: dict[str, Any], rng: np.random.Generator, target: int) -> Iterator[Transfer]:
    """Round robin over several sequential streams, `chunk` bytes at a time."""
    each = target // len(p["bases"])
    for offset in range(0, each, p["chunk"]):
        for base, write in zip(p["bases"], p["writes"], strict=True):
            yield base + offset, p["chunk"], write


def _tile(p: dict[str, Any], rng: np.random.Generator, target: int) -> Iterator[Transfer]:
    """Tiles of `th` rows by `tw` bytes of a matrix with rows of `stride` bytes, left to right, then down."""
    stride, width, height = p["stride"], p["tw"], p["th"]
    rows = max(min(SPAN // 2, 4 * target) // stride // height * height, height)
    moved = 0
    for top in range(0, rows, height):
        for left in range(0, stride, width):
            n = min(width, stride - left)
            for row in range(top, min(top + height, rows)):
                yield p.get("base", 0) + row * stride + left, n, p["write"]
                moved += n
            if moved >= target:
                return


def _gather(p: dict[str, Any], rng: np.random.Generator, target: int) -> Iterator[Transfer]:
    """The rows of `row` bytes of a table that a mask of the given density selects, ascending or shuffled."""
    size = p["row"]
    wanted = target // size
    table = min(int(wanted / p["density"]), SPAN // size)
    rows = np.nonzero(rng.random(table) < p["density"])[0]
    if p["order"] == "shuf":
        rows = rng.permutation(rows)
    for r in rows[:wanted].tolist():
        yield r * size, size, 0


def _random(p: dict[str, Any], rng: np.random.Generator, target: int) -> Iterator[Transfer]:
    """Accesses of `gran` bytes at random places, a fraction `wfrac` of them writes."""
    size = p["gran"]
    n = target // size
    places = rng.integers(0, SPAN // size, n)
    writes = rng.random(n) < p["wfrac"]
    for a, w in zip(places.tolist(), writes.tolist(), strict=True):
        yield a * size, size, int(w)


def _pieces(transfers: list[Transfer], limit: int) -> list[Transfer]:
    return [(a + o, min(limit, n - o), w) for a, n, w in transfers for o in range(0, n, limit)]


def _interleave(lists: list[list[Transfer]], limit: int) -> list[Transfer]:
    """Concurrent DMA channels: pieces of at most `limit` bytes, from the list least far along, first on ties."""
    queues = [_pieces(t, limit) for t in lists]
    total = [sum(n for _, n, _ in q) for q in queues]
    at = [0] * len(queues)
    moved = [0] * len(queues)
    out = []
    for _ in range(sum(map(len, queues))):
        best, least = -1, 2.0
        for i, q in enumerate(queues):
            if at[i] < len(q) and moved[i] / total[i] < least:
                best, least = i, moved[i] / total[i]
        piece = queues[best][at[best]]
        at[best] += 1
        moved[best] += piece[1]
        out.append(piece)
    return out


def _gemm(p: dict[str, Any], rng: np.random.Generator, target: int) -> Iterator[Transfer]:
    """Blocked GEMM: tiles of A and B are read together while the finished tile of C is written."""
    m, n, k, tm, tn, tk = (p[key] for key in ("M", "N", "K", "tm", "tn", "tk"))
    base_a, base_b, base_c = 0, 0x4003000, 0x8011000
    finished: list[Transfer] = []
    moved = 0
    while True:
        for i in range(0, m, tm):
            for j in range(0, n, tn):
                for kk in range(0, k, tk):
                    a = [(base_a + (i + r) * k + kk, tk, 0) for r in range(tm)]
                    b = [(base_b + (kk + r) * n + j, tn, 0) for r in range(tk)]
                    step = _interleave([a, b] + ([finished] if finished else []), p["il"])
                    finished = []
                    yield from step
                    moved += sum(t[1] for t in step)
                    if moved >= target:
                        return
                finished = [(base_c + (i + r) * n + j, tn, 1) for r in range(tm)]


def _conv(p: dict[str, Any], rng: np.random.Generator, target: int) -> Iterator[Transfer]:
    """3x3 convolution layers in bands of `th` rows: input with halo, weights once, output of the band before."""
    h, w, c_in, c_out, band, il = (p[key] for key in ("H", "W", "Cc", "Ko", "th", "il"))
    layer = 0
    moved = 0
    while moved < target:
        turn = layer % 64
        image, weights, result = turn * 0x200000, 0x8000000 + turn * 0x10000, 0xA001000 + turn * 0x200000
        load = [(weights, 9 * c_in * c_out, 0)]
        store: list[Transfer] = []
        for top in range(0, h, band):
            rows = (image + max(0, top - 1) * w * c_in, min(band + 2, h - top + 1) * w * c_in, 0)
            lists = [[rows]] + ([load] if load else []) + ([store] if store else [])
            load = []
            step = _interleave(lists, il)
            yield from step
            moved += sum(t[1] for t in step)
            store = [(result + (top + r) * w * c_out, w * c_out, 1) for r in range(band)]
        yield from store
        moved += sum(t[1] for t in store)
        layer += 1


KINDS = {"streams": _streams, "tile": _tile, "gather": _gather, "random": _random, "gemm": _gemm, "conv": _conv}


# Keys of every kind: whole numbers above 0; the others are looked at by themselves.
_SIZES = {
    "streams": ("chunk",), "tile": ("stride", "tw", "th"), "gather": ("row",), "random": ("gran",),
    "gemm": ("M", "N", "K", "tm", "tn", "tk", "il"), "conv": ("H", "W", "Cc", "Ko", "th", "il"),
}  # fmt: skip


def check(params: object) -> None:
    """ConfigError for parameters that define no stream; names the key."""
    if not isinstance(params, dict) or params.get("kind") not in KINDS:
        kind = params.get("kind") if isinstance(params, dict) else params
        raise ConfigError(f"stream kind {kind!r}; known: {', '.join(KINDS)}")
    kind = params["kind"]
    bad = [f"{key} = {params.get(key)!r} must be a whole number from 1 to {SPAN}" for key in _SIZES[kind]
           if type(params.get(key)) is not int or not 0 < params[key] <= SPAN]  # fmt: skip
    if kind == "streams":
        bases, writes = params.get("bases"), params.get("writes")
        if not _flags(writes) or not isinstance(bases, list) or len(bases) != len(writes) or not bases:
            bad.append("bases and writes must be lists of equal length, writes of 0 and 1")
        elif any(type(base) is not int or not 0 <= base < 1 << 40 for base in bases):
            bad.append(f"bases = {bases} must be addresses")
    if kind == "tile":
        bad += [] if _flags([params.get("write")]) else [f"write = {params.get('write')!r} must be 0 or 1"]
        bad += [] if type(params.get("base", 0)) is int else [f"base = {params['base']!r} must be an address"]
    for key in {"gather": ("density",), "random": ("wfrac",)}.get(kind, ()):
        value = params.get(key)
        number = isinstance(value, int | float) and 0 <= value <= 1
        if not number or (key == "density" and not value):
            bad.append(f"{key} = {value!r} must be a share, up to 1")
    if kind == "gather" and params.get("order") not in ("asc", "shuf"):
        bad.append(f"order = {params.get('order')!r} must be asc or shuf")
    if bad:
        raise ConfigError(f"stream {kind}: " + "; ".join(bad))


def _flags(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(v) in (int, bool) and v in (0, 1) for v in values)


def bursts(params: dict[str, Any], seed: int, target: int, burst_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """(byte address of each burst, whether it writes) of a stream of about `target` bytes."""
    check(params)
    kind = params["kind"]
    rng = np.random.Generator(np.random.PCG64(seed))
    flat = np.fromiter(chain.from_iterable(KINDS[kind](params, rng, target)), np.int64)
    addr, size, write = flat.reshape(-1, 3).T
    first = addr // burst_bytes
    count = (addr + size - 1) // burst_bytes - first + 1
    start = np.cumsum(count) - count
    index = np.repeat(np.arange(addr.size), count)
    address = (first[index] + np.arange(count.sum()) - start[index]) * burst_bytes
    n = address.size if kind == "conv" else target // burst_bytes
    return address[:n], write[index][:n]


def digest(address: np.ndarray, write: np.ndarray) -> str:
    """First 16 hexadecimal digits of the SHA-256 of address * 2 + write as little-endian uint64."""
    packed = (address.astype("<u8") << np.uint64(1)) | write.astype("<u8")
    return hashlib.sha256(packed.tobytes()).hexdigest()[:16]
