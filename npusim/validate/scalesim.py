"""Single layers against SCALE-Sim (`validation/scalesim/`): compute cycles and SRAM accesses of every row, and with
unlimited bandwidth (mode CALC) also DRAM words and the cycles from the first prefetched word to the last result.

Stalls and DRAM words of the limited mode (USER) are not reproduced.
"""

from __future__ import annotations

from pathlib import Path

from npusim.scalesim import dram, model, topology
from npusim.scalesim.config import DATAFLOWS, MAX_ARRAY, MAX_KB, Config
from npusim.validate.result import EQUAL, Cells, Row, Validation, read

SHAPE = ("ifmap_h", "ifmap_w", "filt_h", "filt_w", "channels", "num_filters", "stride")
SRAM = ("sram_ifmap_reads", "sram_filter_reads", "sram_ofmap_writes")
DRAM = ("dram_ifmap_reads", "dram_filter_reads", "dram_ofmap_writes", "total_cycles_incl_prefetch")
BUFFERS = ("sram_ifmap_kb", "sram_filter_kb", "sram_ofmap_kb")
COLUMNS = ("case_id", "kind", *SHAPE, "M", "K", "N", "array_rows", "array_cols", "dataflow", "compute_cycles", *SRAM)
NOT_MODELLED = ("stalls and DRAM words of limited bandwidth (mode USER); sparsity; custom layouts; Ramulator traces",)


def validate(path: str | Path, configs: Path | None = None) -> Validation:
    """Every row of a file with COLUMNS; DRAM words where it has BUFFERS, `mode` CALC and DRAM too."""
    rows = [_row(cells) for cells in read(path, COLUMNS)]
    return Validation("scalesim", rows, {row.group: EQUAL for row in rows}, NOT_MODELLED)


def _row(cells: Cells) -> Row:
    dataflow = cells.choice("dataflow", DATAFLOWS)
    rows, cols = (min(MAX_ARRAY, cells.integer(name, 1)) for name in ("array_rows", "array_cols"))
    layer = _layer(cells)
    counts = model.counts(dataflow, layer.m, layer.k, layer.n, rows, cols)
    simulated = (counts.ifmap_reads, counts.filter_reads, counts.ofmap_writes)
    others: dict[str, tuple[float, float]] = {
        name: (cells.integer(name), value) for name, value in zip(SRAM, simulated, strict=True)
    }
    if cells.text("mode") == "CALC" and all(map(cells.text, (*BUFFERS, *DRAM))):
        ifmap, filters, ofmap = (min(MAX_KB, cells.integer(name, 1)) for name in BUFFERS)
        traffic = dram.traffic(layer, Config("", rows, cols, ifmap, filters, ofmap, dataflow, limited=False))
        if traffic is not None:
            words = (*(port.words for port in traffic), traffic.cycles)
            others |= {name: (cells.integer(name), value) for name, value in zip(DRAM, words, strict=True)}
    group = f"{cells.text('kind')} {dataflow}"
    case = f"{cells.text('case_id')} {cells.text('tool')} {cells.text('mode')}".strip()
    return Row(cells.line, group, case, cells.integer("compute_cycles"), counts.cycles, "", others)


def _layer(cells: Cells) -> topology.Layer:
    """From the shape of a convolution, so that SCALE-Sim's rule for its outputs is part of what is compared."""
    if cells.choice("kind", ("conv", "gemm")) == "gemm":
        m, k, n = (cells.integer(name, 1) for name in "MKN")
        layer = topology.gemm("", m, k, n)
    else:
        height, width, filter_h, filter_w, channels, filters, stride = (cells.integer(name, 1) for name in SHAPE)
        layer = topology.Layer("", height, width, filter_h, filter_w, channels, filters, stride, stride)
        if filter_h > height or filter_w > width:
            cells.problem(f"filter {filter_h}x{filter_w} is larger than its input {height}x{width}")
            return topology.gemm("", 1, 1, 1)
    if layer.macs > topology.MAX_MACS:
        cells.problem(f"{layer.macs} MACs; at most {topology.MAX_MACS} can be counted")
        return topology.gemm("", 1, 1, 1)
    return layer
