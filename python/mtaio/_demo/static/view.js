// The words on the page: header, probes, checks and what happened.

import { byId, make, say } from "./dom.js";

const MOST_EVENTS = 24;
const SIGNS = { good: "✓", warning: "!", bad: "✕", info: "•" };
const SPOKEN = { good: "good:", warning: "warning:", bad: "bad:", info: "" };
// /healthz has the words of draft-inadarei-api-health-check; the page mtaio's own.
const STATUSES = { pass: "healthy", warn: "degraded", fail: "unhealthy" };
const LEVELS = { pass: "good", warn: "warning", fail: "bad" };

export function duration(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function showState(state) {
  say(byId("phase"), state.phase);
  say(byId("in-flight"), String(state.in_flight));
  say(byId("uptime"), duration(state.uptime));
  say(byId("pid"), String(state.pid));
  say(byId("version"), state.version);
  say(byId("stock"), state.stock_broken ? "Mend the stock service" : "Break the stock service");
}

const QUESTIONS = {
  livez: "Should I be restarted?",
  readyz: "May requests come?",
  startupz: "Have I started?",
};

/** `answers`: {livez: {status, notes, ms}, ...}; status 0 is no answer. */
export function showProbes(answers) {
  const list = byId("probes");
  for (const [name, { status, notes, ms }] of Object.entries(answers)) {
    let row = byId(name);
    if (!row) {
      row = make("div", { class: "probe", id: name },
        make("dt", {}, make("code", {}, `/${name}`), make("span", {}, QUESTIONS[name])),
        make("dd", {}, make("strong"), make("span")));
      list.append(row);
    }
    row.dataset.level = status === 200 ? "good" : "bad";
    const [code, why] = row.querySelectorAll("dd > *");
    say(code, status ? String(status) : "no answer");
    say(why, notes || (status === 200 ? `passes, in ${ms.toFixed(1)} ms` : ""));
  }
}

/** The document of /healthz. */
export function showHealth(health) {
  const verdict = byId("verdict");
  say(verdict, STATUSES[health.status]);
  verdict.dataset.level = LEVELS[health.status];
  say(byId("why"), health.reason);
  const rows = Object.entries(health.checks).map(([name, [check]]) => checkRow(name, check));
  byId("checks").replaceChildren(...rows);
}

/** A check, or a figure beyond its threshold: that has an `observedValue`. */
function checkRow(name, check) {
  const causes = (check.causes ?? []).filter((cause) => cause !== name);
  const figure = check.observedValue?.toLocaleString("en", { maximumFractionDigits: 1 });
  const reason = [check.output ?? (figure ? `at ${figure}, beyond its threshold` : "")];
  if (causes.length) reason.push(make("em", { class: "cause" }, `root cause: ${causes.join(", ")}`));
  const critical = check.critical ? [" ", make("small", {}, "critical")] : [];
  return make("tr", { id: `check-${name}` },
    make("th", { scope: "row" }, name, ...critical),
    make("td", {}, make("span", { class: "badge", "data-level": LEVELS[check.status] }, STATUSES[check.status])),
    make("td", {}, ...reason));
}

/** Adds what is new on top, and tells of it what matters, unless it is history. */
export function showEntries(entries, { aloud = true } = {}) {
  const list = byId("events");
  for (const entry of entries) list.prepend(eventItem(entry));
  while (list.children.length > MOST_EVENTS) list.lastChild.remove();
  const matters = entries.filter((each) => each.level !== "info" || each.source === "action");
  if (aloud && matters.length) say(byId("announcer"), matters.map((each) => each.text).join(". "));
}

function eventItem({ at, level, source, text, detail }) {
  const when = new Date(at * 1000);
  const item = make("li", { "data-level": level, "data-source": source },
    make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[level]),
    make("time", { datetime: when.toISOString() }, when.toLocaleTimeString("en-GB")),
    make("p", {}, make("span", { class: "hidden" }, SPOKEN[level]), " ", text));
  if (detail) {
    item.append(make("code", { class: "where" }, innermost(detail)),
      make("details", {}, make("summary", {}, "the whole stack"), make("pre", {}, detail)));
  }
  return item;
}

/**
 * The line of a stack where it stands: the last of a traceback, which has a comma
 * before "in", and the first of what faulthandler wrote, which has none.
 */
function innermost(stack) {
  const frames = stack.match(/File ".*", line \d+,? in \S+/g) ?? [stack.trim()];
  const frame = /line \d+, in/.test(frames[0]) ? frames.at(-1) : frames[0];
  return frame.replace(/File ".*[\\/](.*)", line (\d+),? in (\S+)/, "$3, $1 line $2");
}

export function showEnd(code) {
  const how = code === null ? "" : ` Exit code ${code}.`;
  say(byId("ended"), `The process has ended.${how} Start it again with make run, or mtaio demo.`);
  byId("ended").hidden = false;
  say(byId("phase"), "ended");
  for (const button of document.querySelectorAll(".action button")) button.disabled = true;
}
