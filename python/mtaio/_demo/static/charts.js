// Small line charts in SVG, each with a summary in words and a table.

import { make, svg } from "./dom.js";
import { now } from "./poll.js";

const WINDOW = 120; // seconds
const WIDTH = 320;
const HEIGHT = 84;
const ROW_SECONDS = 10; // between rows of a table

/** Readable: 1234 -> "1,234", 0.0213 -> "0.021". */
export function figure(value, unit = "") {
  if (value === null) return "–";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  const text = value.toLocaleString("en", { maximumFractionDigits: digits });
  return unit ? `${text} ${unit}` : text;
}

/** The least of 1, 2, 5, 10, 20, ... that is not below `value`. */
function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

export class Chart {
  /**
   * `lines`: [{name, unit, read}], where `read(scrapes)` gives a number or null.
   * `top`: the least height of the axis; `fixed`: it never grows.
   */
  constructor({ title, help, lines, top = 1, fixed = false }) {
    Object.assign(this, { title, help, lines, top, fixed });
    this.points = []; // {at, values}, one value for each line
    this.build();
  }

  build() {
    this.drawing = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    });
    for (const share of [0.25, 0.5, 0.75]) {
      const y = HEIGHT * share;
      this.drawing.append(svg("line", { class: "rule", x1: 0, x2: WIDTH, y1: y, y2: y }));
    }
    this.marks = svg("path", { class: "mark" });
    this.area = svg("path", { class: "area" });
    this.paths = this.lines.map((_, i) => svg("path", { class: `line line-${i}` }));
    this.drawing.append(this.area, this.marks, ...this.paths);
    this.axis = make("span", { class: "axis", "aria-hidden": "true" });
    this.values = this.lines.map((line, i) => {
      const value = make("strong", {}, "–");
      const name = make("span", { class: `key key-${i}` }, line.name);
      return { node: make("span", { class: "value" }, value, " ", name), value };
    });
    this.table = make("tbody");
    const head = ["seconds ago", ...this.lines.map((line) => `${line.name} (${line.unit})`)];
    this.details = make("details", {},
      make("summary", {}, make("span", { class: "hidden" }, `${this.title} as a `), "table"),
      make("table", {},
        make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
        this.table));
    this.details.addEventListener("toggle", () => this.fillTable());
    this.node = make("figure", { class: "chart" },
      make("figcaption", {}, make("h3", {}, this.title), make("p", {}, this.help)),
      make("p", { class: "values" }, ...this.values.map((each) => each.node)),
      make("div", { class: "plot" }, this.axis, this.drawing),
      this.details);
  }

  /** Takes in what was just scraped, and draws; `marks` are seconds since 1970. */
  update(scrapes, marks) {
    const values = this.lines.map((line) => line.read(scrapes));
    this.points.push({ at: now(), values });
    while (this.points[0].at < now() - WINDOW - 2) this.points.shift();
    values.forEach((value, i) => {
      this.values[i].value.textContent = figure(value, this.lines[i].unit);
    });
    this.draw(marks);
    if (this.details.open) this.fillTable();
  }

  draw(marks) {
    const all = this.points.flatMap((point) => point.values).filter((v) => v !== null);
    const most = Math.max(0, ...all);
    const height = this.fixed || most <= this.top ? this.top : rounded(most);
    const x = (at) => (WIDTH * (1 - (now() - at) / WINDOW)).toFixed(1);
    const y = (value) => (HEIGHT - 2 - (HEIGHT - 6) * Math.min(value / height, 1)).toFixed(1);
    this.paths.forEach((path, i) => path.setAttribute("d", this.route(i, x, y)));
    this.area.setAttribute("d", this.route(0, x, y, true));
    const lines = marks.filter((at) => at > now() - WINDOW).map((at) => `M${x(at)} 0V${HEIGHT}`);
    this.marks.setAttribute("d", lines.join(""));
    this.axis.textContent = figure(height, this.lines[0].unit);
    this.drawing.setAttribute("aria-label", this.inWords());
  }

  /** A path through one line's points, broken where a value is unknown. */
  route(i, x, y, filled = false) {
    const runs = [[]];
    for (const { at, values } of this.points) {
      if (values[i] === null) runs.push([]);
      else runs.at(-1).push([x(at), y(values[i])]);
    }
    return runs.filter((run) => run.length > 1).map((run) => {
      const path = `M${run.map((point) => point.join(" ")).join("L")}`;
      return filled ? `${path}V${HEIGHT}H${run[0][0]}Z` : path;
    }).join("");
  }

  inWords() {
    const told = this.lines.map((line, i) => {
      const known = this.points.map((point) => point.values[i]).filter((v) => v !== null);
      if (!known.length) return `${line.name}: not known yet`;
      const [least, most] = [Math.min(...known), Math.max(...known)];
      return `${line.name}: now ${figure(known.at(-1), line.unit)}, `
        + `least ${figure(least)}, most ${figure(most)}`;
    });
    return `${this.title}, the last two minutes. ${told.join(". ")}.`;
  }

  fillTable() {
    const rows = [];
    for (let ago = 0; ago <= WINDOW; ago += ROW_SECONDS) {
      const point = this.points.findLast((each) => each.at <= now() - ago);
      if (!point) break;
      const cells = point.values.map((value) => make("td", {}, figure(value)));
      rows.push(make("tr", {}, make("th", { scope: "row" }, String(ago)), ...cells));
    }
    this.table.replaceChildren(...rows);
  }
}
