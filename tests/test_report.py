"""Tables, sentences, CSV and the HTML page of a comparison, all from one small step."""

import csv
import io
import itertools
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib import image
from steps import HOSTILE, small_step

from npusim import api, breakdown, memory, report, roofline
from npusim.comparison import Comparison
from npusim.html import frame, page


@pytest.fixture(scope="module")
def comparison():
    return api.compare(small_step(), dataflows=["dense-os", "selective-row", "reduction-spatial"])


def hostile(result):
    """A result with hostile names of step, machine, dataflow and operations."""
    machine = result.hardware.replace({"name": HOSTILE, "description": HOSTILE})
    changes = {"workload": HOSTILE, "hardware": machine, "dataflow": HOSTILE, "method": HOSTILE}
    record = {**result.manifest, "command": ["npusim", HOSTILE], HOSTILE: HOSTILE}
    return replace(
        result, label=result.label + HOSTILE, facts=result.facts.model_copy(update=changes),
        layers=result.layers.assign(name=HOSTILE), memory=result.memory.assign(name=HOSTILE), manifest=record,
    )  # fmt: skip


def html_of(comparison):
    return page.report_page(comparison)


@pytest.fixture(scope="module")
def html(comparison):
    return html_of(comparison)


class Page(HTMLParser):
    """Ids, attributes and elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.elements, self.attributes, self.headings = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        self.ids += [value for key, value in attrs if key == "id"]


def test_parts_of_the_cycles_sum_to_them(comparison):
    for run in comparison.runs:
        for row in breakdown.rows_of(run.layers):
            assert sum(breakdown.cycle_parts(row).values()) == row["cycles"]


def test_groups_of_the_energy_sum_to_it(comparison):
    for run in comparison.runs:
        for row in breakdown.phase_sums(run).values():
            assert sum(breakdown.energy_groups(row).values()) == pytest.approx(row["energy_pj"])


def test_shares_of_a_units_time_sum_to_all_of_it(comparison):
    for row in report.unit_table(comparison).rows:
        assert sum(float(share.removesuffix(" %")) for share in row[2:]) == pytest.approx(100, abs=0.3)


def test_an_energy_component_without_group_is_not_lost():
    assert breakdown.energy_groups({"mac_pj": 1.0, "noc_pj": 2.0, "energy_pj": 3.0}) == {"MAC": 1.0, "noc": 2.0}


def test_tables_have_a_cell_for_every_column(comparison):
    run = comparison.baseline
    tables = [report.layer_table(run), report.phase_table(run), report.comparison_table(comparison)]
    tables += [report.energy_table(comparison), report.stall_table(comparison), report.unit_table(comparison)]
    for table in tables:
        assert table.rows and all(len(row) == len(table.header) for row in table.rows)
        assert set(table.spare) <= set(table.header[1:])
    assert [row[:2] for row in report.comparison_table(comparison).rows[6:9]] == [
        ("grad_weight (WGC)", "dense-os"),
        ("grad_weight (WGC)", "selective-row"),
        ("grad_weight (WGC)", "reduction-spatial"),
    ]


def test_summary_says_what_the_table_says(comparison):
    cells = breakdown.comparison_cells(comparison)
    lines = report.summary(comparison)
    step, wgc = cells["dense-os", "step"]["cycles"], cells["dense-os", "grad_weight"]["cycles"]
    assert f"With dense-os the step takes {step:,} cycles" in lines[2]
    assert f"(WGC) is {100 * wgc / step:.1f} % of those cycles" in lines[3]
    assert f"the step would be {1 / (1 - wgc / step):.2f}x faster" in lines[3]
    assert lines[5].startswith("reduction-spatial: WGC ")


@pytest.mark.parametrize("ratio, words", [(1.25, "1.25x faster"), (0.5, "2.00x slower"), (1.001, "as fast")])
def test_ratios_in_words(ratio, words):
    assert report._against(ratio, "faster", "slower") == words


def test_a_step_without_weight_gradients_compares_as_a_whole():
    forward = small_step(density=None)
    forward = replace(forward, ops=forward.phase("forward"))
    both = api.compare(forward, dataflows=["dense-os", "dense-ws"])
    assert breakdown.wgc_and_step(both) == ["step"]
    assert not any("WGC" in line for line in report.summary(both))
    assert "Speedup and energy gain against dense-os" in html_of(both)


def test_csv_is_exact_and_no_formula(comparison):
    run = comparison.baseline
    rows = list(csv.DictReader(io.StringIO(report.csv_text(run.layers.assign(name="=cmd()\x1b")))))
    assert {row["name"] for row in rows} == {"'=cmd()\\x1b"}
    assert [int(row["cycles"]) for row in rows] == run.layers.cycles.tolist()
    assert [float(row["energy_pj"]) for row in rows] == run.layers.energy_pj.tolist()


def test_page_has_every_section_and_needs_nothing_else(html):
    found = Page(html)
    for name in (
        "summary",
        "speed",
        "energy",
        "stalls",
        "roofline",
        "memory",
        "layers",
        "energy-sources",
        "not-modelled",
        "provenance",
    ):
        assert name in found.ids and f'href="#{name}"' in html
    assert found.elements.count("svg") == 5
    assert len(found.ids) == len(set(found.ids))
    assert not {"link", "img", "iframe", "object", "base"} & set(found.elements)
    outside = [(key, value) for key, value in found.attributes if key in ("src", "href") and not value.startswith("#")]
    assert outside == []
    assert "default-src 'none'" in html
    assert len(html.encode()) < 1_000_000


def test_page_says_how_energy_and_cycles_were_found(html, comparison):
    assert "Energy table generic-28nm, 28 nm" in html
    assert "Horowitz" in html and "<td>low" in html
    assert all(escape(line) in html for line in report.not_modelled(comparison))
    assert "Command: npusim.compare small" in html and "Workload digest: " in html


def test_hostile_names_are_text_on_the_page(comparison):
    html = html_of(Comparison(tuple(map(hostile, comparison.runs))))
    body = html.replace(frame.part("script.js"), "")
    assert "<script>alert" not in html and body.count("<script>") == 1
    assert "\x1b" not in html and "\u202e" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m" in html
    assert len(Page(html).ids) == len(set(Page(html).ids))


def test_one_dataflow_alone_makes_a_page():
    html = html_of(api.simulate(small_step(), "mcu-8x8").compare())
    assert "<h1>small on mcu-8x8: dense-os</h1>" in html


def test_a_page_of_one_run_has_no_column_for_it(comparison):
    alone = comparison.baseline.compare()
    html = html_of(alone)
    found = Page(html)
    assert [value for key, value in found.attributes if key == "data-column"] == ["1"]
    assert "<th scope=col>run" not in html and "<th scope=col>run" in html_of(comparison)
    assert set(found.ids) >= {"speed", "energy", "stalls", "roofline", "memory", "layers", "provenance"}
    for table in (report.energy_table(alone), report.stall_table(alone), report.unit_table(alone)):
        assert table.words == 1 and "run" not in table.header
        assert all(len(row) == len(table.header) for row in table.rows)


def test_one_run_in_words(comparison):
    run = comparison.baseline
    step, lines = run.phases.loc["step"], report.run_sentences(run)
    busy = (step.array_cycles + step.vector_cycles - step.port_stall_cycles) / step.cycles
    assert f"works in {100 * busy:.1f} % of the cycles" in lines[0]
    assert f"sum to {step.bound_cycles:,.0f} cycles" in lines[1]
    shares = [float(share) for share in re.findall(r"([\d.]+) % is ", lines[2])]
    assert sum(shares) == pytest.approx(100, abs=0.3) and shares == sorted(shares, reverse=True)
    assert f"{run.layers.name[run.layers.cycles.idxmax()]} " in lines[3]
    assert lines[4].startswith("The tensors of the step take 55.7 KiB at most: ")


def test_empty_columns_of_energy_are_left_out(comparison):
    table = report.energy_table(comparison)
    for column in range(2, len(table.header)):
        assert any(row[column] != "0 pJ" for row in table.rows)


def test_every_point_of_the_roofline_has_a_name(comparison):
    html = html_of(comparison)
    for run in comparison.runs:
        found = roofline.points(run)
        assert (found.rate <= run.hardware.peak_macs_per_cycle).all()
        assert (found.rate <= 1.0001 * roofline.bytes_per_cycle(run.hardware) * found.intensity).all()
    marks = re.findall(r"<use [^>]*><title>([^<]*)</title></use>", html)
    named = [f"{row['name']} {row.phase}" for run in comparison.runs for _, row in roofline.points(run).iterrows()]
    assert sorted(marks) == sorted(named) and len(marks) == 3 * 19


def test_the_memory_table_is_the_timeline(comparison):
    run = comparison.baseline
    table = report.memory_table(run)
    assert table.rows[-1][:2] == ("all", "55.7 KiB")
    total = run.memory[list(memory.GROUPS)].sum(axis=1)
    assert run.peak_bytes == total.max()


def test_shorter_paths_are_the_same_line():
    """Corners stay, also where a point is there twice; points between neighbours of one height go."""
    corners = [(0, 0), (50, 0), (50, 9), (70, 9), (70, 20), (0, 20)]
    dense = []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        dense += [(x0 + (x1 - x0) * i / 40, y0 + (y1 - y0) * i / 40) for i in range(41)]
    text = "M " + " \nL ".join(f"{x:.2f} {y:.2f}" for x, y in dense) + " \nz \n"
    short = re.sub(r' d="(M [^"C]{2000,})"', page._shorter, f'<path d="{text}"/>')
    found = [tuple(float(v) for v in point.split()) for point in re.findall(r"[\d.]+ [\d.]+", short)]
    assert found == corners and short.endswith(' z"/>')


@pytest.mark.slow
def test_the_page_of_a_large_step_is_small():
    assert len(html_of(api.simulate("resnet50").compare()).encode()) < 1_000_000


PROBE = """<script>
const table = document.getElementById("layer-table"), words = document.getElementById("filter-words");
words.value = "conv2 grad_weight"; words.dispatchEvent(new Event("input"));
const found = document.getElementById("filter-count").textContent;
const button = Array.from(table.tHead.rows[0].cells).find((cell) => cell.textContent === "cycles").firstChild;
button.click();
const cycles = Array.from(table.tBodies[0].rows, (row) => Number(row.cells[8].textContent.replaceAll(",", "")));
const sorted = cycles.every((value, i) => i === 0 || cycles[i - 1] >= value);
const first = document.querySelector("a[href], button, input, select, [tabindex]");
document.title = `${found}; sorted ${sorted}; ${button.parentElement.getAttribute("aria-sort")}; first stop ` +
  `${first.className}; requests ${performance.getEntriesByType("resource").length}`;
</script></body>"""


def browse(page, folder, *options):
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
    return subprocess.run(
        [*command, f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_page_filters_and_sorts_in_a_browser(html, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(html.replace("</body>", PROBE), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", browse(path, tmp_path, "--dump-dom"))
    # conv2 has one grad_weight per run, and there are three runs of 19 operations.
    assert title is not None and title[1] == "3 of 57 rows; sorted true; descending; first stop skip; requests 0"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_looks_like_itself_in_both_themes(comparison, html, theme, tmp_path):
    """Screenshots of both reports; with NPUSIM_ARTEFACTS they are kept there."""
    kept = Path(os.environ.get("NPUSIM_ARTEFACTS", tmp_path))
    kept.mkdir(parents=True, exist_ok=True)
    for name, text in (("comparison", html), ("run", html_of(comparison.baseline.compare()))):
        path, picture = tmp_path / f"{name}.html", kept / f"report-{name}-{theme}.png"
        path.write_text(text, encoding="utf-8")
        dark = ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
        browse(path, tmp_path, *dark, "--hide-scrollbars", "--window-size=1200,4000", f"--screenshot={picture}")
        pixels = image.imread(picture)[..., :3]
        paper = (23, 23, 27) if theme == "dark" else (255, 255, 255)
        is_paper = abs(pixels - [value / 255 for value in paper]).max(axis=2) < 0.01
        assert pixels.shape[:2] == (4000, 1200) and 0.6 < is_paper.mean() < 0.99
        # Text and figures reach far down, and nothing is wider than the page.
        assert (~is_paper).any(axis=1)[:3500].mean() > 0.5 and is_paper[:, -10:].mean() > 0.97


def test_more_rows_than_a_browser_sorts_are_the_longest_ones(comparison, monkeypatch):
    monkeypatch.setattr(page, "MOST_ROWS", 12)
    text = html_of(comparison)
    table = re.search(r"<table[^>]*layer-table.*?</table>", text, re.DOTALL)[0]
    assert table.count("<tr>") == 12 + 1  # four of each run, and the header
    for run in comparison.runs:
        longest = run.layers.nlargest(4, "cycles", keep="first").sort_index()
        shown = [line for line in table.splitlines() if f"<tr><td>{run.label}<td>" in line]
        assert [f"<td>{escape(name)}<td>{phase}<td>" in line for name, phase, line in zip(
            longest.name, longest.phase, shown, strict=True)] == [True] * 4  # fmt: skip
    share = min(run.layers.cycles.nlargest(4).sum() / run.layers.cycles.sum() for run in comparison.runs)
    assert f"Only the 4 longest operations of each run: {100 * share:.1f} % of its cycles or more" in table


def test_parameters_of_later_runs_are_those_that_differ(comparison):
    wide = api.simulate(small_step(), comparison.baseline.hardware.replace({"array.rows": 32}))
    text = unescape(re.search(r"<pre tabindex=0>(.*?)</pre>", html_of(comparison.baseline.compare(wide)), re.DOTALL)[1])
    first, second = json.loads(text)["runs"]
    assert first["hardware"]["array"]["rows"] == 16 and "prices" in first
    assert second["hardware"] == {"array": {"rows": 32}}


@pytest.mark.slow
def test_a_report_of_every_method_stays_small(tmp_path):
    """A report that one sends by mail: less than 1 MB, whatever was compared."""
    methods = ["", "last-k:k=1", "bias-only", "swu:density=0.1", "sparcl", "packnet", "piggyback", "da3"]
    many = api.compare("mbv2-w0.35", methods=methods)
    many.save(tmp_path)
    html = html_of(many)
    assert sum(len(run.layers) for run in many.runs) > page.MOST_ROWS
    assert len(html.encode()) < 10**6 and (tmp_path / "energy.csv").stat().st_size < 10**6
    assert html == html_of(api.read(tmp_path))
