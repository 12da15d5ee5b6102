// The page's own behaviour: theme, charts drawn when they come near, saving, tables. A module, so that its names stay its own.
const root = document.documentElement;
const read = id => JSON.parse(document.getElementById(id).textContent);
const palette = read("palette");
const savedFont = "Liberation Sans, Arial, sans-serif";

// Theme
const themes = [...document.querySelectorAll("[data-choose]")];
function choose(theme, keep) {
  if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
  for (const button of themes) button.setAttribute("aria-pressed", String(button.dataset.choose === theme));
  if (keep) try { localStorage.setItem("brokerlens-theme", theme); } catch (error) { /* storage is forbidden here */ }
}
choose(root.dataset.theme || "auto", false);
for (const button of themes) button.addEventListener("click", () => choose(button.dataset.choose, true));

// Charts
const options = {
  mode: "vega-lite", ast: true, renderer: "svg", actions: false,
  tooltip: { theme: "custom", disableDefaultStyle: true },
};
const charts = [...document.querySelectorAll(".chart[data-spec]")];
const drawn = new Map();
function draw(element) {
  if (!drawn.has(element)) {
    drawn.set(element, window.vegaEmbed(element, read(element.dataset.spec), options).then(result => {
      element.classList.add("drawn");
      return result;
    }));
  }
  return drawn.get(element);
}
window.drawAll = () => Promise.all(charts.map(draw)).then(() => charts.length);
const settled = elements => Promise.all(elements.map(draw));
const near = new IntersectionObserver(entries => {
  const now = entries.filter(entry => entry.isIntersecting).map(entry => entry.target);
  now.forEach(element => near.unobserve(element));
  settled(now);
}, { rootMargin: "400px" });
const onScreen = charts.filter(element => element.getClientRects().length && element.getBoundingClientRect().top < innerHeight + 400);
charts.forEach(element => near.observe(element));
settled(onScreen).then(() => { window.__done = true; });
// Vega measures its container only when the window changes.
let width = 0;
new ResizeObserver(entries => {
  const now = Math.round(entries[0].contentRect.width);
  if (width && now !== width) dispatchEvent(new Event("resize"));
  width = now;
}).observe(document.querySelector("main"));

// Print: everything drawn, light
let before = null;
addEventListener("beforeprint", () => {
  before = root.dataset.theme || "auto";
  choose("light", false);
  window.drawAll();
});
addEventListener("afterprint", () => { if (before) choose(before, false); before = null; });

// Saving
function resolved(value) {
  if (typeof value === "string") return palette[value] ?? value;
  if (Array.isArray(value)) return value.map(resolved);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item)]));
  return value;
}
function download(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
}
async function picture(figure, kind) {
  const spec = read(figure.dataset.spec);
  const text = what => figure.querySelector(what)?.textContent.replace(/\s+/g, " ").trim() ?? "";
  const data = spec.datasets;
  const shown = resolved({ ...spec, datasets: {} });
  Object.assign(shown, {
    datasets: data, width: 720, background: "#ffffff",
    title: { text: text("figcaption h3"), subtitle: wrapped(text("figcaption p")), anchor: "start" },
  });
  shown.config.font = savedFont;
  const place = document.createElement("div");
  place.style.cssText = "position:absolute;left:-10000px;top:0;width:720px";
  document.body.append(place);
  try {
    const result = await window.vegaEmbed(place, shown, options);
    const url = await result.view.toImageURL(kind, kind === "png" ? 2 : 1);
    result.finalize();
    return url;
  } finally {
    place.remove();
  }
}
function wrapped(text) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if ((lines.at(-1) + " " + word).length > 105) lines.push(word);
    else lines[lines.length - 1] = (lines.at(-1) + " " + word).trim();
  }
  return lines;
}
function csv(rows) {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const cell = value => {
    if (value === null || value === undefined) return "";
    if (typeof value !== "string") return String(value);
    // A spreadsheet would run a text that begins like a formula.
    const safe = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
    return /[",\r\n]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  };
  return "\ufeff" + [columns, ...rows.map(row => columns.map(column => row[column]))].map(line => line.map(cell).join(",")).join("\r\n") + "\r\n";
}
document.addEventListener("click", async event => {
  const button = event.target.closest("[data-save]");
  if (!button) return;
  const figure = button.closest("[data-spec]");
  const kind = button.dataset.save;
  if (kind === "csv") {
    const url = URL.createObjectURL(new Blob([csv(read(figure.dataset.spec).datasets.rows)], { type: "text/csv" }));
    download(url, figure.id + ".csv");
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  } else {
    button.disabled = true;
    try { download(await picture(figure, kind), figure.id + "." + kind); } finally { button.disabled = false; }
  }
});

// A display filter to the clipboard; where that is forbidden it is selected instead
document.addEventListener("click", async event => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const code = button.nextElementSibling;
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  } catch (error) {
    code.classList.add("whole");
    getSelection().selectAllChildren(code);
  }
});

// A figure's data as a table, made when it is asked for
const mostRows = 500;
const forDrawing = new Set(["t", "until", "z", "piece", "part_of", "start", "end"]);
function dataTable(figure) {
  const rows = read(figure.dataset.spec).datasets.rows;
  const columns = [...new Set(rows.flatMap(Object.keys))].filter(column => !forDrawing.has(column));
  const line = (cells, tag) => {
    const row = document.createElement("tr");
    for (const text of cells) {
      const cell = document.createElement(tag);
      cell.textContent = text === null || text === undefined ? "" : String(text);
      row.append(cell);
    }
    return row;
  };
  const table = document.createElement("table");
  table.className = "plain";
  table.append(document.createElement("thead"), document.createElement("tbody"));
  table.tHead.append(line(columns, "th"));
  rows.slice(0, mostRows).forEach(row => table.tBodies[0].append(line(columns.map(column => row[column]), "td")));
  const place = document.createElement("div");
  place.className = "scroll data";
  place.tabIndex = 0;
  place.append(table);
  if (rows.length > mostRows) {
    const note = document.createElement("p");
    note.className = "small-print";
    note.textContent = `The first ${mostRows} of ${rows.length.toLocaleString("en")} rows; CSV has all.`;
    place.append(note);
  }
  return place;
}
document.addEventListener("click", event => {
  const button = event.target.closest("[data-table]");
  if (!button) return;
  const figure = button.closest("[data-spec]");
  const open = figure.querySelector(".data");
  if (open) open.remove(); else figure.append(dataTable(figure));
  button.setAttribute("aria-expanded", String(!open));
});

// Tables: sort by a heading, filter by text
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending" || (!heading.hasAttribute("aria-sort") && heading.dataset.number !== undefined);
      headings.forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => {
        const cell = row.cells[column];
        return heading.dataset.number !== undefined ? (cell.dataset.v === "" ? null : Number(cell.dataset.v)) : cell.textContent.trim();
      };
      const rows = [...table.tBodies[0].rows].map(row => [key(row), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
for (const input of document.querySelectorAll("input[data-filter]")) {
  const table = document.getElementById(input.dataset.filter);
  const output = document.getElementById(input.dataset.filter + "-count");
  const texts = new Map([...table.tBodies[0].rows].map(row => [row, row.textContent.toLowerCase()]));
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of texts) {
      row.hidden = !words.every(word => text.includes(word));
      shown += !row.hidden;
    }
    output.textContent = `${shown.toLocaleString("en")} of ${texts.size.toLocaleString("en")} shown`;
  };
  input.addEventListener("input", apply);
  apply();
}
for (const button of document.querySelectorAll("[data-show-all]")) {
  button.addEventListener("click", () => {
    document.getElementById(button.dataset.showAll).classList.add("all");
    button.remove();
  });
}

// A shadow at the edge where a table goes on
for (const scroll of document.querySelectorAll(".scroll")) {
  const mark = () => scroll.classList.toggle("cut", scroll.scrollWidth - scroll.clientWidth - scroll.scrollLeft > 1);
  scroll.addEventListener("scroll", mark, { passive: true });
  new ResizeObserver(mark).observe(scroll);
}

// Contents: the section that is being read
const links = new Map([...document.querySelectorAll("nav a")].map(link => [link.hash.slice(1), link]));
const reading = new IntersectionObserver(entries => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-20% 0px -70% 0px" });
for (const id of links.keys()) { const section = document.getElementById(id); if (section) reading.observe(section); }
