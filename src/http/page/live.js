// The server's events as they happen: a stream of server-sent events, or polling every two seconds where no stream
// can be had.
//
// EventSource sends no headers and so no key: the stream is read from fetch(). Only one stream is open, for the
// names that the visible view shows.

import { keyHeader, refusal, Refusal, send, session, url } from "./api.js";

const POLL_MS = 2000;
// The server sends a comment every 15 s. A longer silence means that something in between holds the stream back.
const SILENCE_MS = 20_000;
// How long a stream may take to begin before polling replaces it.
const OPENING_MS = 4000;
const AGAIN_MS = [500, 1000, 2000, 4000];
// Events are delivered in batches, so that a burst costs one redraw.
const BATCH_MS = 100;
const BATCH_MAX = 1000;

/** States: `connecting`, `live`, `reconnecting` (the server cannot be reached), `polling`, `stopped`. */
export const live = {
  state: "stopped",
  /** Called after each change of state. */
  watchers: new Set(),
  /** Called with `(events, left)`: `left` events were left out; with `null` for `events`, anything may have changed. */
  listeners: new Set(),
  prefix: null,
  stop: () => {},
};

function turn(state) {
  if (live.state === state) return;
  live.state = state;
  for (const watcher of live.watchers) watcher();
}

let batch = [];
let left = 0;
let handing = 0;

function hand(event, lost) {
  left += lost;
  if (event && batch.length < BATCH_MAX) batch.push(event);
  else if (event) left += 1;
  handing ||= setTimeout(() => {
    const [events, missing] = [batch, left];
    [batch, left, handing] = [[], 0, 0];
    for (const listener of live.listeners) listener(events, missing);
  }, BATCH_MS);
}

function tellAll() {
  for (const listener of live.listeners) listener(null, 0);
}

/** Splits the text of a stream, which arrives in pieces, into events. */
export class Parser {
  constructor(onEvent) {
    this.onEvent = onEvent;
    this.rest = "";
    this.type = "";
    this.data = [];
  }

  take(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.onEvent(this.type || "message", this.data.join("\n"));
      this.type = "";
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.type = value;
    if (field === "data") this.data.push(value);
  }
}

function take(type, data) {
  let told = {};
  try {
    told = JSON.parse(data);
  } catch {
    // Not JSON: a `lagged` event still says that events were left out.
  }
  if (type !== "lagged") return hand({ type, ...told }, 0);
  const lost = Number(told.missed) || 1;
  hand(null, lost);
}

/** Reads one stream to its end. */
async function follow(prefix, signal) {
  const key = session.key;
  const quiet = new AbortController();
  const either = AbortSignal.any([signal, quiet.signal]);
  let silence = setTimeout(() => quiet.abort(), OPENING_MS);
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => quiet.abort(), SILENCE_MS);
  };
  try {
    const response = await fetch(url("events", { prefix }), {
      headers: { ...keyHeader(key), accept: "text/event-stream" },
      signal: either,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    if (!response.ok) throw await refusal(response, key);
    heard();
    turn("live");
    // Events from before the stream began are not in it.
    tellAll();
    const parser = new Parser(take);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      parser.take(value);
    }
  } finally {
    clearTimeout(silence);
  }
}

const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

/** Whether the server can be reached, so that polling makes sense. */
async function answers(signal) {
  try {
    await send("GET", url("health"), { signal });
    return true;
  } catch {
    return false;
  }
}

async function run(prefix, signal) {
  for (let failed = 0; !signal.aborted; ) {
    const began = performance.now();
    let refused = null;
    try {
      await follow(prefix, signal);
    } catch (error) {
      refused = error instanceof Refusal ? error : null;
    }
    if (signal.aborted) return;
    failed = performance.now() - began > SILENCE_MS ? 0 : failed + 1;
    const none = refused?.status === 404 || refused?.status === 405;
    if (!none && !(await answers(signal))) {
      turn("reconnecting");
      await pause(AGAIN_MS[Math.min(failed, AGAIN_MS.length) - 1] ?? AGAIN_MS[0], signal);
      continue;
    }
    if (none || failed > 1) {
      turn("polling");
      // A server without the route will not have it soon. Otherwise the stream is tried again after a few polls.
      for (let times = none ? 60 : 4; times > 0 && !signal.aborted; times -= 1) {
        await pause(POLL_MS, signal);
        if (!(await answers(signal))) break;
        tellAll();
      }
    }
  }
}

/** Follows the events of names with this prefix from now on; `null`: of no names. */
export function watch(prefix) {
  if (live.prefix === prefix) return;
  stop();
  live.prefix = prefix;
  if (prefix === null || document.hidden) return turn("stopped");
  const end = new AbortController();
  live.stop = () => end.abort();
  if (live.state === "stopped") turn("connecting");
  run(prefix, end.signal);
}

function stop() {
  live.stop();
  live.stop = () => {};
  live.prefix = null;
}

/** A hidden page asks the server for nothing. */
document.addEventListener("visibilitychange", () => {
  const { prefix } = live;
  stop();
  if (document.hidden) {
    live.prefix = prefix;
    turn("stopped");
  } else if (prefix !== null) {
    watch(prefix);
    tellAll();
  }
});
