"use strict";
// Sorting by the headers of every table marked "sortable"; filtering of the layer table. Without this script
// the page shows everything, in the order of the step.
const SCALES = {
  pJ: 1, nJ: 1e3, uJ: 1e6, mJ: 1e9, J: 1e12, kJ: 1e15,
  B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40,
};

function sortKey(text, isWord) {
  if (isWord) return text.toLowerCase();
  const found = /^(-?[\d,.]+)\s*([A-Za-z]*)/.exec(text.trim());
  return found ? Number(found[1].replaceAll(",", "")) * (SCALES[found[2]] ?? 1) : 0;
}

function sortBy(table, column, header) {
  const down = header.getAttribute("aria-sort") !== "descending";
  const isWord = column < Number(table.dataset.words);
  const rows = Array.from(table.tBodies[0].rows, (row) => [sortKey(row.cells[column].textContent, isWord), row]);
  rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(table, column, header));
  });
}

const layers = document.getElementById("layer-table");
if (layers) {
  const words = document.getElementById("filter-words");
  const picks = Array.from(document.querySelectorAll("select[data-column]"));
  const shown = document.getElementById("filter-count");
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of layers.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      const match = wanted.every((word) => text.includes(word)) &&
        picks.every((pick) => !pick.value || row.cells[Number(pick.dataset.column)].textContent.trim() === pick.value);
      row.hidden = !match;
      count += match;
    }
    shown.textContent = `${count} of ${layers.tBodies[0].rows.length} rows`;
  };
  for (const control of [words, ...picks]) control.addEventListener("input", filter);
  document.getElementById("controls").hidden = false;
  filter();
}
