"""The forward layers that both simulators get, as SCALE-Sim's topology and configuration files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from npusim import catalogue
from npusim.graph import Conv
from npusim.trace import read

NETWORKS = ("resnet18", "resnet50")
ROWS = COLS = 32
SHAPE = ("ifmap_h", "ifmap_w", "filter_h", "filter_w", "channels", "filters", "stride")


def shape_of(d: Conv) -> tuple[int, ...]:
    """SHAPE of a convolution.

    SCALE-Sim pads nothing and rounds output sizes up, so an input is given the size for which its rule makes the
    layer's own output: (P - 1) * stride + R.
    """
    step = d.stride[0]
    return (d.p - 1) * step + d.r, (d.q - 1) * step + d.s, d.r, d.s, d.c, d.k, step


def layers(network: str) -> Iterator[dict]:
    """One row per different shape: network, name of the first such layer, how often it occurs, and SHAPE."""
    found: dict[tuple, dict] = {}
    for op in read(catalogue.find("workloads", network)).ops:
        if op.phase != "forward" or not isinstance(op.dims, Conv):
            continue
        shape = shape_of(op.dims)
        row = found.setdefault(
            shape, {"network": network, "layer": op.name, "times": 0, **dict(zip(SHAPE, shape, strict=True))}
        )
        row["times"] += 1
    yield from found.values()


def topology_text(rows: Iterable[dict]) -> str:
    header = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
    return header + "".join(f"{row['layer']}, " + ", ".join(str(row[key]) for key in SHAPE) + ",\n" for row in rows)


def configuration() -> str:
    """A 32x32 output-stationary array with 64 KiB buffers (SCALE-Sim's scale.cfg) and unlimited bandwidth."""
    return f"""[general]
run_name = peers

[architecture_presets]
ArrayHeight: {ROWS}
ArrayWidth: {COLS}
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 10
Dataflow: os
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32

[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2

[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40

[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""
