"""Mask structures of weights [K, C/G, R, S]: which elements are selected together.

| structure      | elements that share one bit                                        |
|----------------|--------------------------------------------------------------------|
| element        | one                                                                |
| kernel         | the R*S taps of one (k, c)                                         |
| output_channel | all of one k                                                       |
| input_channel  | all of one c                                                       |
| tap            | all of one (r, s)                                                  |
| column_set     | one column (c, r, s) of `rows` consecutive output channels         |
| n_m            | one, but exactly n of every m neighbours along (c, r, s) are chosen |
| layer          | all                                                                |

Coarsening is a conversion to groups by a rule, so a mask of any structure becomes one of any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from npusim._mask_kernels import tile_statistics
from npusim.dataflow import MASK_STRUCTURES
from npusim.errors import NpusimError, closest
from npusim.masks import Mask

if TYPE_CHECKING:
    from npusim.graph import StepGraph

RULES = ("any", "majority", "equal_count")


@dataclass(frozen=True)
class Structure:
    """One structure; `rows` is the block height of column_set, `m` the neighbourhood of n_m.

    `per_group`: output channels of one group of a grouped convolution, which column sets do not leave; 0: all.
    """

    name: str
    rows: int = 16
    m: int = 16
    per_group: int = 0

    def __post_init__(self) -> None:
        if self.name not in MASK_STRUCTURES:
            raise NpusimError(
                f"unknown mask structure {self.name!r}{closest(self.name, MASK_STRUCTURES)}; "
                f"known: {', '.join(MASK_STRUCTURES)}"
            )

    def groups(self, shape: tuple[int, ...]) -> np.ndarray:
        """For every element the number of the group that shares its bit (n_m: its neighbourhood), int64 `shape`."""
        k, c, r, s = shape
        rows, inputs, taps = (np.arange(n) for n in (k, c, r * s))
        kernel = rows[:, None, None] * c + inputs[:, None]
        column = inputs[:, None] * (r * s) + taps
        grid = np.zeros((k, c, r * s), np.int64)
        match self.name:
            case "element":
                grid = np.arange(grid.size).reshape(grid.shape)
            case "kernel":
                grid = grid + kernel
            case "output_channel":
                grid = grid + rows[:, None, None]
            case "input_channel":
                grid = grid + inputs[:, None]
            case "tap":
                grid = grid + taps
            case "column_set":
                per_group = self.per_group or k
                block = rows // per_group * -(-per_group // self.rows) + rows % per_group // self.rows
                grid = grid + block[:, None, None] * (c * r * s) + column
            case "n_m":
                per_row = -(-c * r * s // self.m)
                grid = grid + rows[:, None, None] * per_row + column // self.m
        return grid.reshape(shape)


def coarsen(bits: np.ndarray, structure: Structure, rule: str, scores: np.ndarray | None = None) -> np.ndarray:
    """A mask of `structure` made from `bits` (bool [K, C/G, R, S]).

    any           a group with a selected element is selected: a superset, density grows
    majority      a group with at least half of its elements selected is selected
    equal_count   groups with the largest mean of `scores` (default: of selected elements) are selected until as many
                  elements as in `bits` are, to the nearest group; ties go to the lower group number
    For n_m every rule keeps, in each neighbourhood, n = round(m * density) elements with the largest scores.
    """
    if rule not in RULES:
        raise NpusimError(f"unknown coarsening rule {rule!r}; known: {', '.join(RULES)}")
    weight = bits.astype(np.float64) if scores is None else np.asarray(scores, np.float64)
    groups = structure.groups(bits.shape)
    if structure.name == "n_m":
        return _n_of_m(weight, groups, bits.mean())
    size = np.bincount(groups.ravel())
    selected = np.bincount(groups.ravel(), bits.ravel())
    if rule == "equal_count":
        order = np.argsort(-np.bincount(groups.ravel(), weight.ravel()) / size, kind="stable")
        reached = np.cumsum(size[order])
        taken = int(np.searchsorted(reached - size[order] / 2, bits.sum()))
        keep = np.zeros(size.size, bool)
        keep[order[:taken]] = True
    else:
        keep = selected > 0 if rule == "any" else 2 * selected >= size
    return keep[groups]


def _n_of_m(weight: np.ndarray, groups: np.ndarray, density: float) -> np.ndarray:
    flat = groups.ravel()
    order = np.lexsort((-weight.ravel(), flat))
    size = np.bincount(flat)
    rank = np.arange(flat.size) - np.repeat(np.cumsum(size) - size, size)
    keep = np.zeros(flat.size, bool)
    keep[order] = rank < np.rint(size * density)[flat[order]]
    return keep.reshape(groups.shape)


def generate(shape: tuple[int, ...], structure: Structure, density: float, seed: int) -> np.ndarray:
    """A random mask of `structure`: the share `density` of its groups, to the nearest whole number of groups."""
    if not 0 <= density <= 1:
        raise NpusimError(f"a density lies in 0..1, not at {density}")
    rng = np.random.default_rng(seed)
    groups = structure.groups(shape)
    if structure.name == "n_m":
        return _n_of_m(rng.random(shape), groups, density)
    count = int(groups.max()) + 1
    keep = np.zeros(count, bool)
    keep[rng.permutation(count)[: round(count * density)]] = True
    return keep[groups]


def masked_step(
    graph: StepGraph, structure: Structure, densities: float | Mapping[str, float], seed: int = 0
) -> StepGraph:
    """`graph` with generated update masks on the weights of its convolutions and linear layers.

    `densities`: one for all, or per parameter; parameters not named keep their mask. Each layer has a seed of its own.
    """
    from npusim.graph import Conv

    masks = dict(graph.update_masks)
    for number, op in enumerate(op for op in graph.ops if op.phase == "grad_weight" and isinstance(op.dims, Conv)):
        density = densities.get(op.param) if isinstance(densities, Mapping) else densities
        if density is not None and op.param:
            d = op.dims
            assert isinstance(d, Conv)
            bits = generate((d.k, d.c // d.groups, d.r, d.s), structure, density, seed * 10007 + number)
            masks[op.param] = Mask.of(bits)
    return replace(graph, update_masks=masks)


def coarsened_step(graph: StepGraph, structure: Structure, rule: str) -> StepGraph:
    """`graph` with every update mask coarsened by the rule; column sets stay within the groups of a convolution."""
    from npusim.graph import Conv

    grouped = {op.param: op.dims.groups for op in graph.ops if op.param and isinstance(op.dims, Conv)}
    masks = {}
    for name, mask in graph.update_masks.items():
        shape = mask.shape if len(mask.shape) == 4 else (*mask.shape, 1, 1)
        own = replace(structure, per_group=shape[0] // grouped.get(name, 1))
        masks[name] = Mask.of(coarsen(mask.bits().reshape(shape).astype(bool), own, rule))
    return replace(graph, update_masks=masks)


@dataclass(frozen=True)
class Statistics:
    """How a mask looks to an array of `rows` x `columns`, over its tiles of that size ([K, C*R*S], ragged at the ends).

    empty_tiles: share of tiles without a selected element. live_rows, live_columns: mean share of rows (columns) of a
    tile with one. run_length: mean length of runs of selected columns in a row. imbalance: mean over tiles with a
    selected element of the fullest row's count over the mean row's.
    """

    density: float
    tile_density_min: float
    tile_density_max: float
    empty_tiles: float
    live_rows: float
    live_columns: float
    run_length: float
    imbalance: float


def statistics(bits: np.ndarray, rows: int, columns: int) -> Statistics:
    """Statistics of a mask [K, C/G, R, S] (or [K, columns])."""
    matrix = np.asarray(bits).reshape(bits.shape[0], -1)
    if matrix.dtype != np.uint8:
        matrix = matrix.astype(bool).view(np.uint8)
    tiles, runs = tile_statistics(np.ascontiguousarray(matrix), rows, columns)
    elements, selected, live_rows, live_columns, fullest = tiles.T
    across = -(-matrix.shape[1] // columns)
    width = np.full(across, columns)
    width[-1] = matrix.shape[1] - (across - 1) * columns
    width = np.tile(width, len(tiles) // across)
    height = elements // width
    live = selected > 0
    return Statistics(
        density=float(selected.sum() / matrix.size),
        tile_density_min=float((selected / elements).min()),
        tile_density_max=float((selected / elements).max()),
        empty_tiles=float(1 - live.mean()),
        live_rows=float((live_rows / height).mean()),
        live_columns=float((live_columns / width).mean()),
        run_length=float(selected.sum() / runs) if runs else 0.0,
        imbalance=float((fullest * height / np.maximum(selected, 1))[live].mean()) if live.any() else 0.0,
    )
