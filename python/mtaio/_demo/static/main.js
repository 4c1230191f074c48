// What is asked of whom, how often, and what is made of it.

import { Chart } from "./charts.js";
import { byId, say } from "./dom.js";
import { LaneView } from "./lanes.js";
import { parse, Scrapes } from "./metrics.js";
import { forever, Lane, now, pause } from "./poll.js";
import { showEnd, showEntries, showHealth, showProbes, showState } from "./view.js";

const PERIOD = 500; // milliseconds
const GONE_AFTER = 2; // seconds without anybody answering: the process has ended
const PROBES = ["livez", "readyz", "startupz"];

const scrapes = new Scrapes();
const marks = []; // when buttons were pressed
let state = null; // what the page's thread told last
let seen = 0; // the newest entry shown
let answered = now(); // when anybody answered last

async function get(url, options = {}) {
  const answer = await fetch(url, { cache: "no-store", ...options });
  answered = now();
  return answer;
}

// The three that are asked: the loop, a Python thread, the native thread.

const loop = new Lane(() => get(`${state.service}/items/1`, { mode: "no-cors" }));

const thread = new Lane(async () => {
  state = await (await get(`/state?after=${seen}`)).json();
  take(state);
});

const probes = new Lane(async () => {
  const answers = Object.fromEntries(PROBES.map((name) => [name, { status: 0, notes: "", ms: 0 }]));
  try {
    for (const name of PROBES) answers[name] = await probe(name);
  } finally {
    showProbes(answers);
  }
});

async function probe(name) {
  const begun = performance.now();
  const answer = await get(`${state.probes}/${name}`);
  const ms = performance.now() - begun;
  const { notes = [] } = await answer.json();
  return { status: answer.status, notes: notes.join("; "), ms };
}

const lanes = [
  new LaneView(loop, {
    id: "loop", title: "The event loop", help: "The service itself: GET /items/1.",
  }),
  new LaneView(thread, {
    id: "thread", title: "A Python thread", help: "Serves this page.",
  }),
  new LaneView(probes, {
    id: "probes", title: "The native probe thread", help: "Needs no loop, no GIL.",
  }),
];

function take({ entries }) {
  const aloud = seen > 0;
  if (entries.length) seen = entries.at(-1).number;
  for (const { source, at } of entries) if (source === "action") marks.push(at);
  showEntries(entries, { aloud });
  showState(state);
}

// Figures, from /metrics alone.

const gauge = (name, scale = 1) => (from) => {
  const value = from.latest(name);
  return value === null ? null : value * scale;
};
const rate = (name) => (from) => from.rate(`mtaio_demo_${name}_total`);

function hitRatio(from) {
  const hits = from.growth("mtaio_demo_cache_hits_total", 5);
  const misses = from.growth("mtaio_demo_cache_misses_total", 5);
  return hits === null || hits + misses === 0 ? null : (100 * hits) / (hits + misses);
}

function meanWait(from) {
  const waited = from.growth("mtaio_demo_limiter_waited_seconds_total");
  const granted = from.growth("mtaio_demo_limiter_granted_total");
  return waited === null || granted === 0 ? null : (1000 * waited) / granted;
}

const charts = [
  new Chart({
    title: "Processor", help: "Of what it may use.", top: 100, fixed: true,
    lines: [{ name: "in use", unit: "%", read: gauge("mtaio_cpu_usage_percent") }],
  }),
  new Chart({
    title: "Memory", help: "Of its limit, all of its group.", top: 100, fixed: true,
    lines: [{ name: "in use", unit: "%", read: gauge("mtaio_memory_percent") }],
  }),
  new Chart({
    title: "Event loop lag", help: "How late its heartbeat is.", top: 100,
    lines: [{ name: "late", unit: "ms", read: gauge("mtaio_watchdog_lag_seconds", 1000) }],
  }),
  new Chart({
    title: "Requests", help: "As the load sees them.", top: 10,
    lines: [
      { name: "all", unit: "/s", read: rate("answers") },
      { name: "with 200", unit: "/s", read: rate("answers_200") },
    ],
  }),
  new Chart({
    title: "Limiter: tokens", help: "Granted, and refused at once.", top: 10,
    lines: [
      { name: "granted", unit: "/s", read: rate("limiter_granted") },
      { name: "refused", unit: "/s", read: rate("limiter_refused") },
    ],
  }),
  new Chart({
    title: "Limiter: line", help: "Callers that wait for a token.", top: 50,
    lines: [{ name: "waiting", unit: "", read: gauge("mtaio_demo_limiter_waiting") }],
  }),
  new Chart({
    title: "Limiter: wait", help: "What a token took, on average.", top: 100,
    lines: [{ name: "mean wait", unit: "ms", read: meanWait }],
  }),
  new Chart({
    title: "Cache", help: "Reads that found a value.", top: 100, fixed: true,
    lines: [{ name: "hits", unit: "%", read: hitRatio }],
  }),
  new Chart({
    title: "Log", help: "Written by its native thread.", top: 10,
    lines: [{ name: "lines", unit: "/s", read: rate("log_lines") }],
  }),
];

async function scrape() {
  let text;
  let health;
  try {
    text = await (await get(`${state.probes}/metrics`)).text();
    health = await (await get(`${state.probes}/healthz`)).json();
  } catch {
    return; // the lane of the probes tells
  }
  scrapes.add(now(), parse(text));
  showHealth(health);
  for (const chart of charts) chart.update(scrapes, marks);
}

// The buttons.

async function act(event) {
  event.preventDefault();
  const form = event.target;
  const given = {};
  if (form.elements.seconds) given.seconds = Number(form.elements.seconds.value);
  if (form.dataset.action === "stock") given.broken = !state.stock_broken;
  say(byId("result"), await post(form.dataset.action, given));
}

async function post(action, given) {
  try {
    const answer = await fetch(`/actions/${action}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Mtaio-Demo": "1" },
      body: JSON.stringify(given),
    });
    return answer.ok ? "" : await answer.text();
  } catch {
    return "The process does not answer.";
  }
}

// Once and for all.

async function begin() {
  while (state === null) {
    await thread.turn();
    if (state === null) await pause(PERIOD);
  }
  byId("metrics-link").href = `${state.probes}/metrics`;
  byId("lanes").append(...lanes.map((lane) => lane.node));
  byId("charts").append(...charts.map((chart) => chart.node));
  for (const form of document.querySelectorAll(".action")) form.addEventListener("submit", act);
  const { pid } = state;
  for (const lane of [loop, thread, probes]) forever(PERIOD, () => lane.turn());
  forever(PERIOD, scrape);
  forever(100, () => watch(pid));
}

function watch(pid) {
  for (const lane of lanes) lane.draw();
  if (state.pid !== pid) window.location.reload(); // started again, on the same port
  if (now() - answered > GONE_AFTER && lanes.every(({ lane }) => lane.gone)) {
    showEnd(state.exit_code);
  }
}

begin();
