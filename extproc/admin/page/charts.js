// Small drawings and how numbers are written. Nothing here knows what the numbers mean.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Text stays text: nothing that came from a request is ever parsed as markup. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const WIDTH = 200;
const HEIGHT = 34;

/** A line over time from zero up; `values` may have holes (null). */
export function spark(times, values, label) {
  const box = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
    role: "img", "aria-label": label });
  box.append(svg("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }));
  const span = Math.max(times.at(-1) - times[0], 1e-9);
  const top = Math.max(...values.filter((value) => value !== null), 1e-9);
  for (const run of runs(values)) {
    const points = run.map((at) => {
      const x = times.length > 1 ? ((times[at] - times[0]) / span) * WIDTH : WIDTH;
      return `${x.toFixed(1)} ${(HEIGHT - 1 - (values[at] / top) * (HEIGHT - 4)).toFixed(1)}`;
    });
    const first = points[0].split(" ")[0];
    const last = points.at(-1).split(" ")[0];
    box.append(svg("path", { class: "area", d: `M${first} ${HEIGHT}L${points.join("L")}L${last} ${HEIGHT}Z` }));
    box.append(svg("path", { class: "line", d: `M${points.join("L")}` }));
  }
  return box;
}

function runs(values) {
  const found = [];
  values.forEach((value, at) => {
    if (value === null) return;
    if (at > 0 && values[at - 1] !== null && found.length) found.at(-1).push(at);
    else found.push([at]);
  });
  return found;
}

/** Bars of equal width, one per bucket, from the first that holds anything to the last. */
export function histogram(bounds, counts, label) {
  const filled = counts.map((count, at) => (count > 0 ? at : -1)).filter((at) => at >= 0);
  const from = Math.max(0, filled[0] - 1);
  const to = Math.min(counts.length - 1, filled.at(-1) + 1);
  const shown = counts.slice(from, to + 1);
  const width = 640, height = 150, floor = 126;
  const step = width / shown.length;
  const top = Math.max(...shown);
  const box = svg("svg", { class: "histogram", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none",
    role: "img", "aria-label": label });
  shown.forEach((count, at) => {
    const tall = count ? Math.max(2, (count / top) * (floor - 18)) : 1;
    const upper = bounds[from + at];
    const bar = svg("rect", { x: at * step + 2, y: floor - tall, width: Math.max(1, step - 4), height: tall,
      class: count ? "" : "none", rx: 2 });
    const range = upper === undefined ? `above ${duration(bounds.at(-1))}` : `up to ${duration(upper)}`;
    bar.append(svg("title", {}, `${count} ${range}`));
    box.append(bar);
    if (count) box.append(svg("text", { x: (at + 0.5) * step, y: floor - tall - 5 }, compact(count)));
    const name = upper === undefined ? "more" : duration(upper);
    box.append(svg("text", { x: (at + 0.5) * step, y: height - 6 }, name));
  });
  return box;
}

/** A share of one as a bar. `tone` is good, warn, bad or "". */
export function meter(share, tone = "") {
  const inner = el("div", { class: tone });
  inner.style.width = `${(Math.min(1, Math.max(0, share)) * 100).toFixed(1)}%`;
  return el("div", { class: "meter", "aria-hidden": "true" }, inner);
}

/** Rows of cells; a cell is a text, a node, or [content, class]. */
export function table(caption, heads, rows) {
  const head = heads.map((name) => {
    const [text, kind] = Array.isArray(name) ? name : [name, ""];
    return el("th", { scope: "col", class: kind }, text);
  });
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell, at) => {
    const [content, kind] = Array.isArray(cell) ? cell : [cell, ""];
    return at === 0 ? el("th", { scope: "row", class: kind }, content) : el("td", { class: kind }, content);
  })));
  return el("table", {}, el("caption", { class: "hidden-text" }, caption), el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...body));
}

export const UNKNOWN = "–";

export function compact(value) {
  if (value === null || value === undefined) return UNKNOWN;
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toFixed(2)}G`;
  if (size >= 1e6) return `${(value / 1e6).toFixed(2)}M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  if (size >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  if (seconds >= 86400) return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  if (seconds >= 120) return `${Math.floor(seconds / 60)} min`;
  if (seconds >= 10) return `${seconds.toFixed(0)} s`;
  if (seconds >= 1) return `${+seconds.toFixed(2)} s`;
  return `${+(seconds * 1e3).toPrecision(3)} ms`;
}

export function percent(share) {
  if (share === null || share === undefined) return UNKNOWN;
  return `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

export function bytes(size) {
  if (size >= 1 << 20) return `${(size / (1 << 20)).toFixed(1)} MiB`;
  return size >= 1024 ? `${(size / 1024).toFixed(1)} KiB` : `${size} B`;
}

export function money(amount, currency) {
  const digits = amount !== 0 && Math.abs(amount) < 0.01 ? 6 : amount < 10 ? 4 : 2;
  return `${amount.toFixed(digits)} ${currency}`;
}
