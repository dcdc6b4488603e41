"""One convolution's selective grad_weight, executed with a dataflow's schedule and a tiling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from npusim import array as closed_forms
from npusim.dataflow import Dataflow
from npusim.functional import kernels
from npusim.graph import Conv, Op
from npusim.mapping.problem import Problem, problems
from npusim.mapping.tiling import Tiling, tap_lines, tile_extents, tile_starts
from npusim.reduction_kernels import reduction_grids, row_compaction_grid

if TYPE_CHECKING:
    from npusim.npu import Hardware

Schedule = Callable[..., tuple[int, int]]


@dataclass(frozen=True)
class Executed:
    """dw float32 [K, C/G, R, S], zero where nothing was written; writes: how often each element was written.

    terms: products summed into each element; macs_done, macs_gated: as the timing model counts them.
    """

    dw: np.ndarray
    writes: np.ndarray
    terms: np.ndarray
    macs_done: int
    macs_gated: int


def im2col(dims: Conv, x: np.ndarray) -> np.ndarray:
    """The input as a matrix [C*R*S, N*P*Q]; zero where a tap lies on padding."""
    (pad_h, pad_w), (step_h, step_w), (dil_h, dil_w) = dims.padding, dims.stride, dims.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (pad_h, pad_h), (pad_w, pad_w)))
    rows, columns = slice(0, (dims.p - 1) * step_h + 1, step_h), slice(0, (dims.q - 1) * step_w + 1, step_w)
    windows = [
        padded[:, :, r * dil_h :, s * dil_w :][:, :, rows, columns] for r in range(dims.r) for s in range(dims.s)
    ]
    return np.stack(windows, axis=1).transpose(2, 1, 0, 3, 4).reshape(dims.c * dims.r * dims.s, -1)


def reference(dims: Conv, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dW of every element in double precision, float64 [K, C/G, R, S]."""
    k, c = dims.k // dims.groups, dims.c // dims.groups
    left = dy.transpose(1, 0, 2, 3).reshape(dims.groups, k, -1).astype(np.float64)
    right = im2col(dims, x).reshape(dims.groups, c * dims.r * dims.s, -1).astype(np.float64)
    return np.einsum("gkt,gct->gkc", left, right).reshape(dims.k, c, dims.r, dims.s)


def execute(
    dims: Conv, mask: np.ndarray, dy: np.ndarray, x: np.ndarray, dataflow: Dataflow, tiling: Tiling, hw: Hardware
) -> Executed:
    """Run the tiles of `tiling` in the order of the lowering: output tiles, for each its pixel tiles.

    mask bool [K, C/G, R, S]; dy [N, K, P, Q]; x [N, C, H, W].
    """
    (problem,) = problems(Op("layer", "grad_weight", "conv", dims))
    left = np.ascontiguousarray(dy.transpose(1, 0, 2, 3).reshape(dims.k, -1), np.float32)
    right = np.ascontiguousarray(im2col(dims, x), np.float32)
    columns = problem.c * problem.taps
    bits = np.ascontiguousarray(mask.reshape(dims.k, columns), np.uint8)
    sums, tally, writes = (
        np.zeros(bits.shape, np.float32),
        np.zeros(bits.shape, np.int64),
        np.zeros(bits.shape, np.int64),
    )
    schedule, done, gated = _schedule(dataflow, problem, hw), 0, 0
    for where in _output_tiles(problem, tiling):
        part = slice(where[0], where[0] + where[1]), slice(where[2], where[2] + where[3])
        if not bits[part].any():
            continue
        for pixels in _pixel_tiles(problem, tiling):
            macs = schedule(bits, left, right, where, pixels, sums, tally, problem.m)
            done, gated = done + int(macs[0]), gated + int(macs[1])
        writes[part] += bits[part]
    return Executed(
        np.where(writes > 0, sums, 0).reshape(mask.shape), writes.reshape(mask.shape), tally.reshape(mask.shape),
        done, gated,
    )  # fmt: skip


def _output_tiles(problem: Problem, tiling: Tiling) -> Iterator[tuple[int, int, int, int]]:
    """(row, rows, column, columns) of each output tile, in order; a tile of several groups takes all their rows."""

    def tiles(total: int, size: int) -> list[tuple[int, int]]:
        return list(zip(tile_starts(total, size).tolist(), tile_extents(total, size).tolist(), strict=True))

    channels, rows = tiles(problem.c, tiling.c), tiles(problem.m, tiling.m)
    inner = [(m, c) for c in channels for m in rows] if tiling.swap else [(m, c) for m in rows for c in channels]
    for g, groups in tiles(problem.groups, tiling.g):
        for (m, height), (c, width) in inner:
            yield g * problem.m + m, groups * height, c * problem.taps, width * problem.taps


def _pixel_tiles(problem: Problem, tiling: Tiling):
    """Pixel numbers (n*P + p)*Q + q of each pixel tile, in order."""
    axes = ((problem.n, tiling.n), (problem.p, tiling.p), (problem.q, tiling.q))
    ranges = [
        [np.arange(start, start + size) for start, size in zip(tile_starts(*axis), tile_extents(*axis), strict=True)]
        for axis in axes
    ]
    for n in ranges[0]:
        for p in ranges[1]:
            for q in ranges[2]:
                rows = n[:, None, None] * problem.p + p[None, :, None]
                yield np.ascontiguousarray((rows * problem.q + q[None, None, :]).reshape(-1))


def _schedule(dataflow: Dataflow, problem: Problem, hw: Hardware) -> Schedule:
    """The tile kernel of a dataflow with its arguments bound; what depends on the tile is chosen inside."""
    rows, cols, setup = hw.array.rows, hw.array.cols, dataflow.cost.__globals__
    if dataflow.name == "dense-os":
        return _dense(rows, cols)
    match dataflow.name:
        case "selective-row":
            return partial(kernels.packed_rows, rows=rows, width=cols)
        case "kernel-packed":
            return partial(_kernel_packed, widths=setup["widths"](problem.taps, cols), hw=hw)
        case "channel-skipping":
            return partial(kernels.packed_columns, rows=rows, columns=cols, taps=problem.taps)
        case "column-set":
            return partial(kernels.packed_columns, rows=rows, columns=cols, taps=1)
        case "element-gather":
            return partial(kernels.gathered, array=setup["array_of"](hw, hw.precision.activation_bits))
        case "ws-selective":
            return partial(kernels.held_dy, rows=rows, columns=cols)
        case "reduction-spatial":
            bits = hw.precision.gradient_bits, hw.precision.activation_bits
            return partial(_reduction_spatial, arrays=tuple(setup["arrays"](hw, *bits)))
        case "reduction-window":
            return _reduction_window(problem, hw, setup)
    raise ValueError(f"dataflow {dataflow.name!r} has no functional schedule")


def _dense(rows: int, cols: int) -> Schedule:
    """Every element is computed, whatever the mask."""

    def run(bits, dy, x, where, pixels, sums, tally, span):
        return kernels.packed_rows(np.ones_like(bits), dy, x, where, pixels, sums, tally, span, rows, cols)

    return run


def _one_tile(where) -> list[np.ndarray]:
    return [np.array([value], np.int64) for value in where]


def _kernel_packed(bits, dy, x, where, pixels, sums, tally, span, widths, hw: Hardware):
    """With the width that the dataflow charges: the fewest cycles, the narrowest of equals."""
    cycles = []
    for width in widths:
        ranges = (*_one_tile(where), np.array([pixels.size]))
        folds = row_compaction_grid(bits, *ranges, hw.array.rows, width, span)[0, 0, 0]
        cycles.append(
            int(
                closed_forms.output_stationary(
                    folds[0], pixels.size, folds[2], folds[3], hw.array.rows, hw.array.fold_overlap
                )
            )
        )
    width = widths[int(np.argmin(cycles))]
    return kernels.packed_rows(bits, dy, x, where, pixels, sums, tally, span, hw.array.rows, width)


def _reduction_spatial(bits, dy, x, where, pixels, sums, tally, span, arrays):
    """With the grouping that the dataflow charges: the fewest cycles, the largest groups of equals."""
    cells = reduction_grids(bits, *_one_tile(where), np.array([pixels.size]), arrays, span)
    chosen = arrays[int(np.argmin(cells[:, 0, 0, 0, 0]))]
    return kernels.reduced(bits, dy, x, where, pixels, sums, tally, span, chosen.group, chosen.registers)


def _reduction_window(problem: Problem, hw: Hardware, setup) -> Schedule:
    lines = tap_lines(problem)
    steps = np.tile(np.arange(problem.window[1]) * problem.dilation[1] // problem.stride[1], problem.window[0])
    array = setup["array_of"](hw, hw.precision.gradient_bits, hw.precision.activation_bits)
    return partial(
        kernels.windowed, taps=problem.taps, lines=lines, halo=setup["halo"](lines), steps=steps,
        image_row=problem.q, array=array,
    )  # fmt: skip
