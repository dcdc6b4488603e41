"""The report of a comparison: one HTML file that needs nothing else.

Whatever comes from outside (names of steps, operations, dataflows, sources) is cleaned and escaped; the page's
policy allows no network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from npusim import breakdown, plot, report, roofline, text
from npusim.html import frame

if TYPE_CHECKING:
    from npusim.comparison import Comparison
    from npusim.results import Result

ALTERNATIVE = {
    "speedup": "Bars per phase: speedup and energy gain, or of one run its cycles over the lower bounds; the numbers "
    "are in the table of phases.",
    "energy": "Stacked bars: energy by component; the numbers are in the table of energy.",
    "roofline": "Points: operations per cycle against operations per byte of DRAM, under the limits of the machine.",
    "memory": "Stacked areas: bytes alive in every operation of the step, by group.",
    "cycles": "Stacked bars: where the cycles go; the numbers are in the table of stalls.",
}
CYCLES_EXPLAINED = (
    "Busy: the array or the vector unit works. Port stall: the array is slowed by a buffer port. Load stall: it waits "
    "for operands from DRAM. Store stall: it waits for results to leave. Drain: nothing is left to compute, the last "
    "results leave. They sum to the cycles.",
)
ROOFLINE_EXPLAINED = (
    "Every operation: how much it does per cycle, waiting included, against how much it does per byte of DRAM. The "
    "slope is the DRAM's bandwidth, the level the MACs of the array (dots) or the lanes of the vector unit (crosses). "
    "Below the slope an operation waits for more than bandwidth; far below the level it leaves the array idle. Point "
    "at one to see its name; the numbers are in the table of layers.",
)
# Lower bounds of `npusim.bounds` in one word or two.
LIMITS = {
    "compute": "MACs", "vector": "vector", "dram": "DRAM", "a_port": "port a", "b_port": "port b",
    "mask_port": "port mask", "critical_path": "chain",
}  # fmt: skip
# Of more operations than this, the longest of every run are listed: a browser takes seconds to sort more rows.
MOST_ROWS = 2500
LAYERS_EXPLAINED = (
    "Limit: the largest lower bound of the operation, be it the MACs, the vector unit, the DRAM bus, a buffer's port "
    "or the longest chain of loads, tiles and stores that wait for each other. Stalled: every cycle in which "
    "neither the array nor the vector unit works, and those in which a port slows the array.",
)
UNITS_EXPLAINED = (
    "Each unit's time over the whole step. Wait load and wait store: its next task waits for operands, or for earlier "
    "results to leave. Wait bus: a DMA channel waits for the DRAM bus; latency: for the DRAM's answer. Idle: it has "
    "nothing to do.",
)


def report_page(comparison: Comparison, pictures: Mapping[str, str] | None = None) -> str:
    """The whole page, of one result or of several; `pictures` as `plot.svgs(plot.figures(comparison))`."""
    runs, run = comparison.runs, comparison.baseline
    pictures = pictures or plot.svgs(plot.figures(comparison))
    drawn = {name: _picture(name, svg) for name, svg in pictures.items()}
    drawn["roofline"] = _named_points(drawn["roofline"], runs)
    quiet = text.clean(run.label) if len(runs) > 1 else ""
    sections = {
        "Summary": _sentences(report.summary(comparison)),
        "Speed": drawn["speedup"] + _table(report.comparison_table(comparison), quiet),
        "Energy": drawn["energy"] + _table(report.energy_table(comparison), quiet),
        "Stalls": drawn["cycles"]
        + _sentences(CYCLES_EXPLAINED)
        + _table(report.stall_table(comparison), quiet)
        + _sentences(UNITS_EXPLAINED)
        + _table(report.unit_table(comparison), quiet),
        "Roofline": _sentences(ROOFLINE_EXPLAINED) + drawn["roofline"],
        "Memory": _sentences(_memory_explained(comparison)) + drawn["memory"] + _table(report.memory_table(run), ""),
        "Layers": _layers(comparison),
        "Energy sources": _energy_sources(run),
        "Not modelled": f"<ul>{_items(report.not_modelled(comparison))}</ul>",
        "Provenance": _provenance(comparison.manifest),
    }
    anchors = {name.lower().replace(" ", "-"): name for name in sections}
    body = (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{name}</h2>\n{sections[name]}\n</section>'
        for anchor, name in anchors.items()
    )
    names = ", ".join(run.label for run in runs)
    heading = text.clean(f"{run.facts.workload} on {run.hardware.name}: {names}")
    about = text.clean(f"{run.hardware}. {run.hardware.description}.")
    return frame.page(heading, about, anchors, "\n".join(body), ("style.css",), "script.js")


def _safe(value: object) -> str:
    return escape(text.clean(value))


def _items(values: Iterable[str]) -> str:
    return "".join(f"<li>{_safe(value)}</li>" for value in values)


def _sentences(lines: Sequence[str]) -> str:
    return "".join(f"<p>{_safe(line)}</p>" for line in lines)


def _picture(name: str, svg: str) -> str:
    """An SVG for inline use: ids of its own, no background, the page's colours for text and lines."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for old, new in (('id="', f'id="{name}-'), ("url(#", f"url(#{name}-"), ('href="#', f'href="#{name}-')):
        svg = svg.replace(old, new)
    svg = re.sub(r"(\d\.\d{2})\d+", r"\1", svg)
    svg = re.sub(r' d="(M [^"C]{2000,})"', _shorter, svg)
    svg = svg.replace(plot.PAPER, "none").replace(plot.INK, "var(--ink)").replace(plot.FAINT, "var(--faint)")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(ALTERNATIVE[name])}" ', 1)
    return f"<figure>{svg}</figure>"


def _shorter(path: re.Match[str]) -> str:
    """A long path of lines with coordinates to a tenth of a point, without points on the line between their neighbours
    (steps of equal height are most of a timeline)."""
    head, points = path[1][:2], re.findall(r"[-\d.]+ [-\d.]+", path[1])
    pairs = [tuple(f"{float(part):.1f}" for part in point.split()) for point in points]
    pairs = [pair for i, pair in enumerate(pairs) if not i or pair != pairs[i - 1]]
    kept = [
        pair for before, pair, after in zip([("", ""), *pairs], pairs, [*pairs[1:], ("", "")], strict=False)
        if not before[1] == pair[1] == after[1] and not before[0] == pair[0] == after[0]
    ]  # fmt: skip
    closed = " z" if "z" in path[1] else ""
    return f' d="{head}' + "\n".join(" ".join(pair) for pair in kept) + f'{closed}"'


def _named_points(svg: str, runs: Sequence[Result]) -> str:
    """The roofline with the name of its operation at every point, which browsers show and read out."""

    def named(group: re.Match[str]) -> str:
        _, number, phase, vector = group[1].removeprefix("roofline-").split("-")
        names = iter(roofline.names(runs[int(number)], phase, vector == "vector"))
        styles = set(re.findall(r'<use [^>]* style="([^"]*)"/>', group[0]))
        # All points of a series look alike: their style is said once, on the group.
        common = f' style="{styles.pop()}"' if len(styles) == 1 else ""

        def point(use: re.Match[str]) -> str:
            own = "" if common else f' style="{use[4]}"'
            at = f'x="{float(use[2]):.1f}" y="{float(use[3]):.1f}"'
            title = _safe(f"{next(names)} {phase}")
            return f'<use href="{use[1]}" {at}{own}><title>{title}</title></use>'

        shown = re.sub(r'\s*<use xlink:href="([^"]*)" x="([^"]*)" y="([^"]*)" style="([^"]*)"/>', point, group[0])
        return shown.replace("<g ", f"<g{common} ", 1)

    marks = dict.fromkeys(re.findall(r'id="(roofline-m[0-9a-f]{10})"', svg))
    for i, mark in enumerate(marks):
        svg = svg.replace(mark, f"r{i}")
    return re.sub(r'<g id="(roofline-points-[^"]*)">.*?</g>\s*</g>', named, svg, flags=re.DOTALL)


def _memory_explained(comparison: Comparison) -> tuple[str, ...]:
    whose = f" with {text.clean(comparison.baseline.label)}" if len(comparison.runs) > 1 else ""
    return (
        f"Bytes of the tensors alive in every operation of the step{whose}; the lines are where forward ends and where "
        "the first update runs. Tiles in on-chip buffers and fragmentation are not counted.",
    )


def _table(table: report.Table, baseline: str) -> str:
    """A sortable table; rows of the baseline are quieter."""
    quiet = [bool(baseline) and table.words == 2 and baseline in row[:2] for row in table.rows]
    rows = "".join(_row(row, " class=baseline" if q else "") for row, q in zip(table.rows, quiet, strict=True))
    return _grid(table.title, table.title, table.header, rows, table.words)


def _grid(label: str, caption: str, header: Sequence[str], rows: str, words: int, name: str = "") -> str:
    """A sortable table in a box that scrolls; the first `words` columns are text."""
    head = "".join(f"<th scope=col>{_safe(name)}" for name in header)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_safe(label)}">'
        f'<table class="sortable words-{words}" data-words="{words}"{name and f" id={name}"}>'
        f"<caption>{_safe(caption)}</caption><thead><tr>{head}</thead><tbody>{rows}</tbody></table></div>"
    )


def _row(cells: Iterable[str], attributes: str = "") -> str:
    """HTML lets the end tags of rows and cells be left out; a large step has thousands."""
    return f"<tr{attributes}>" + "".join(f"<td>{_safe(cell)}" for cell in cells) + "\n"


LAYER_HEADER = ("run", "operation", "phase", "kind", "shape", "mapped by", "limit", "density", "cycles", "utilisation",
                "stalled", "DRAM", "energy")  # fmt: skip


def _layers(comparison: Comparison) -> str:
    """The table of operations; of one run alone without the column that names it."""
    several = len(comparison.runs) > 1
    names = [text.clean(run.label) for run in comparison.runs]
    rows = []
    cut = MOST_ROWS // len(names) if sum(len(run.layers) for run in comparison.runs) > MOST_ROWS else None
    covered = 1.0
    for name, run in zip(names, comparison.runs, strict=True):
        longest = run.layers.cycles.nlargest(cut or len(run.layers), keep="first")
        covered = min(covered, longest.sum() / max(1, run.layers.cycles.sum()))
        listed = report.layer_table(run).rows
        for at in sorted(longest.index):
            limit = str(run.layers.bound[at])
            shown = (*listed[at][:5], LIMITS.get(limit, limit), *listed[at][5:])
            rows.append(_row((name, *shown) if several else shown))
    header = LAYER_HEADER if several else LAYER_HEADER[1:]
    phases = [phase for phase in breakdown.phases_of(comparison) if phase != breakdown.STEP]
    caption = "One row per operation" + (" and run" if several else "") + "; in the order of the step until sorted"
    if cut is not None:
        caption += (
            f". Only the {cut} longest operations of each run: {text.percent(covered)} of its cycles or more; "
            "layers.csv has all"
        )
    return (
        _sentences(LAYERS_EXPLAINED)
        + '<div class="controls" id="controls" hidden>'
        + '<label>Find words <input id="filter-words" type="search" placeholder="conv1 3x3" autocomplete="off"></label>'
        + (_select("Run", 0, names) if several else "")
        + _select("Phase", header.index("phase"), phases)
        + '<span class="quiet" id="filter-count" role="status"></span></div>'
        + _grid("Layers", caption, header, "".join(rows), words=header.index("density"), name="layer-table")
    )


def _select(label: str, column: int, values: Sequence[str]) -> str:
    options = "".join(f"<option>{_safe(value)}</option>" for value in values)
    return f'<label>{label} <select data-column="{column}"><option value="">all</option>{options}</select></label>'


def _energy_sources(run: Result) -> str:
    prices = run.facts.prices
    step = breakdown.phase_row(run, breakdown.STEP)
    spent = {name: step[f"{name}_pj"] for name in run.components}
    total = run.energy_pj or 1.0
    source, trust = prices.sources, prices.confidence
    rows = "".join(
        _row((name, source.get(name, "unknown"), trust.get(name, "unknown"), text.percent(pj / total)))
        for name, pj in spent.items()
    )
    notes = f"<p>Notes:</p><ul>{_items(prices.notes)}</ul>" if prices.notes else ""
    header = ("component", "source", "confidence", "share")
    caption = f"Source, confidence and share of the energy of the whole step with {run.label}"
    return (
        f"<p>Energy table {_safe(prices.table)}, {prices.node_nm} nm; leakage {prices.leakage_mw:.3g} mW in all. "
        "Energy is counted work times these prices: an estimate, no better than its sources.</p>"
        + _grid("Energy sources", caption, header, rows, words=3, name="source-table")
        + notes
    )


def _provenance(manifest: dict[str, Any]) -> str:
    lines = [
        f"Command: {' '.join(manifest['command'])}",
        f"Date: {manifest['date']}",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
        f"Workload digest: {manifest['workload']['digest']}",
        f"Hardware digest: {manifest['hardware']['digest']}",
        f"Code digest: {manifest['code_sha256']}",
    ]
    first, *others = manifest["runs"]
    runs = [first, *({"label": other["label"], **_differing(other, first)} for other in others)]
    full = escape(json.dumps({**manifest, "runs": runs}, indent=1, ensure_ascii=True, default=str))
    summary = "Full parameters (JSON" + ("; of later runs what differs from the first)" if others else ")")
    items = "".join(f"<li><code>{_safe(line)}</code></li>" for line in lines)
    return f"<ul>{items}</ul><details><summary>{summary}</summary><pre tabindex=0>{full}</pre></details>"


def _differing(value: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """What of `value` is not the same in `base`, table by table."""
    found: dict[str, Any] = {}
    for key, mine in value.items():
        theirs = base.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found |= {key: inner} if (inner := _differing(mine, theirs)) else {}
        elif mine != theirs:
            found[key] = mine
    return found
