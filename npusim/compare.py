"""Several dataflows on the same step and machine, held against the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npusim.simulation import Run, simulate

if TYPE_CHECKING:
    import pandas as pd

    from npusim.graph import StepGraph
    from npusim.npu import Hardware


@dataclass(frozen=True)
class Comparison:
    """Runs of one step on one machine; `runs[0]` is the baseline."""

    runs: tuple[Run, ...]

    @property
    def baseline(self) -> Run:
        return self.runs[0]

    def table(self) -> pd.DataFrame:
        """One row per dataflow and phase (and 'step'), indexed by both.

        cycles; utilisation (wanted MACs / PE slots); stall_share (array or vector unit waits for operands, ports or
        stores, and final drains, of cycles); dram_bytes; energy_pj in all and `<component>_pj`; macs_done; speedup and
        energy_gain are baseline / this dataflow.
        """
        import pandas as pd

        base = self.baseline.phases()
        return pd.concat(
            {run.dataflow: _summary(run.phases(), base, run.energy.components) for run in self.runs},
            names=["dataflow", "phase"],
        )


def _summary(sums: pd.DataFrame, base: pd.DataFrame, components: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    waiting = sums.port_stall_cycles + sums.load_stall_cycles + sums.store_stall_cycles + sums.drain_cycles
    cycles = sums.cycles.clip(lower=1)
    return pd.DataFrame(
        {
            "cycles": sums.cycles,
            "utilisation": sums.utilisation,
            "stall_share": waiting / cycles,
            "macs_done": sums.macs_done,
            "dram_bytes": sums.dram_read_bytes + sums.dram_write_bytes,
            "energy_pj": sums.energy_pj,
            "speedup": base.cycles / cycles,
            "energy_gain": base.energy_pj / sums.energy_pj,
            **{f"{name}_pj": sums[f"{name}_pj"] for name in components},
        }
    )


def compare(graph: StepGraph, hardware: Hardware, dataflows: Sequence[str], **options) -> Comparison:
    """Simulate `graph` with each of `dataflows` (the first is the baseline); `options` as for `simulate`."""
    return Comparison(tuple(simulate(graph, hardware, name, **options) for name in dataflows))
