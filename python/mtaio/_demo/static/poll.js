// Asking again and again, one question at a time.

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));
export const now = () => Date.now() / 1000;

/** Calls `work` for ever, `period` ms apart, never two at once. */
export async function forever(period, work) {
  for (;;) {
    const begun = performance.now();
    await work();
    await pause(Math.max(period - (performance.now() - begun), 50));
  }
}

/** Somebody who is asked for ever: what was answered, and how long it took. */
export class Lane {
  /** `ask` resolves when there is an answer, and throws when there is none. */
  constructor(ask, kept = 60) {
    this.ask = ask;
    this.kept = kept;
    this.asked = []; // {begun, ended, ok}, oldest first
    this.waitsSince = null;
    this.gone = false;
  }

  async turn() {
    this.waitsSince = now();
    let ok = true;
    try {
      await this.ask();
    } catch {
      ok = false;
    }
    this.gone = !ok;
    this.asked.push({ begun: this.waitsSince, ended: now(), ok });
    this.waitsSince = null;
    const oldest = now() - this.kept;
    while (this.asked[0].ended < oldest) this.asked.shift();
  }

  /** Seconds of the answer at hand, or waited so far. */
  get seconds() {
    const last = this.asked.at(-1);
    const waited = this.waitsSince === null ? 0 : now() - this.waitsSince;
    if (waited > 0.25 || !last) return waited;
    return last.ended - last.begun;
  }

  get waits() {
    return this.waitsSince !== null && now() - this.waitsSince > 0.25;
  }

  /** All to draw, what is waited for included. */
  spans() {
    if (!this.waits) return this.asked;
    return [...this.asked, { begun: this.waitsSince, ended: now(), ok: true }];
  }
}
