// The strips that show who answers, and how fast.

import { make, say, svg } from "./dom.js";
import { now } from "./poll.js";

const WINDOW = 60; // seconds
const WIDTH = 600;
const HEIGHT = 22;
const LEAST = 3; // so that an answer of a millisecond is seen

const SLOW = 0.1;
const STUCK = 0.7;

const level = (seconds, ok) => (!ok ? "bad" : seconds < SLOW ? "good" : seconds < STUCK ? "warning" : "bad");

function told(lane) {
  if (lane.waits) return `no answer for ${lane.seconds.toFixed(1)} s`;
  if (lane.gone) return "gone";
  if (!lane.asked.length) return "asking";
  const ms = lane.seconds * 1000;
  return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

/** One lane: what it is, its latest answer, its last minute. */
export class LaneView {
  constructor(lane, { id, title, help }) {
    this.lane = lane;
    this.value = make("strong", { class: "latency" });
    this.drawing = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    });
    this.title = title;
    this.node = make("div", { class: "lane", id: `lane-${id}` },
      make("h3", {}, title), make("p", {}, help), this.value, this.drawing);
  }

  draw() {
    const { lane } = this;
    const x = (at) => Math.max(WIDTH * (1 - (now() - at) / WINDOW), 0);
    const bars = lane.spans().map(({ begun, ended, ok }) => svg("rect", {
      class: level(ended - begun, ok),
      x: x(begun).toFixed(1),
      width: Math.max(x(ended) - x(begun), LEAST).toFixed(1),
      height: HEIGHT,
    }));
    this.drawing.replaceChildren(...bars);
    say(this.value, told(lane));
    const at = level(lane.seconds, !lane.gone || lane.waits);
    this.node.dataset.level = lane.asked.length || lane.waits ? at : "unknown";
    this.drawing.setAttribute("aria-label", this.inWords());
  }

  inWords() {
    const took = this.lane.asked.filter((each) => each.ok).map((each) => each.ended - each.begun);
    const longest = took.length ? `${(Math.max(...took) * 1000).toFixed(0)} ms` : "none";
    return `${this.title}, the last minute: ${took.length} answers, the longest took ${longest}.`;
  }
}
