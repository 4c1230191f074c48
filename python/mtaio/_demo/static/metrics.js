// From the text of /metrics to figures over time.

const LINE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})? (\S+)/;

/** The value of every series, added up by name: {name: number}. */
export function parse(text) {
  const values = {};
  for (const line of text.split("\n")) {
    const found = LINE.exec(line);
    if (!found) continue;
    const value = Number(found[2]);
    if (Number.isFinite(value)) values[found[1]] = (values[found[1]] ?? 0) + value;
  }
  return values;
}

/** What was scraped of late. */
export class Scrapes {
  constructor(kept = 130) {
    this.kept = kept;
    this.all = []; // {at, values}, oldest first
  }

  add(at, values) {
    this.all.push({ at, values });
    while (this.all[0].at < at - this.kept) this.all.shift();
  }

  /** The newest value of a gauge, null if it isn't told. */
  latest(name) {
    return this.all.at(-1)?.values[name] ?? null;
  }

  /** How much a counter grew over about the last `seconds`, null if unknown. */
  growth(name, seconds = 2) {
    const last = this.all.at(-1);
    const first = this.all.findLast((one) => one.at <= (last?.at ?? 0) - seconds);
    if (!first || !(name in last.values) || !(name in first.values)) return null;
    return last.values[name] - first.values[name];
  }

  /** The same per second. */
  rate(name, seconds = 2) {
    const last = this.all.at(-1);
    const first = this.all.findLast((one) => one.at <= (last?.at ?? 0) - seconds);
    const grown = this.growth(name, seconds);
    return grown === null ? null : grown / (last.at - first.at);
  }
}
