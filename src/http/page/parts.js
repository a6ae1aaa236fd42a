// Parts that several views share.

import htm from "./htm.js";
import { useEffect, useLayoutEffect, useRef, useState } from "./hooks.js";
import { createElement, Fragment } from "./preact.js";
import { address, serverNow, session } from "./api.js";
import { absolute, shellWord, span } from "./text.js";

export const html = htm.bind(createElement);
export { Fragment, useEffect, useLayoutEffect, useRef, useState };

/** Returns a function that redraws the component. */
export function useRedraw() {
  const [, set] = useState(0);
  return () => set((n) => n + 1);
}

/** Redraws the component whenever the members of this set are called. */
export function useCalls(set) {
  const redraw = useRedraw();
  useEffect(() => {
    set.add(redraw);
    return () => set.delete(redraw);
  }, []);
}

const tickers = new Set();
setInterval(() => {
  for (const tick of tickers) tick();
}, 1000);

/** How long ago `at` was, by the server's clock. The tooltip shows `at` itself. */
export function Ago({ at }) {
  useCalls(tickers);
  if (!at) return html`<span class="none">–</span>`;
  return html`<time datetime=${at} title=${absolute(at)}>${span(Math.max(0, serverNow() - Date.parse(at)))}</time>`;
}

/** How long until a lease ends. */
export function Left({ lease }) {
  useCalls(tickers);
  if (!lease) return html`<span class="none">–</span>`;
  if (lease.deadline === null) return html`<span class="none" title="does not expire">no end</span>`;
  const left = lease.deadline - performance.now();
  const title = lease.expiresAt ? absolute(lease.expiresAt) : "";
  return html`<time datetime=${lease.expiresAt} title=${title} class=${left < 5000 ? "soon" : ""}>${left > 0 ? span(left) : "now"}</time>`;
}

export const State = ({ of }) => html`<span class=${`state ${of}`}>${of}</span>`;

/** Text from clients, isolated from the writing direction of the text around it. */
export const Text = ({ of, none = "–" }) => (of ? html`<bdi title=${of}>${of}</bdi>` : html`<span class="none">${none}</span>`);

export const lockHref = (name) => `#/lock/${encodeURIComponent(name)}`;

/** Why the last answer is missing or out of date. */
export function Trouble({ error, at }) {
  useCalls(tickers);
  if (!error) return null;
  const since = at ? ` What stands here is ${span(performance.now() - at)} old.` : "";
  const words = {
    unreachable: "The server cannot be reached. Trying again.",
    late: "The server did not answer in time. Trying again.",
  };
  const away = error.status === 503 ? " Trying again." : "";
  return html`<p class="trouble" role="status">${words[error.code] ?? error.message + away}${since}</p>`;
}

// ---- the same with curl and on the command line -------------------------------------------------------

export function curl(method, target, body) {
  const words = ["curl", "--path-as-is"];
  if (method !== "GET") words.push("-X", method);
  words.push('-H "x-api-key: $LOCK_KEY"');
  if (body !== undefined) words.push("-d", shellWord(JSON.stringify(body)));
  words.push(shellWord(target));
  return words.join(" ");
}

/** `options` come first: a name that begins with `-` has to stand after `--`. */
export function commandLine(verb, names, options = []) {
  const end = names.some((name) => name.startsWith("-")) ? ["--"] : [];
  const words = [verb, ...options, ...end, ...names].map(shellWord);
  return `LOCK_SERVER=${shellWord(address)} small-resource-server ${words.join(" ")}`;
}

async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS there is no clipboard API, but the browser can still copy a selection.
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}

function Copyable({ label, text }) {
  const [done, set] = useState("");
  const ref = useRef();
  const click = async () => {
    set((await copy(text, ref.current)) ? "Copied" : "Selected");
    setTimeout(() => set(""), 2000);
  };
  return html`<div class="copyable">
    <span class="label">${label}</span>
    <code ref=${ref} tabindex="0">${text}</code>
    <button type="button" class="small" onClick=${click} aria-label=${`Copy the ${label} command`}>${done || "Copy"}</button>
  </div>`;
}

/** How to do the same with curl or on the command line. The key is not shown. */
export const Elsewhere = ({ curl: line, command, what = "Do this" }) => html`<details class="elsewhere">
  <summary>${what} with curl${command ? " or the command line" : ""}</summary>
  <${Copyable} label="curl" text=${line} />
  ${command && html`<${Copyable} label="command line" text=${command} />`}
  <p class="hint">The key is read from the variable <code>LOCK_KEY</code>.</p>
</details>`;

// ---- dialogs ------------------------------------------------------------------------------------------

export function Dialog({ title, onClose, children, wide }) {
  const ref = useRef();
  useLayoutEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  return html`<dialog ref=${ref} class=${wide ? "wide" : ""} aria-labelledby="dialog-title"
    onClose=${onClose} onClick=${(e) => e.target === ref.current && onClose()}>
    <div class="dialog">
      <header><h2 id="dialog-title">${title}</h2>
        <button type="button" class="plain" aria-label="Close" onClick=${onClose}>✕</button></header>
      ${children}
    </div>
  </dialog>`;
}

// ---- the result of the last action, also for screen readers --------------------------------------------

const news = { text: "", bad: false, watchers: new Set(), timer: 0 };

export function tell(text, bad = false) {
  news.text = text;
  news.bad = bad;
  clearTimeout(news.timer);
  news.timer = setTimeout(() => {
    news.text = "";
    for (const watcher of news.watchers) watcher();
  }, 8000);
  for (const watcher of news.watchers) watcher();
}

export function News() {
  useCalls(news.watchers);
  return html`<div class=${`news ${news.bad ? "bad" : ""} ${news.text ? "" : "empty"}`} role="status">${news.text}</div>`;
}

/** Repeats the request `ask` of a view: one at a time, `gapMs` apart, and less often if answers take long. */
export class Refresher {
  constructor(ask, gapMs) {
    this.ask = ask;
    this.gapMs = gapMs;
    this.ended = -Infinity;
    this.took = 0;
    this.timer = 0;
    this.running = false;
    this.wanted = false;
    this.stopped = false;
  }

  /** Runs `ask` soon, or at once if the last run ended long enough ago. */
  want() {
    if (this.stopped || this.timer) return;
    if (this.running) {
      this.wanted = true;
      return;
    }
    const gap = Math.max(this.gapMs, 4 * this.took);
    this.timer = setTimeout(() => this.run(), Math.max(0, this.ended + gap - performance.now()));
  }

  async run() {
    this.timer = 0;
    this.running = true;
    const began = performance.now();
    try {
      await this.ask();
    } finally {
      this.ended = performance.now();
      this.took = this.ended - began;
      this.running = false;
      if (this.wanted) {
        this.wanted = false;
        this.want();
      }
    }
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }
}

// ---- tables of any length ------------------------------------------------------------------------------

// Number of rows that are drawn above and below the visible ones.
const BEYOND = 12;

/** The range of the table's `count` rows to draw: those visible in the window, and `BEYOND` more on both sides. */
export function useVisibleRows(ref, count, rowHeight) {
  const [range, set] = useState([0, 40]);
  useLayoutEffect(() => {
    let frame = 0;
    const measure = () => {
      frame = 0;
      const body = ref.current?.tBodies[0];
      if (!body) return;
      const above = -body.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(above / rowHeight) - BEYOND);
      const last = Math.min(count, Math.ceil((above + innerHeight) / rowHeight) + BEYOND);
      set((old) => (old[0] === first && old[1] === last ? old : [first, Math.max(first, last)]));
    };
    const later = () => (frame ||= requestAnimationFrame(measure));
    measure();
    addEventListener("scroll", later, { passive: true });
    addEventListener("resize", later);
    return () => {
      cancelAnimationFrame(frame);
      removeEventListener("scroll", later);
      removeEventListener("resize", later);
    };
  }, [count, rowHeight]);
  return [Math.min(range[0], count), Math.min(range[1], count)];
}

/** Takes the space of rows that are not drawn. */
export const Gap = ({ rows, rowHeight, columns }) =>
  rows > 0 && html`<tr class="gap" aria-hidden="true"><td colspan=${columns} style=${{ height: `${rows * rowHeight}px` }}></td></tr>`;

const phone = matchMedia("(max-width: 720px)");

/** Whether the window is so narrow that each row of a list takes two lines. */
export function usePhone() {
  const redraw = useRedraw();
  useEffect(() => {
    phone.addEventListener("change", redraw);
    return () => phone.removeEventListener("change", redraw);
  }, []);
  return phone.matches;
}

/** The field for what names begin with. `change` is called `pauseMs` after the last key. */
export function Search({ value, change, pauseMs }) {
  const input = useRef();
  const typing = useRef(0);
  useLayoutEffect(() => {
    if (document.activeElement !== input.current) input.current.value = value;
  }, [value]);
  const type = (e) => {
    clearTimeout(typing.current);
    const text = e.target.value;
    typing.current = setTimeout(() => change(text), pauseMs);
  };
  return html`<label class="search"><span class="hidden">Names that begin with</span>
    <input ref=${input} type="search" placeholder="Names that begin with…" spellcheck="false" autocomplete="off"
      autocapitalize="off" defaultValue=${value} onInput=${type} /><kbd aria-hidden="true">/</kbd></label>`;
}

export function useSession() {
  useCalls(session.listeners);
  return session;
}
