"""Tiles for the RTL benches: operands, masks of several structures, and the text form the benches read."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

MODES = ("dense", "skip", "rows", "channels")
STRUCTURES = ("element", "row", "channel", "kernel", "block", "single", "empty", "full")


def structured_mask(rng: np.random.Generator, structure: str, rows: int, channels: int, taps: int, density: float):
    """A uint8 mask [rows, channels * taps] whose selected elements form the named structure."""
    shape = (rows, channels * taps)
    if structure == "full":
        return np.ones(shape, np.uint8)
    if structure == "empty":
        return np.zeros(shape, np.uint8)
    if structure == "single":
        mask = np.zeros(shape, np.uint8)
        mask[rng.integers(rows), rng.integers(shape[1])] = 1
        return mask
    if structure == "row":
        return np.broadcast_to(rng.random((rows, 1)) < density, shape).astype(np.uint8)
    if structure == "channel":
        return np.broadcast_to(np.repeat(rng.random(channels) < density, taps), shape).astype(np.uint8)
    if structure == "kernel":
        return np.repeat(rng.random((rows, channels)) < density, taps, axis=1).astype(np.uint8)
    if structure == "block":
        blocks = rng.random((-(-rows // 4), -(-shape[1] // 4))) < density
        return np.kron(blocks, np.ones((4, 4)))[:rows, : shape[1]].astype(np.uint8)
    return (rng.random(shape) < density).astype(np.uint8)


def operands(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """int8 values, with the extremes well represented."""
    values = rng.integers(-128, 128, shape)
    return np.where(rng.random(shape) < 0.05, rng.choice([-128, 127], shape), values)


@dataclass(frozen=True)
class Tile:
    """One tile: dW[K, N] = dY[K, T] . X[N, T]^T over the live terms; with `stationary`, Y[T, N] = left^T . right^T."""

    left: np.ndarray  # [K, T]
    right: np.ndarray  # [N, T], or [N, K] when stationary
    mask: np.ndarray  # [K, N]
    terms: np.ndarray  # live positions of T
    taps: int = 1
    mode: str = "dense"
    stationary: bool = False
    overlap: bool = False

    def __str__(self) -> str:
        rows, terms = self.left.shape
        kind = "stationary" if self.stationary else self.mode
        return (
            f"{kind} overlap={self.overlap} K={rows} N={self.right.shape[0]} T={terms} live={self.terms.size} "
            f"taps={self.taps} selected={self.mask.sum()}"
        )

    def golden(self) -> np.ndarray:
        if self.stationary:
            return self.left.T @ self.right.T
        return self.left[:, self.terms] @ self.right[:, self.terms].T

    def systolic_text(self, ident: int) -> str:
        """The point as rtl/systolic_tb.sv reads it."""
        rows, terms = self.left.shape
        head = [ident, self.stationary, self.overlap, MODES.index(self.mode), rows, self.right.shape[0], terms]
        head += [self.terms.size, self.taps]
        return _text(head, self.terms, self.left, self.right, self.mask, self.golden())

    def reduction_text(self, ident: int) -> str:
        """The point as rtl/reduction_tb.sv reads it: all terms are live."""
        head = [ident, self.left.shape[0], self.right.shape[0], self.left.shape[1]]
        return _text(head, self.left, self.right, self.mask, self.golden())


def _text(*parts: np.ndarray | list) -> str:
    return "\n".join(" ".join(map(str, np.asarray(part).astype(int).reshape(-1).tolist())) for part in parts)


def random_tile(
    rng: np.random.Generator,
    rows: int,
    channels: int,
    taps: int,
    terms: int,
    structure: str = "full",
    sparse_terms: bool = False,
    **options,
) -> Tile:
    """A tile with a mask of this structure; with `sparse_terms` about half of the terms are live, at least one."""
    live = np.flatnonzero(rng.random(terms) < (0.5 if sparse_terms else 1.0))
    width = channels * taps
    inner = rows if options.get("stationary") else terms
    return Tile(
        left=operands(rng, (rows, terms)),
        right=operands(rng, (width, inner)),
        mask=structured_mask(rng, structure, rows, channels, taps, float(rng.choice([0.1, 0.3, 0.7]))),
        terms=live if live.size else np.array([terms - 1]),
        taps=taps,
        **options,
    )


def _sizes(rng: np.random.Generator, rows: int, columns: int, blocks: float) -> tuple[int, int, int, int]:
    """K, channels, taps, T: about `blocks` array sizes at most, and T on both sides of the drain of `rows` cycles."""
    taps = int(rng.choice([1, 3, 4, 9]))
    height = int(rng.integers(1, int(blocks * rows) + 2))
    channels = int(rng.integers(1, max(2, int(blocks * columns) // taps + 2)))
    near = [1, rows - 1, rows, rows + 1, columns, 2 * rows + 3, int(rng.integers(1, 30))]
    return height, channels, taps, max(1, int(rng.choice(near)))


def systolic_tiles(rows: int, columns: int, count: int, blocks: float, seed: int) -> list[Tile]:
    """`count` tiles that walk through every mode, overlap, mask structure and sparsity of the reduction."""
    rng = np.random.default_rng([seed, rows, columns])
    masked = [
        {"mode": mode, "structure": structure, "overlap": overlap, "sparse_terms": sparse}
        for mode, structure, overlap, sparse in product(MODES[1:], STRUCTURES, (False, True), (False, True))
    ]
    plain = [
        {"mode": "dense", "overlap": overlap, "sparse_terms": sparse} for overlap, sparse in product((0, 1), (0, 1))
    ]
    plain += [{"stationary": True, "overlap": overlap} for overlap in (False, True)]
    rng.shuffle(masked)
    tiles = []
    for i in range(count):
        options = plain[i // 2 % len(plain)] if i % 2 else masked[i // 2 % len(masked)]
        tiles.append(random_tile(rng, *_sizes(rng, rows, columns, blocks), **options))
    return tiles


def reduction_tiles(group: int, groups: int, registers: int, count: int, blocks: float, seed: int) -> list[Tile]:
    """`count` tiles of about `blocks` register blocks, column batches and chunks that walk through the structures."""
    rng = np.random.default_rng([seed, group, groups, registers])
    tiles = []
    for i in range(count):
        height = int(rng.integers(1, int(blocks * registers) + 2))
        taps = int(rng.choice([1, 3, 4, 9]))
        channels = int(rng.integers(1, int(3 * blocks * groups) // taps + 3))
        near = [1, group - 1, group, group + 1, 2 * group, int(rng.integers(1, int(blocks * group) + 2))]
        terms = max(1, int(rng.choice(near)))
        tiles.append(random_tile(rng, height, channels, taps, terms, structure=STRUCTURES[i % len(STRUCTURES)]))
    return tiles
