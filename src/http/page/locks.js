// The list of locks: which are held, by whom, and how many wait. By default the most waited-for come first.

import { isReachable, url } from "./api.js";
import { ForceOff } from "./actions.js";
import { useListing, SHOWN } from "./listing.js";
import { may, Server, Tiles } from "./now.js";
import {
  Ago, commandLine, curl, Elsewhere, Gap, html, Left, lockHref, Search, State, Text, Trouble,
  useEffect, useLayoutEffect, usePhone, useRedraw, useRef, useState, useVisibleRows,
} from "./parts.js";
import { count, number } from "./text.js";

const ROW_PX = 37;
const ROW_PHONE_PX = 65;
const TYPING_MS = 150;
// How long to try to restore the scroll position once the rows are loaded.
const RESTORE_MS = 3000;
// How long the rows stay where they are after a touch.
const TOUCH_MS = 1500;

export const ORDERS = { waiting: "most waited-for", held: "longest held", name: "name" };

/** The settings of the list in the address, with defaults for those it leaves out. */
export function view(params) {
  const sort = params.get("sort");
  const show = params.get("show");
  return {
    q: params.get("q") ?? "",
    sort: Object.hasOwn(ORDERS, sort) ? sort : "waiting",
    show: Object.hasOwn(SHOWN, show) ? show : "locked",
  };
}

export function listHref({ q, sort, show }) {
  const parts = [];
  if (q) parts.push(`q=${encodeURIComponent(q)}`);
  if (sort !== "waiting") parts.push(`sort=${sort}`);
  if (show !== "locked") parts.push(`show=${show}`);
  return `#/locks${parts.length ? "?" + parts.join("&") : ""}`;
}

const who = (lock) => {
  const [first, ...others] = lock.holders;
  if (!first) return html`<span class="none">${lock.state === "reserved" ? "the next in line" : "nobody"}</span>`;
  return html`<${Text} of=${first.owner} none="unnamed" />${others.length > 0 && html` <span class="more">+${others.length}</span>`}`;
};

function Row({ lock, index, at, isGone, onFocus }) {
  const first = lock.holders[0];
  const longest = lock.waitsSince;
  const cell = (label, content, css = "") => html`<td role="cell" class=${css} data-label=${label}>${content}</td>`;
  return html`<tr role="row" aria-rowindex=${index + 2} class=${`${isGone ? "gone" : ""} ${lock.waiting ? "waited" : ""}`}>
    <th role="rowheader" scope="row" class="name"><a href=${lockHref(lock.name)} data-row=${index} tabindex=${index === at ? 0 : -1}
      onFocus=${onFocus}><${Text} of=${lock.name} /></a></th>
    ${cell("State", html`<${State} of=${lock.state} />`, "c-state")}
    ${cell("Holder", who(lock), "c-holder")}
    ${cell("Held for", html`<${Ago} at=${first?.acquiredAt} />`, "c-since n")}
    ${cell("Ends in", html`<${Left} lease=${first} />`, "c-ends n")}
    ${cell("Waiting", lock.waiting ? number(lock.waiting) : html`<span class="none">0</span>`, "c-waiting n")}
    ${cell("Longest wait", html`<${Ago} at=${longest} />`, "c-longest n")}
  </tr>`;
}

const Column = ({ label, css = "", order, now, change }) => {
  if (!order) return html`<th role="columnheader" scope="col" class=${css}>${label}</th>`;
  const on = order === now;
  const direction = order === "name" ? "ascending" : "descending";
  return html`<th role="columnheader" scope="col" class=${css} aria-sort=${on ? direction : "none"}>
    <button type="button" class=${`sort ${on ? "on" : ""}`} onClick=${() => change({ sort: order })}>
      ${label}<span class="arrow" aria-hidden="true">${on ? (order === "name" ? "▴" : "▾") : ""}</span></button></th>`;
};

/** The rows, in an order that does not change while the pointer or the focus is in the list. */
function useSteadyOrder(listing) {
  const redraw = useRedraw();
  const held = useRef({ pointer: false, touched: 0, focus: false, names: null, last: new Map() }).current;
  const isHeld = held.pointer || held.focus || performance.now() < held.touched;
  if (held.listing !== listing) Object.assign(held, { listing, names: null });
  if (!isHeld) held.names = null;
  const hold = (change) => () => {
    Object.assign(held, change);
    const now = held.pointer || held.focus || performance.now() < held.touched;
    if (now && !held.names) held.names = listing.items.map((lock) => lock.name);
    if (!now && held.names) redraw();
  };
  const handlers = {
    onPointerEnter: (e) => e.pointerType === "mouse" && hold({ pointer: true })(),
    onPointerLeave: (e) => e.pointerType === "mouse" && hold({ pointer: false })(),
    onPointerDown: (e) => {
      if (e.pointerType === "mouse") return;
      hold({ touched: performance.now() + TOUCH_MS })();
      setTimeout(hold({}), TOUCH_MS + 50);
    },
    onFocusIn: hold({ focus: true }),
    onFocusOut: hold({ focus: false }),
  };
  const items = listing.items;
  if (!held.names) {
    held.last = new Map(items.map((lock) => [lock.name, lock]));
    return { rows: items, gone: new Set(), isOld: false, handlers, show: redraw };
  }
  const now = new Map(items.map((lock) => [lock.name, lock]));
  const gone = new Set();
  const rows = [];
  for (const name of held.names) {
    const lock = now.get(name);
    if (lock) held.last.set(name, lock);
    else gone.add(name);
    rows.push(lock ?? held.last.get(name));
  }
  // Rows that were loaded by scrolling are appended to the rows held in place.
  const known = new Set(held.names);
  const added = items.filter((lock) => !known.has(lock.name));
  const show = () => {
    held.names = items.map((lock) => lock.name);
    redraw();
  };
  if (listing.grown !== held.grown) {
    held.grown = listing.grown;
    for (const lock of added) {
      held.names.push(lock.name);
      held.last.set(lock.name, lock);
      rows.push(lock);
    }
    added.length = 0;
  }
  const isOld = added.length > 0 || gone.size > 0 || items.some((lock, i) => held.names[i] !== lock.name);
  return { rows, gone, isOld, handlers, show };
}

function Words({ listing, state, change }) {
  if (!listing.at) return html`<p class="words">${listing.error ? "Nothing can be shown yet." : "Loading…"}</p>`;
  if (listing.items.length) return null;
  const begins = state.q && html` that begins with <bdi><code>${state.q}</code></bdi>`;
  if (state.show === "all") return html`<p class="words">${state.q ? html`There is no name${begins}.` : "There are no resources yet."}</p>`;
  return html`<p class="words"><span class="calm" aria-hidden="true">✓</span> Nothing${begins} is ${state.show === "reserved" ? "reserved" : "held"}.
    <button type="button" class="link" onClick=${() => change({ show: "all" })}>Show every name</button></p>`;
}

export function Locks({ params, go }) {
  const state = view(params);
  const listing = useListing(state);
  const phone = usePhone();
  const height = phone ? ROW_PHONE_PX : ROW_PX;
  const table = useRef();
  const [at, setAt] = useState(0);
  const [forced, force] = useState(null);
  const order = useSteadyOrder(listing);
  const rows = !listing.at && listing.before ? listing.before : order.rows;
  const [first, last] = useVisibleRows(table, rows.length, height);
  listing.seen = [first, last];
  const change = (what, replace) => go(listHref({ ...state, ...what }), replace);

  useEffect(() => {
    if (last >= rows.length && listing.more) listing.grow();
  });
  usePlace(listing, state);
  useRowKeys({ rows, at, setAt, table, height, force: (lock) => may("admin") && isReachable(lock.name) && lock.holders.length && force(lock), show: order.show });

  const sorted = (label, css, name) => html`<${Column} label=${label} css=${css} order=${name} now=${state.sort} change=${change} />`;
  const query = { prefix: state.q, ...SHOWN[state.show], sort: state.sort === "name" ? undefined : state.sort };
  return html`<div class="view">
    <h1 class="hidden">Locks</h1>
    <${Tiles} />
    <div class="toolbar">
      <${Search} value=${state.q} pauseMs=${TYPING_MS} change=${(q) => change({ q }, true)} />
      <div class="choice" role="group" aria-label="Which names">
        <button type="button" aria-pressed=${state.show === "locked"} onClick=${() => change({ show: "locked" })}>Locked</button>
        <button type="button" aria-pressed=${state.show === "reserved"} onClick=${() => change({ show: "reserved" })}>Reserved</button>
        <button type="button" aria-pressed=${state.show === "all"} onClick=${() => change({ show: "all" })}>All names</button>
      </div>
      <label class="order"><span>Order</span>
        <select value=${state.sort} onChange=${(e) => change({ sort: e.target.value })}>
          ${Object.entries(ORDERS).map(([name, words]) => html`<option value=${name} selected=${name === state.sort}>${words}</option>`)}
        </select></label>
      <button type="button" class=${`changed ${order.isOld ? "" : "away"}`} disabled=${!order.isOld} onClick=${order.show}>Order changed: show</button>
    </div>
    <${Trouble} error=${listing.error} at=${listing.at} />
    <table class=${`list ${listing.error ? "old" : ""}`} ref=${table} role="table" aria-label="Locks" aria-rowcount=${listing.more ? -1 : rows.length + 1}>
      <thead role="rowgroup"><tr role="row">
        ${sorted("Name", "name", "name")}
        ${sorted("State", "c-state")}
        ${sorted("Holder", "c-holder")}
        ${sorted("Held for", "c-since n", "held")}
        ${sorted("Ends in", "c-ends n")}
        ${sorted("Waiting", "c-waiting n", "waiting")}
        ${sorted("Longest wait", "c-longest n")}
      </tr></thead>
      <tbody role="rowgroup" ...${order.handlers}>
        <${Gap} rows=${first} rowHeight=${height} columns="7" />
        ${rows.slice(first, last).map((lock, i) => html`<${Row} key=${lock.name} lock=${lock} index=${first + i} at=${Math.min(at, rows.length - 1)}
          isGone=${order.gone.has(lock.name)} onFocus=${() => setAt(first + i)} />`)}
        <${Gap} rows=${rows.length - last} rowHeight=${height} columns="7" />
      </tbody>
    </table>
    <${Words} listing=${listing} state=${state} change=${change} />
    ${listing.at > 0 && rows.length > 0 && html`<p class="foot">${
      listing.isCut
        ? html`These are the first ${number(rows.length)}. <button type="button" class="link" onClick=${() => change({ sort: "name" })}>In the order of names</button> every one can be reached.`
        : listing.more ? "More below…" : count(rows.length, state.show === "all" ? "name" : "lock")
    }</p>`}
    <${Elsewhere} what="List these" curl=${curl("GET", url("resource", query))} command=${commandLine("locks", state.q ? [state.q] : [])} />
    <${Server} />
    ${forced && html`<${ForceOff} name=${forced.name} onClose=${() => force(null)} />`}
  </div>`;
}

/** Restores rows and scroll position after a reload, or when the user comes back. */
function usePlace(listing, state) {
  const key = `place ${listHref(state)}`;
  const wanted = useRef({}).current;
  if (wanted.key !== key) Object.assign(wanted, { key, kept: JSON.parse(sessionStorage.getItem(key) ?? "null"), begun: false });
  useEffect(() => {
    const { kept } = wanted;
    if (!kept || wanted.begun || !listing.at) return;
    wanted.begun = true;
    const { signal } = listing.end;
    let until = 0;
    const scroll = () => {
      if (signal.aborted || wanted.kept !== kept) return;
      scrollTo(0, kept.top);
      // A later redraw makes the space for the rows: try again until then.
      if (Math.abs(scrollY - kept.top) > 1 && performance.now() < until) requestAnimationFrame(scroll);
      else wanted.kept = null;
    };
    listing.growTo(kept.rows).then(() => {
      until = performance.now() + RESTORE_MS;
      scroll();
    });
  });
  useEffect(() => {
    let timer = 0;
    const keep = () => {
      timer = 0;
      if (wanted.kept || wanted.key !== key) return;
      sessionStorage.setItem(key, JSON.stringify({ top: scrollY, rows: listing.items.length }));
    };
    const later = () => (timer ||= setTimeout(keep, 200));
    addEventListener("scroll", later, { passive: true });
    addEventListener("pagehide", keep);
    return () => {
      removeEventListener("scroll", later);
      removeEventListener("pagehide", keep);
      clearTimeout(timer);
    };
  }, [key, listing]);
}

/** `j` and `k` move, `f` forces off, `r` shows the order as it is now. */
function useRowKeys(all) {
  const ref = useRef();
  ref.current = all;
  useLayoutEffect(() => {
    const press = (e) => {
      const { rows, at, setAt, table, height, force, show } = ref.current;
      const body = table.current.tBodies[0];
      const inside = body.contains(document.activeElement);
      const move = (to) => {
        const next = Math.max(0, Math.min(rows.length - 1, to));
        setAt(next);
        const top = body.getBoundingClientRect().top + next * height;
        const head = 110;
        if (top < head) scrollBy(0, top - head);
        else if (top + height > innerHeight - 20) scrollBy(0, top + height - innerHeight + 20);
        // The row may not be drawn yet.
        requestAnimationFrame(() => requestAnimationFrame(() => body.querySelector(`[data-row="${next}"]`)?.focus({ preventScroll: true })));
      };
      if (e.detail === "j") move(inside ? at + 1 : 0);
      if (e.detail === "k") move(inside ? at - 1 : 0);
      if (e.detail === "f" && rows[at]) force(rows[at]);
      if (e.detail === "r") show();
    };
    addEventListener("page-key", press);
    return () => removeEventListener("page-key", press);
  }, []);
}
