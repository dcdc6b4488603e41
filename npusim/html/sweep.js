"use strict";
// Figures of a sweep, drawn from the numbers in the page: D.keys (what varies), D.metrics (what was measured).
const D = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#c0a800"];
const N = D.count;
const hidden = D.keys.map(() => new Set());
const $ = (id) => document.getElementById(id);
let kept = -1;

function el(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
function html(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function units(value, steps, names) {
  let i = 0;
  while (Math.abs(value) >= steps && i < names.length - 1) { value /= steps; i += 1; }
  return `${+value.toPrecision(3)} ${names[i]}`.trim();
}
function show(metric, value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  if (metric.endsWith("_pj")) return units(value, 1000, ["pJ", "nJ", "uJ", "mJ", "J"]);
  if (metric.endsWith("bytes")) return units(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
  if (metric === "time_s") return units(value * 1e9, 1000, ["ns", "us", "ms", "s"]);
  if (metric.endsWith("gain") || metric.endsWith("speedup")) return `${value.toFixed(2)}x`;
  if (metric === "utilisation") return `${(100 * value).toFixed(1)} %`;
  if (metric.endsWith("mm2")) return `${+value.toPrecision(4)} mm2`;
  return Number.isInteger(value) ? value.toLocaleString("en") : String(+value.toPrecision(4));
}
function short(metric, value) {
  if (metric.endsWith("cycles") || metric.startsWith("macs")) return units(value, 1000, ["", "k", "M", "G", "T"]);
  return show(metric, value);
}
const label = (metric) => D.labels[metric] ?? metric;
const valueOf = (metric, row) => D.metrics[metric][row];
const keyText = (key, row) => D.keys[key].shown[D.keys[key].rows[row]];
const describe = (row) => D.keys.map((key, k) => `${key.label}: ${keyText(k, row)}`);

function visible() {
  const rows = [];
  for (let row = 0; row < N; row += 1) {
    if (D.keys.every((key, k) => !hidden[k].has(key.rows[row]))) rows.push(row);
  }
  return rows;
}
function front(rows) {
  const places = new Map();
  for (const row of rows) {
    const place = D.places.map((k) => D.keys[k].rows[row]).join();
    if (!places.has(place)) places.set(place, []);
    places.get(place).push(row);
  }
  const signed = D.objectives.map(({name, sign}) => D.metrics[name].map((value) => sign * value));
  const found = [];
  for (const group of places.values()) {
    group.sort((a, b) => { for (const s of signed) if (s[a] !== s[b]) return s[a] - s[b]; return a - b; });
    const best = [];
    for (const row of group) if (!best.some((other) => signed.every((s) => s[other] <= s[row]))) best.push(row);
    found.push(...best);
  }
  return found;
}
function spread(items, count) {
  if (items.length <= count) return items;
  return Array.from({length: count}, (_, i) => items[Math.round(i * (items.length - 1) / (count - 1))]);
}

// Scales and axes.
function scale(values, from, to, log) {
  let low = Infinity, high = -Infinity;
  for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
  if (!(low <= high)) { low = 0; high = 1; }
  const logarithmic = log ?? (low > 0 && high / low > 5);
  const f = logarithmic ? Math.log10 : (v) => v;
  let a = f(low), b = f(high);
  const margin = (b - a || Math.abs(a) * 0.1 || 1) * 0.06;
  a -= margin; b += margin;
  const at = (v) => from + (f(v) - a) / (b - a) * (to - from);
  return {at, ticks: ticks(a, b, logarithmic), low: logarithmic ? 10 ** a : a, high: logarithmic ? 10 ** b : b};
}
function ticks(a, b, log) {
  const found = [];
  if (log) {
    const steps = b - a > 3 ? [1] : b - a > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
    for (let p = Math.floor(a); p <= Math.ceil(b); p += 1) for (const s of steps) {
      const v = s * 10 ** p;
      if (Math.log10(v) >= a && Math.log10(v) <= b) found.push(v);
    }
    return found.length > 9 ? found.filter((_, i) => i % 2 === 0) : found;
  }
  const raw = (b - a) / 6, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= raw);
  for (let v = Math.ceil(a / step) * step; v <= b; v += step) found.push(+v.toPrecision(12));
  return found;
}
function frame(svg, x, y, box, names, formats) {
  for (const v of x.ticks) {
    svg.append(el("line", {class: "grid", x1: x.at(v), x2: x.at(v), y1: box.top, y2: box.bottom}),
      el("text", {x: x.at(v), y: box.bottom + 16, "text-anchor": "middle"}, formats[0](v)));
  }
  for (const v of y.ticks) {
    svg.append(el("line", {class: "grid", x1: box.left, x2: box.right, y1: y.at(v), y2: y.at(v)}),
      el("text", {x: box.left - 6, y: y.at(v) + 4, "text-anchor": "end"}, formats[1](v)));
  }
  svg.append(el("path", {class: "axis", fill: "none", d: `M${box.left},${box.top}V${box.bottom}H${box.right}`}),
    el("text", {x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle"}, names[0]),
    el("text", {x: box.left - 4, y: box.top - 10, "text-anchor": "start"}, `${names[1]} ↑`));
}
function canvas(width, height, name) {
  return el("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name});
}
function legend(svg, entries, x, y, gap = 16) {
  entries.forEach(([name, colour], i) => svg.append(
    el("rect", {x, y: y + i * gap - 9, width: 10, height: 10, fill: colour}), el("text", {x: x + 15, y: y + i * gap}, name)));
}

// The tip follows the pointer, or the element that has the focus.
const tip = $("tip");
function tell(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${Math.max(4, y + 14 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 14)}px`;
}
function tips(node, text) {
  node.addEventListener("pointermove", (event) => tell(text(), event.clientX, event.clientY));
  node.addEventListener("pointerleave", () => { tip.hidden = true; });
  return node;
}

function select(id, options, chosen, redraw) {
  const node = $(id);
  node.replaceChildren(...options.map(([value, text]) => new Option(text, value, value === chosen, value === chosen)));
  node.addEventListener("input", redraw);
}

// Pareto.
function drawPareto(rows, best) {
  const [xName, yName, colourBy] = ["x", "y", "colour"].map((n) => $(`pareto-${n}`).value);
  const box = {left: 78, right: 760, top: 30, bottom: 390};
  const svg = canvas(940, 440, `${label(yName)} against ${label(xName)} of ${rows.length} points`);
  const x = scale(rows.map((r) => valueOf(xName, r)), box.left, box.right);
  const y = scale(rows.map((r) => valueOf(yName, r)), box.bottom, box.top);
  frame(svg, x, y, box, [label(xName), label(yName)], [(v) => short(xName, v), (v) => short(yName, v)]);
  const k = Number(colourBy);
  const colour = (row) => COLOURS[D.keys.length ? D.keys[k].rows[row] % COLOURS.length : 0];
  const isBest = new Set(best);
  const dots = el("g");
  for (const row of [...rows.filter((r) => !isBest.has(r)), ...best]) {
    const on = isBest.has(row);
    dots.append(el("circle", {cx: x.at(valueOf(xName, row)).toFixed(1), cy: y.at(valueOf(yName, row)).toFixed(1),
      r: on ? 6 : 3.5, fill: colour(row), "fill-opacity": on ? 1 : 0.5, class: on || row === kept ? "hot" : "", "data-row": row}));
  }
  svg.append(dots);
  if (D.keys.length) {
    const used = [...new Set(rows.map((r) => D.keys[k].rows[r]))].sort((a, b) => a - b).slice(0, 14);
    legend(svg, used.map((v) => [D.keys[k].shown[v], COLOURS[v % COLOURS.length]]), box.right + 16, box.top + 8);
  }
  const nearest = (event) => {
    const matrix = svg.getScreenCTM().inverse();
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
    let found = -1, least = 400;
    for (const row of rows) {
      const d = (x.at(valueOf(xName, row)) - at.x) ** 2 + (y.at(valueOf(yName, row)) - at.y) ** 2;
      if (d < least) { least = d; found = row; }
    }
    return found;
  };
  svg.addEventListener("pointermove", (event) => {
    const row = nearest(event);
    if (row < 0) { tip.hidden = true; return; }
    const lines = [xName, yName, ...D.objectives.map((o) => o.name)].map((m) => `${label(m)}: ${show(m, valueOf(m, row))}`);
    tell([...describe(row), ...new Set(lines)].join("\n"), event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  svg.addEventListener("click", (event) => { const row = nearest(event); if (row >= 0) { kept = row; redraw(); } });
  $("pareto-figure").replaceChildren(svg);
}
function drawDetails(best) {
  const row = kept >= 0 ? kept : best[0] ?? -1;
  if (row < 0) { $("details").replaceChildren("No point is shown."); return; }
  const list = html("dl");
  D.keys.forEach((key, k) => list.append(html("dt", {}, key.label), html("dd", {}, keyText(k, row))));
  for (const metric of D.detailed) {
    if (valueOf(metric, row) !== null) list.append(html("dt", {}, label(metric)), html("dd", {}, show(metric, valueOf(metric, row))));
  }
  const text = kept >= 0 ? "Kept point" : "First point of the front";
  $("details").replaceChildren(html("strong", {}, text), list);
}
function drawTable(best) {
  const metrics = [...new Set([...D.objectives.map((o) => o.name), ...D.gains])];
  const head = html("tr", {}, ...D.keys.map((k) => html("th", {scope: "col"}, k.label)), ...metrics.map((m) => html("th", {scope: "col"}, label(m))));
  const body = html("tbody");
  for (const row of spread(best, 200)) {
    body.append(html("tr", {}, ...D.keys.map((_, k) => html("td", {}, keyText(k, row))), ...metrics.map((m) => html("td", {}, show(m, valueOf(m, row))))));
  }
  const table = html("table", {}, html("caption", {}, `The front: ${best.length} ${best.length === 1 ? "point" : "points"}`), html("thead", {}, head), body);
  $("front-table").replaceChildren(html("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Front"}, table));
}

// Map.
function median(values) {
  const sorted = values.slice().sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
function drawMap(rows) {
  const measure = $("map-measure").value, flow = $("map-flow").value;
  const [r, c] = [Number($("map-rows").value), Number($("map-columns").value)];
  const flowKey = D.keys.findIndex((key) => key.name === "dataflow");
  const cells = new Map();
  for (const row of rows) {
    const value = valueOf(measure, row);
    if (value === null || (flow !== "" && flowKey >= 0 && D.keys[flowKey].rows[row] !== Number(flow))) continue;
    const place = `${D.keys[r].rows[row]},${D.keys[c].rows[row]}`;
    if (!cells.has(place)) cells.set(place, []);
    cells.get(place).push(value);
  }
  const used = (k) => [...new Set(rows.map((row) => D.keys[k].rows[row]))].sort((a, b) => a - b);
  const [ys, xs] = [used(r), used(c)];
  if (!cells.size) { $("map-figure").replaceChildren("No point has this measure: is the baseline among the shown points' dataflows?"); return; }
  const left = 120, cell = Math.max(46, Math.min(90, 760 / xs.length)), height = 34;
  const svg = canvas(left + cell * xs.length + 20, 50 + height * ys.length + 40, `${label(measure)} over ${D.keys[r].label} and ${D.keys[c].label}`);
  const middles = new Map([...cells].map(([place, values]) => [place, median(values)]));
  const gain = D.gains.includes(measure);
  const logs = [...middles.values()].map((v) => Math.log2(Math.max(v, 1e-12)));
  const reach = gain ? Math.max(0.1, ...logs.map(Math.abs)) : 1;
  const [low, high] = [Math.min(...logs), Math.max(...logs)];
  svg.append(el("text", {x: 4, y: 16}, `${label(measure)}: rows ${D.keys[r].label}, columns ${D.keys[c].label}`));
  ys.forEach((yv, i) => {
    const top = 30 + (ys.length - 1 - i) * height;
    svg.append(el("text", {x: left - 8, y: top + height / 2 + 4, "text-anchor": "end"}, D.keys[r].shown[yv]));
    xs.forEach((xv, j) => {
      const value = middles.get(`${yv},${xv}`);
      if (value === undefined) return;
      const share = gain ? Math.log2(Math.max(value, 1e-12)) / reach : (high > low ? (high - Math.log2(Math.max(value, 1e-12))) / (high - low) : 0);
      const base = share < 0 ? [213, 94, 0] : [0, 114, 178];
      const mixed = base.map((part) => Math.round(244 + (part - 244) * Math.abs(share)));
      const box = el("rect", {x: left + j * cell, y: top, width: cell - 1, height: height - 1, fill: `rgb(${mixed})`});
      const text = el("text", {x: left + j * cell + cell / 2, y: top + height / 2 + 4, "text-anchor": "middle",
        style: `fill:${Math.abs(share) > 0.55 ? "#fff" : "#1c1c20"};pointer-events:none`}, short(measure, value).replace("x", ""));
      tips(box, () => `${D.keys[r].label}: ${D.keys[r].shown[yv]}\n${D.keys[c].label}: ${D.keys[c].shown[xv]}\n${label(measure)}: ${show(measure, value)}\n${cells.get(`${yv},${xv}`).length} points`);
      svg.append(box, text);
    });
  });
  xs.forEach((xv, j) => svg.append(el("text", {x: left + j * cell + cell / 2, y: 30 + ys.length * height + 16, "text-anchor": "middle"}, D.keys[c].shown[xv])));
  svg.style.maxWidth = `${left + cell * xs.length + 20}px`;
  $("map-figure").replaceChildren(svg);
}

// Energy.
function drawEnergy(best) {
  const chosen = spread(best, 14), parts = Object.keys(D.parts);
  const left = 330, right = 900, height = 24;
  const svg = canvas(1010, 60 + height * chosen.length + 30, "Energy by component of points of the front");
  const largest = Math.max(1e-9, ...chosen.map((row) => valueOf("energy_pj", row)));
  parts.forEach((part, i) => svg.append(
    el("rect", {x: 4 + i * 140, y: 6, width: 10, height: 10, fill: COLOURS[i % COLOURS.length]}),
    el("text", {x: 19 + i * 140, y: 16}, part)));
  chosen.forEach((row, i) => {
    const top = 34 + i * height;
    let at = left;
    const name = D.keys.map((_, k) => keyText(k, row)).join(", ");
    const shown = el("text", {x: left - 8, y: top + 15, "text-anchor": "end"}, name.length > 48 ? `${name.slice(0, 47)}…` : name);
    svg.append(tips(shown, () => describe(row).join("\n")));
    parts.forEach((part, p) => {
      const value = D.parts[part][row], width = (right - left) * value / largest;
      svg.append(tips(el("rect", {x: at, y: top, width, height: height - 5, fill: COLOURS[p % COLOURS.length]}),
        () => `${describe(row).join("\n")}\n${part}: ${show("_pj", value)} (${(100 * value / valueOf("energy_pj", row)).toFixed(1)} %)`));
      at += width;
    });
    svg.append(el("text", {x: at + 6, y: top + 15}, show("_pj", valueOf("energy_pj", row))));
  });
  $("energy-figure").replaceChildren(svg);
}

// Roofline.
function drawRoofline() {
  const item = D.rooflines[Number($("roofline-point").value)];
  if (!item) { $("roofline-figure").replaceChildren(); return; }
  const box = {left: 70, right: 800, top: 30, bottom: 410};
  const svg = canvas(960, 460, `Roofline of ${item.title}`);
  const x = scale(item.marks.map((m) => m.intensity), box.left, box.right, true);
  const y = scale([...item.marks.map((m) => m.rate), item.macs_per_cycle], box.bottom, box.top, true);
  frame(svg, x, y, box, ["operations per byte of DRAM", "operations per cycle"], [(v) => +v.toPrecision(2), (v) => +v.toPrecision(2)]);
  for (const [peak, dash, name] of [[item.macs_per_cycle, "", `${item.macs_per_cycle} MACs per cycle`], [item.lanes, "4 3", `${item.lanes} lanes`]]) {
    const start = Math.max(x.low, y.low / item.bytes_per_cycle), knee = peak / item.bytes_per_cycle;
    const points = [start, Math.min(Math.max(knee, start), x.high), x.high].map((v) => `${x.at(v)},${y.at(Math.min(peak, item.bytes_per_cycle * v))}`);
    svg.append(el("polyline", {class: "roof", points: points.join(" "), "stroke-dasharray": dash}),
      el("text", {x: box.right + 4, y: y.at(Math.min(peak, item.bytes_per_cycle * x.high)) + 4}, name));
  }
  const phases = [...new Set(item.marks.map((m) => m.phase))];
  for (const m of item.marks) {
    const [px, py, colour] = [x.at(m.intensity), y.at(m.rate), COLOURS[D.phases.indexOf(m.phase) % COLOURS.length]];
    const node = m.vector
      ? el("path", {d: `M${px - 4},${py - 4}l8,8m0,-8l-8,8`, stroke: colour, "stroke-width": 2, fill: "none"})
      : el("circle", {cx: px, cy: py, r: 5, fill: colour, "fill-opacity": 0.75});
    svg.append(tips(node, () => `${m.name} (${m.phase})\n${m.operations.toLocaleString("en")} ${m.vector ? "lane operations" : "MACs"}\n${show("cycles", m.cycles)} cycles\n${show("bytes", m.dram_bytes)} of DRAM\n${show("_pj", m.energy_pj)}`));
  }
  legend(svg, phases.map((p) => [p, COLOURS[D.phases.indexOf(p) % COLOURS.length]]), box.right + 14, 250);
  $("roofline-figure").replaceChildren(svg);
}

// Sensitivity: between-group share of the variance of the logarithm.
function drawSensitivity(rows) {
  const left = 300, right = 800, bar = 13;
  const groups = D.keys.map((_, k) => [k]).filter(([k]) => new Set(rows.map((r) => D.keys[k].rows[r])).size > 1);
  const shares = groups.map(([k]) => D.objectives.map(({name}) => {
    const logs = rows.map((r) => Math.log(Math.max(valueOf(name, r), 1e-30)));
    const mean = logs.reduce((a, b) => a + b, 0) / logs.length;
    const total = logs.reduce((a, b) => a + (b - mean) ** 2, 0);
    const sums = new Map();
    rows.forEach((r, i) => { const g = D.keys[k].rows[r], s = sums.get(g) ?? [0, 0]; s[0] += logs[i]; s[1] += 1; sums.set(g, s); });
    if (sums.size > rows.length / 2) return 0;
    let between = 0;
    for (const [sum, n] of sums.values()) between += n * (sum / n - mean) ** 2;
    return total > 0 ? between / total : 0;
  }));
  const order = groups.map((_, i) => i).sort((a, b) => shares[b][0] - shares[a][0]);
  const step = bar * D.objectives.length + 10;
  const svg = canvas(1000, 40 + step * order.length, "Share of variance by key");
  legend(svg, D.objectives.map((o, i) => [label(o.name), COLOURS[i]]), right + 60, 30);
  order.forEach((g, i) => {
    const top = 16 + i * step, name = groups[g].map((k) => D.keys[k].label).join(" = ");
    svg.append(el("text", {x: left - 8, y: top + step / 2, "text-anchor": "end"}, name.length > 44 ? `${name.slice(0, 43)}…` : name));
    shares[g].forEach((share, o) => svg.append(
      tips(el("rect", {x: left, y: top + o * bar, width: Math.max(1, (right - left) * share), height: bar - 2, fill: COLOURS[o]}), () => `${name}\n${label(D.objectives[o].name)}: ${(100 * share).toFixed(1)} %`),
      el("text", {x: left + (right - left) * share + 5, y: top + o * bar + 10}, `${(100 * share).toFixed(0)} %`)));
  });
  $("sensitivity-figure").replaceChildren(svg);
}

function redraw() {
  const rows = visible(), best = front(rows);
  if (kept >= 0 && !rows.includes(kept)) kept = -1;
  $("shown").textContent = `${rows.length.toLocaleString("en")} of ${N.toLocaleString("en")} points shown, ${best.length} of them on the front.`;
  drawPareto(rows, best);
  drawDetails(best);
  drawTable(best);
  if (D.keys.length) drawMap(rows);
  drawEnergy(best);
  drawSensitivity(rows);
}

// Controls.
D.keys.forEach((key, k) => {
  if (key.shown.length > 40) return;
  const box = html("fieldset", {}, html("legend", {}, key.label));
  key.shown.forEach((text, v) => {
    const input = html("input", {type: "checkbox", checked: ""});
    input.addEventListener("input", () => { hidden[k][input.checked ? "delete" : "add"](v); redraw(); });
    box.append(html("label", {}, input, ` ${text}`));
  });
  $("filters").append(box);
});
const measures = D.plotted.map((m) => [m, label(m)]), byKey = D.keys.map((key, k) => [String(k), key.label]);
const names = D.objectives.map((o) => o.name), flow = D.keys.findIndex((key) => key.name === "dataflow");
select("pareto-x", measures, names[0], redraw);
select("pareto-y", measures, names[1] ?? names[0], redraw);
select("pareto-colour", byKey, String(Math.max(0, flow)), redraw);
select("map-measure", measures, D.gains[0] ?? names[0], redraw);
const flows = flow < 0 ? [] : D.keys[flow].shown.map((text, v) => [String(v), text]);
select("map-flow", [["", "all"], ...flows], flows.map(([v, text]) => [v, text]).find(([, text]) => text !== D.baseline)?.[0] ?? "", redraw);
const spatial = D.keys.map((_, k) => k).filter((k) => !["dataflow", "workload"].includes(D.keys[k].name));
const across = spatial[1] ?? spatial[0] ?? 0;
const up = spatial.length > 1 ? spatial[0] : D.keys.map((_, k) => k).filter((k) => k !== across).at(-1) ?? across;
select("map-rows", byKey, String(up), redraw);
select("map-columns", byKey, String(across), redraw);
select("roofline-point", D.rooflines.map((item, i) => [String(i), item.title]), "0", drawRoofline);
drawRoofline();
redraw();
document.body.dataset.drawn = "yes";
