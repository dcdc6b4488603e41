"""The tilings that a search looks at: one table per problem that no machine changes, and which of it fits a machine.

Sizes of an axis of n: powers of two, and ceil(n / parts) for up to PARTS parts; of an axis of up to SHORT, every
ceil(n / parts); of one of up to TINY, all. Pixels are cut along n, p and q in every combination when there are at most
ALL_PIXELS of them; else along q, along p with whole rows, along n with whole images, along p in tiles that span all
images, or into blocks of a half to a sixteenth of p and q. Groups are joined only when a group's rows and channels are
whole.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npusim.errors import CapacityError
from npusim.folding import ceil_div
from npusim.graph import TAPS
from npusim.mapping._kernels import corner_sums
from npusim.mapping.problem import Problem
from npusim.mapping.tiling import Tiling, axis_extents, image_axis

if TYPE_CHECKING:
    from npusim.masks import Mask
    from npusim.npu import Hardware

PARTS, TINY, SHORT, ALL_PIXELS = 8, 12, 32, 128
MOST_STEPS, MOST_COUNTED = 32, 2**16


class Candidates(NamedTuple):
    """int64 columns: extents of a full tile, how many tiles that gives, and words.

    region: words per channel of the B image that a full tile reads at most; regions: those that all pixel tiles read,
    halos counted as often as they are read. steps: how many tiles are computed.
    """

    g: np.ndarray
    m: np.ndarray
    c: np.ndarray
    n: np.ndarray
    p: np.ndarray
    q: np.ndarray
    tiles_g: np.ndarray
    tiles_m: np.ndarray
    tiles_c: np.ndarray
    tiles_t: np.ndarray
    region: np.ndarray
    regions: np.ndarray
    steps: np.ndarray

    def take(self, chosen: np.ndarray) -> Candidates:
        """Those of these indices."""
        return Candidates(*(column.take(chosen) for column in self))

    def tiling(self, i: int, swap: bool) -> Tiling:
        g, m, c, n, p, q = (int(column[i]) for column in self[:6])
        return Tiling(g, m, c, n, p, q, bool(swap))


@lru_cache(maxsize=128)
def table(problem: Problem) -> Candidates:
    """All combinations of blocks (g, m, c) and pixel tiles (n, p, q)."""
    pixels = _pixels(problem)
    blocks = {(1, m, c) for m in sizes(problem.m) for c in sizes(problem.c)}
    blocks |= {(g, problem.m, problem.c) for g in sizes(problem.groups)}
    left, right = np.array(sorted(blocks)), np.array(sorted(pixels))
    return described(problem, np.hstack([np.repeat(left, len(right), axis=0), np.tile(right, (len(left), 1))]))


def _pixels(problem: Problem) -> set[tuple[int, int, int]]:
    """Extents n, p, q of pixel tiles."""
    rows, columns, images = sizes(problem.p), sizes(problem.q), sizes(problem.n)
    if len(rows) * len(columns) * len(images) <= ALL_PIXELS:
        return set(product(images, rows, columns))
    found = {(1, 1, q) for q in columns} | {(1, p, problem.q) for p in rows}
    found |= {(n, problem.p, problem.q) for n in images} | {(problem.n, p, problem.q) for p in rows}
    parts = [{ceil_div(total, 2**i) for i in range(1, 5)} for total in (problem.p, problem.q)]
    return found | {(1, p, q) for p, q in product(*parts)}


def described(problem: Problem, extents: np.ndarray) -> Candidates:
    """The columns of tilings int64 [candidates, 6] of g, m, c, n, p, q."""
    g, m, c, n, p, q = np.ascontiguousarray(extents.T)
    tiles_t = ceil_div(problem.n, n) * ceil_div(problem.p, p) * ceil_div(problem.q, q)
    rows = np.minimum((p - 1) * problem.stride[0] + problem.extent[0], problem.h)
    columns = np.minimum((q - 1) * problem.stride[1] + problem.extent[1], problem.w)
    regions = problem.n * _image_sums(problem, 0, p) * _image_sums(problem, 1, q)
    tiles_g, tiles_m, tiles_c = ceil_div(problem.groups, g), ceil_div(problem.m, m), ceil_div(problem.c, c)
    return Candidates(
        g, m, c, n, p, q, tiles_g, tiles_m, tiles_c, tiles_t, n * rows * columns, regions,
        tiles_g * tiles_m * tiles_c * tiles_t,
    )  # fmt: skip


def sizes(total: int) -> list[int]:
    """Tile sizes worth trying along an axis of `total`."""
    if total <= TINY:
        return list(range(1, total + 1))
    powers = {1 << i for i in range(total.bit_length())}
    return sorted(powers | {ceil_div(total, parts) for parts in range(1, (total if total <= SHORT else PARTS) + 1)})


def _image_sums(problem: Problem, axis: int, size: np.ndarray) -> np.ndarray:
    """Sums of `image_extents` over all tiles, for every size."""
    where = image_axis(problem, axis)
    sums = {one: _image_sum(where, one) for one in set(size.tolist())}
    ordered = np.array(sorted(sums))
    return np.array([sums[one] for one in ordered.tolist()])[np.searchsorted(ordered, size)]


@lru_cache(maxsize=2**16)
def _image_sum(axis: tuple[int, int, int, int, int], size: int) -> int:
    total, image, *_ = axis
    if ceil_div(total, size) > MOST_COUNTED:
        # So many tiles are no candidate for long; every one reads something, all of them no less than this.
        return min(total, image)
    return int(axis_extents(axis, size).sum())


class Widths(NamedTuple):
    """Bits of a word of A, of B, and of a partial sum."""

    a: int
    b: int
    accumulator: int


def _widths(problem: Problem, hw: Hardware) -> Widths:
    bits = hw.precision.bits
    return Widths(bits(problem.a_kind), bits(problem.b_kind), hw.precision.accumulator_bits)


def _dense_footprints(problem: Problem, widths: Widths, found: Candidates) -> dict[str, np.ndarray]:
    taps, g, m, c, t = max(problem.taps, 1), found.g, found.m, found.c, found.n * found.p * found.q
    a_words, out_words = (m * t, m * c * taps) if problem.role == TAPS else (m * c * taps, m * t)
    return {
        "a": ceil_div(g * a_words * widths.a, 8),
        "b": ceil_div(g * c * found.region * widths.b, 8),
        "accumulator": ceil_div(g * out_words * widths.accumulator, 8),
    }


@lru_cache(maxsize=128)
def _table_footprints(problem: Problem, widths: Widths) -> dict[str, np.ndarray]:
    return _dense_footprints(problem, widths, table(problem))


def footprints(
    problem: Problem, hw: Hardware, found: Candidates | None, mask: Mask | None, compact: bool
) -> dict[str, np.ndarray]:
    """Bytes that a full tile of `found` (None: the problem's table) takes in each buffer.

    `compact`: only sums of selected elements are held.
    """
    widths = _widths(problem, hw)
    need = _table_footprints(problem, widths) if found is None else _dense_footprints(problem, widths, found)
    if mask is None:
        return need
    found = table(problem) if found is None else found
    need = {**need, "mask": ceil_div(found.g * found.m * found.c * max(problem.taps, 1), 8)}
    if compact:
        slot = 8 * hw.buffers.accumulator.slot_bytes // widths.accumulator
        largest = largest_selection(problem, mask, slot, found.g, found.m, found.c)
        need["accumulator"] = ceil_div(largest * widths.accumulator, 8)
    return need


def fitting(
    problem: Problem, hw: Hardware, found: Candidates | None = None, mask: Mask | None = None, compact: bool = False,
    most_steps: int = MOST_STEPS,
) -> Candidates:  # fmt: skip
    """Those of `found` (None: the problem's table) whose tiles fit the buffers and are at most `most_steps` times as
    many as the fewest.

    CapacityError names the buffer, the bytes needed and present.
    """
    rows = fits(problem, hw, found, mask, compact, most_steps)
    return (table(problem) if found is None else found).take(rows)


def fits(
    problem: Problem, hw: Hardware, found: Candidates | None = None, mask: Mask | None = None, compact: bool = False,
    most_steps: int = MOST_STEPS,
) -> np.ndarray:  # fmt: skip
    """Rows of what `fitting` returns, int64."""
    need = footprints(problem, hw, found, mask, compact)
    steps = (table(problem) if found is None else found).steps
    inside = np.ones(steps.shape, bool)
    for key, size in need.items():
        inside &= size <= getattr(hw.buffers, key).slot_bytes
    rows = np.flatnonzero(inside)
    if rows.size == 0:
        raise _does_not_fit(need, hw)
    few = steps[rows]
    return rows[few <= most_steps * few.min()]


def largest_selection(
    problem: Problem, mask: Mask, slot: int, g: np.ndarray, m: np.ndarray, c: np.ndarray
) -> np.ndarray:
    """For tiles of g groups, m rows and c channels: selected elements of the fullest tile of the grid that they make.

    Tiles that have no more than `slot` elements are taken as full.
    """
    rows, channels = problem.m, problem.c
    # Sorting single numbers is much faster than sorting rows.
    keys = np.ravel_multi_index((g, m, c), (problem.groups + 1, rows + 1, channels + 1))
    _, first, where = np.unique(keys, return_index=True, return_inverse=True)
    found = np.stack([g, m, c], axis=1)[first]
    fullest = found.prod(axis=1) * problem.taps
    large = np.flatnonzero(fullest > slot)
    corners = corner_sums(mask.matrix(), problem.taps) if large.size else np.empty((0, 0), np.int32)
    for i in large:
        groups, height, width = found[i]
        # Tiles of several groups hold all their rows.
        joined = np.arange(0, problem.groups, groups)[:, None] * rows
        starts = (joined + np.arange(0, rows, height)).ravel()
        edges = np.append(starts, problem.groups * rows), np.append(np.arange(0, channels, width), channels)
        fullest[i] = np.diff(np.diff(corners[np.ix_(*edges)], axis=0), axis=1).max()
    return fullest[where.reshape(-1)]


def _does_not_fit(need: dict, hw: Hardware) -> CapacityError:
    """The buffer that even the smallest candidate overflows, or all of them when no single one is to blame."""
    buffers = {key: getattr(hw.buffers, key) for key in ("a", "b", "accumulator", "mask")}
    for key, size in need.items():
        if size.min() > buffers[key].slot_bytes:
            halves = "half of " if buffers[key].slots == 2 else ""
            return CapacityError(
                f"the smallest tile needs {int(size.min())} bytes in buffer {key!r}, but {hw.name} has "
                f"{buffers[key].slot_bytes} ({halves}{buffers[key].bytes} bytes); "
                f"raise buffers.{key}.bytes{' or switch off its double buffering' if halves else ''}"
            )
    shown = ", ".join(f"{key} {buffer.slot_bytes}" for key, buffer in buffers.items())
    return CapacityError(f"no tile fits the buffers of {hw.name} together (bytes per slot: {shown})")
