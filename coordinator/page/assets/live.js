// The coordinator's word: one overview at a time, and the stream that tells
// when there is a newer one. The stream is resumed at the overview's revision,
// so it never brings all agents.

const askTimeout = 15000;
// Liveness and counts of addresses are not on the stream.
const period = 5000;
// However much changes, the coordinator is asked once a second at most, and
// for a tenth of the time that it needs for an answer.
const leastPause = 1000;
const restPerWork = 10;
// The coordinator pings every 10 seconds.
const silence = 25000;
const firstRetry = 1000;
const lastRetry = 10000;

export class Live {
  // onOverview(overview, changed) is called with each overview, changed being
  // the agents that the stream named since the last one; onLink(state) with
  // {kind, at, stale, message}, whenever one of them is another.
  constructor({ onOverview, onLink }) {
    this.onOverview = onOverview;
    this.onLink = onLink;
    this.query = "";
    this.at = 0; // when the last overview came
    this.stale = 0; // its age in seconds, by the coordinator
    this.lostAt = 0;
    this.denied = false; // by the certificate that the browser shows, or lacks
    this.changed = new Set();
    this.newest = 0; // latest revision that the stream told of
    this.retry = firstRetry;
    this.took = 0;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.rest() : this.ask(this.query)));
    window.addEventListener("online", () => this.ask(this.query));
  }

  // ask gets the overview of another query, now.
  ask(query) {
    this.query = query;
    this.asking?.abort();
    this.asking = null;
    this.refresh();
  }

  // rest stops all while nobody looks.
  rest() {
    clearTimeout(this.timer);
    this.timer = null;
    this.asking?.abort();
    this.asking = null;
    this.closeStream();
  }

  soon(pause) {
    const due = Date.now() + pause;
    if (this.timer && this.due <= due) return;
    clearTimeout(this.timer);
    this.due = due;
    this.timer = setTimeout(() => this.refresh(), pause);
  }

  async refresh() {
    clearTimeout(this.timer);
    this.timer = null;
    if (document.hidden && this.at) return;
    if (this.asking) return this.soon(leastPause);
    const asking = new AbortController();
    this.asking = asking;
    const timeout = setTimeout(() => asking.abort(new Error("no answer in time")), askTimeout);
    const changed = this.changed;
    this.changed = new Set();
    const begin = performance.now();
    try {
      const response = await fetch(`/v1/overview?${this.query}`, { signal: asking.signal, cache: "no-store" });
      const body = await response.json();
      if (this.asking !== asking) return;
      if (!response.ok) {
        const refusal = new Error(body.error?.message ?? `the coordinator answers ${response.status}`);
        refusal.denied = response.status === 401 || response.status === 403;
        throw refusal;
      }
      this.took = performance.now() - begin;
      this.at = Date.now();
      this.lostAt = 0;
      this.denied = false;
      this.retry = firstRetry;
      this.stale = Number(response.headers.get("X-Dcos-Overlay-Stale") ?? 0);
      this.onOverview(body, changed);
      this.follow(body);
      this.tell("");
      this.soon(body.revision < this.newest ? this.pause() : period);
    } catch (error) {
      for (const ip of changed) this.changed.add(ip);
      if (this.asking !== asking) return;
      this.denied = Boolean(error.denied);
      this.lose(error instanceof TypeError ? "" : error.message);
    } finally {
      clearTimeout(timeout);
      if (this.asking === asking) this.asking = null;
    }
  }

  pause() {
    return Math.max(leastPause, restPerWork * this.took);
  }

  lose(message) {
    this.closeStream();
    if (!this.lostAt) this.lostAt = Date.now();
    this.tell(message);
    this.soon(this.retry);
    this.retry = Math.min(2 * this.retry, lastRetry);
  }

  tell(message) {
    let kind = "live";
    if (this.denied) kind = "denied";
    else if (this.lostAt) kind = "lost";
    else if (this.stale) kind = "stale";
    else if (!this.synced) kind = "wait";
    this.onLink({ kind, at: this.at, stale: this.stale, message });
  }

  closeStream() {
    this.streaming?.abort();
    this.streaming = null;
    this.synced = false;
  }

  // follow opens the stream after the overview, unless it is open.
  follow({ revision, epoch }) {
    if (this.streaming) return;
    const streaming = new AbortController();
    this.streaming = streaming;
    this.read(streaming, `/v1/agents?watch=true&since=${revision}&epoch=${encodeURIComponent(epoch)}`)
      .catch(() => {})
      .finally(() => {
        if (this.streaming !== streaming) return;
        streaming.abort();
        this.closeStream();
        this.soon(this.retry);
        this.tell("");
      });
  }

  async read(streaming, url) {
    let heard;
    const hear = () => {
      clearTimeout(heard);
      heard = setTimeout(() => streaming.abort(), silence);
    };
    hear();
    try {
      const response = await fetch(url, { signal: streaming.signal, cache: "no-store" });
      if (!response.ok) return;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        hear();
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          if (!this.take(JSON.parse(line))) return;
        }
      }
    } finally {
      clearTimeout(heard);
    }
  }

  // take reads one event; false ends the stream.
  take(event) {
    switch (event.type) {
      case "snapshot":
        // All agents would follow: a newer overview does instead.
        return false;
      case "synced":
        this.synced = true;
        this.tell("");
        return true;
      case "ping":
        return true;
    }
    this.newest = Math.max(this.newest, event.revision);
    const ip = event.agent?.ip ?? event.ip;
    if (ip) this.changed.add(ip);
    this.soon(Math.max(150, this.pause() - (Date.now() - this.at)));
    return true;
  }
}
