"""What is recorded of every point: one number per column, in this order.

`time_s` is that of the simulated step. `<phase>_...` are sums over the operations of one phase, `<component>_pj` over
the whole step. Smaller is better for every metric but those of LARGER_IS_BETTER.
"""

from __future__ import annotations

from types import MappingProxyType

from npusim.energy.account import COMPONENTS

# As npusim.graph.PHASES, without importing it.
PHASES = ("forward", "grad_input", "grad_weight", "update", "aux")
LARGER_IS_BETTER = ("utilisation", "macs_skipped")
METRICS = MappingProxyType(
    {
        "cycles": int, "time_s": float, "energy_pj": float, "edp_pj_s": float, "area_mm2": float, "utilisation": float,
        "dram_bytes": int, "sram_bytes": int, "pes": int, "macs_dense": int, "macs_done": int, "macs_gated": int,
        "macs_skipped": int, "busy_cycles": int, "port_stall_cycles": int, "load_stall_cycles": int,
        "store_stall_cycles": int, "drain_cycles": int,
        **{f"{phase}_cycles": int for phase in PHASES},
        **{f"{phase}_energy_pj": float for phase in PHASES},
        **{f"{phase}_dram_bytes": int for phase in PHASES},
        **{f"{component}_pj": float for component in COMPONENTS},
    }
)  # fmt: skip


def sign(metric: str) -> int:
    """1 for a metric to be kept small, -1 for one to be made large."""
    return -1 if metric in LARGER_IS_BETTER else 1
