"""Headlines whose conditions are not public, beside simulations on conditions that are stated."""

from __future__ import annotations

from collections.abc import Iterator

from npusim import catalogue, method, npu, trace
from npusim.method_runs import PlanRun, simulate_plan, times_of
from npusim.methods import fractrain

MACHINE = "edge-16x16"


class _Bench:
    """Dense runs of networks, made once."""

    def __init__(self) -> None:
        self.machine = npu.load(MACHINE)
        self.dense: dict[str, PlanRun] = {}

    def base(self, net: str) -> PlanRun:
        if net not in self.dense:
            self.dense[net] = self.run(net, "dense")
        return self.dense[net]

    def run(self, net: str, text: str, dataflow: str = "dense-os") -> PlanRun:
        graph = trace.read(catalogue.find("workloads", net))
        name, parameters = method.parse(text)
        times = times_of(self.dense[net].runs[0]) if net in self.dense else None
        return simulate_plan(method.apply(name, graph, times, **parameters), self.machine, dataflow, text)

    def ratios(self, net: str, text: str) -> str:
        base = self.base(net)
        row = self.run(net, text).row(base)
        memory = row["training_bytes"] / base.memory.training_bytes
        return f"speed {row['speedup']:.2f}x, energy {row['energy_gain']:.2f}x, training memory {memory:.3f} of dense"


def headlines() -> Iterator[dict[str, str]]:
    """method, headline, conditions and result of each."""
    bench = _Bench()
    yield _swu(bench)
    simple = (
        ("ElasticTrainer", "up to 3.5x wall-clock, 2-3x energy (MobiSys 2023)", "resnet18", "elastic-trainer:rho=0.5"),
        ("DA3", "5-37x less memory, 2x less time (arXiv 2012.01362)", "resnet18", "da3"),
        ("EIF + EMP", "68 / 75 / 96 % of computation saved (arXiv 2007.03213)", "resnet18", "instance-filtering"),
        ("gradient filtering", "up to 19x speed, 77.1 % memory saved (arXiv 2301.00330)", "resnet18",
         "gradient-filtering:r=2:layers=4"),
        ("dynamic sparse update", "98 % less feature memory, 2 % of conv weights (arXiv 2503.17959)", "mobilenetv2",
         "dynamic-sparse:layers=12:share=0.1"),
        ("MuPPET", "1.58x mean, 1.84x best (arXiv 2006.09049)", "resnet18", "muppet"),
        ("OREPA", "4.2 -> 5.2 GB, .086 -> .120 s (CVPR 2022)", "resnet18", "orepa"),
        ("MCUNetV3", "3650 KB full -> 173 KB sparse, reordered (NeurIPS 2022)", "mcunet-5fps", "mcunetv3:scheme=100KB"),
    )  # fmt: skip
    for name, headline, net, text in simple:
        yield {
            "method": name, "headline": headline, "conditions": f"`{text}`, {net}, batch 1, {MACHINE}, dense-os",
            "npusim": bench.ratios(net, text),
        }  # fmt: skip
    yield {
        "method": "FracTrain", "headline": "1.18e14 -> 3.97e13 weighted MACs (arXiv 2012.13113)",
        "conditions": "the cost rule alone, F = E = G; its schedule of widths is not public here",
        "npusim": f"share {3.97e13 / 1.18e14:.3f}; equal widths that give it: "
        f"{_equal_width(3.97e13 / 1.18e14):.1f} bits of 32",
    }  # fmt: skip


def _equal_width(share: float) -> float:
    """Bits b with weighted MACs of a = w = g = b equal to `share` of those at 32 bits."""
    assert fractrain.weighted_macs(1, 1, 1, 32, 32, 32) == 3
    return 32 * share**0.5


def _swu(bench: _Bench) -> dict[str, str]:
    base = bench.run("resnet18", "piggyback")
    run = bench.run("resnet18", "swu", "reduction-window")
    wgc = [r.phases.loc["grad_weight"] for r in (base, run)]
    step = run.row(base)
    return {
        "method": "SWU", "headline": "2.9x speed, 2.5x energy efficiency of WGC alone (DAC 2020)",
        "conditions": f"`swu` (density 0.345, random elements), resnet18, batch 1, {MACHINE}, reduction-window; "
        "against piggyback on dense-os",
        "npusim": f"WGC speed {wgc[0].cycles / wgc[1].cycles:.2f}x, energy {wgc[0].energy_pj / wgc[1].energy_pj:.2f}x; "
        f"step speed {step['speedup']:.2f}x, energy {step['energy_gain']:.2f}x",
    }  # fmt: skip
