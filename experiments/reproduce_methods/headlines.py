"""Headlines whose conditions are not public, beside simulations on conditions that are stated."""

from __future__ import annotations

from collections.abc import Iterator

from npusim import catalogue, method, npu, rewrite, trace
from npusim.method_runs import PlanRun, compare_methods, simulate_plan, times_of
from npusim.methods import _column_masks, fractrain
from npusim.trace.reshape import reshape

MACHINE, CROSSBARS = "edge-16x16", "reram-128x128"


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
        made = method.apply(name, graph, times, self.machine, **parameters)
        return simulate_plan(made, self.machine, dataflow, text)

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
        ("CPG", "width up to 1.5x, an order of magnitude more training (NeurIPS 2019)", "resnet18",
         "cpg:free=0.5:passes=10:width=1.5"),
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

    yield from _blocks()
    yield from _columns()


def _blocks() -> Iterator[dict[str, str]]:
    """Training-time blocks squeezed (OREPA) and not (DBB), at a batch where pixels outnumber weights."""
    batch = 64
    graph = reshape(trace.read(catalogue.find("workloads", "resnet18")), batch=batch)
    names = {"OREPA": "orepa", "DBB": "orepa:space=activation"}
    found = compare_methods(graph, npu.load(MACHINE), list(names.values()))
    base = found.runs[0]
    published = {"OREPA": "memory 4.2 -> 5.2 GB (1.24x), time .086 -> .120 s (1.40x) per batch (CVPR 2022)",
                 "DBB": "memory 4.2 -> 7.5 GB (1.79x), time .086 -> .241 s (2.80x) per batch (CVPR 2022)"}  # fmt: skip
    for (name, text), run in zip(names.items(), found.runs[1:], strict=True):
        memory, time = run.memory.peak_bytes / base.memory.peak_bytes, run.step["cycles"] / base.step["cycles"]
        yield {
            "method": name, "headline": published[name],
            "conditions": f"`{text}`, resnet18, batch {batch}, {MACHINE}, dense-os",
            "npusim": f"peak memory {memory:.2f}x, time {time:.2f}x",
        }  # fmt: skip


def _columns() -> Iterator[dict[str, str]]:
    """Column masks on crossbars; experiments/crossbar_tasks has the energy of tasks."""
    graph, machine = trace.read(catalogue.find("workloads", "resnet18")), npu.load(CROSSBARS)
    layers = rewrite.layers(graph)[:-1]
    lies = {op.param: _column_masks.placed(graph, op, machine, "xbm") for op in layers}
    share = _column_masks.mask_values(layers, lies) / sum(graph.tensors[op.param].elements for op in layers)
    conditions = f"resnet18, {CROSSBARS}; energy of tasks: `experiments/crossbar_tasks/results.md`"
    yield {"method": "XBM", "headline": "1.4 % of Piggyback's mask memory (ASP-DAC 2022)",
           "conditions": f"1 bit per column, {conditions}", "npusim": f"{100 * share:.2f} %"}  # fmt: skip
    yield {"method": "XMA", "headline": "96.6 % of Piggyback's mask memory saved (DAC 2022)",
           "conditions": f"4 bits per column, {conditions}", "npusim": f"{100 * (1 - 4 * share):.1f} %"}  # fmt: skip


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
